import re
from html.parser import HTMLParser

import pytest

from stpn_tasks.report.page import (
    Column,
    Html,
    Section,
    element,
    page,
    paragraph,
    picture,
    scrolling,
    table,
    terms,
    text,
    write_page,
)

HOSTILE = "<b>\"x\"</b> & 'y'"
VOID = {"meta", "link", "img", "source"}


class Reader(HTMLParser):
    """The elements of a page with their attributes; refuses one that is not closed in order."""

    def __init__(self, markup):
        super().__init__()
        self.elements, self.text, self.open = [], "", []
        self.feed(markup)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def test_whatever_is_text_or_an_attribute_is_escaped():
    markup = [
        paragraph(text(HOSTILE)),
        picture("data:,", HOSTILE, "data:,"),
        terms([(HOSTILE, text(HOSTILE))]),
        table(HOSTILE, HOSTILE, [Column(HOSTILE, (HOSTILE,))], [(HOSTILE, [HOSTILE])]),
        scrolling(text(HOSTILE), HOSTILE),
        page(HOSTILE, text(HOSTILE), [Section(HOSTILE, (text(HOSTILE),))]),
    ]
    for piece in markup:
        found = Reader(piece)
        assert found.all("b") == []
        said = [a for _, attributes in found.elements for a in attributes.values()]
        assert HOSTILE in [found.text, *said] or found.text.count(HOSTILE) > 1


def test_names_of_attributes_are_those_of_html():
    assert element("p", class_="a", aria_label="b") == '<p class="a" aria-label="b"></p>'


def test_a_table_tells_what_its_cells_belong_to():
    columns = [Column("one"), Column("group", ("x", "y"))]
    found = Reader(table("Numbers", "model", columns, [("a", ["1", "2", "3"])]))
    scopes = [(a["scope"], a.get("colspan"), a.get("rowspan")) for a in found.all("th")]
    assert scopes == [
        ("col", None, "2"),
        ("col", None, "2"),
        ("colgroup", "2", None),
        ("col", None, None),
        ("col", None, None),
        ("row", None, None),
    ]
    assert len(found.all("td")) == 3
    assert len(found.all("caption")) == 1
    box = found.all("div")[0]
    assert (box["class"], box["tabindex"], box["aria-label"]) == ("scroll", "0", "Numbers")


def test_a_table_without_groups_has_one_row_of_headings():
    found = Reader(table("Numbers", "model", [Column("one")], [("a", ["1"])]))
    assert len(found.all("tr")) == 2
    assert not any("rowspan" in attributes for attributes in found.all("th"))


def test_a_page_is_for_phones_and_readers_and_loads_nothing():
    found = Reader(
        page("Title", paragraph(text("Lead.")), [Section("One & two", ()), Section("Three", ())])
    )
    assert found.all("html") == [{"lang": "en"}]
    metas = {a.get("name") or a.get("http-equiv"): a.get("content") for a in found.all("meta")}
    assert metas["viewport"] == "width=device-width, initial-scale=1"
    assert metas["color-scheme"] == "light dark"
    assert metas["Content-Security-Policy"].startswith("default-src 'none'")
    assert found.all("script") == []
    assert "http" not in re.sub("http-equiv", "", page("Title", text(""), []))
    links = [attributes["href"] for attributes in found.all("a")]
    assert links == ["#one-two", "#three"]
    assert [attributes["id"] for attributes in found.all("h2")] == ["one-two", "three"]


def test_a_page_takes_its_place_whole(tmp_path, monkeypatch):
    path = tmp_path / "new" / "page.html"
    write_page(path, "Old", text(""), [])
    old = path.read_text()
    assert old.startswith("<!doctype html>")

    def sections():
        yield Section("Good", ())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_page(path, "New", text(""), sections())
    assert path.read_text() == old
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]


def test_markup_is_not_escaped_twice():
    assert paragraph(text("a < b"), Html("<br>")) == "<p>a &lt; b<br></p>"
