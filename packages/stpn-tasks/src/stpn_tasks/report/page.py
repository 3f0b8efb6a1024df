"""HTML by plain functions: whatever is text is escaped here, and nowhere else.

A page needs no script and no network: pictures are inside it, and its own policy (the meta
element ``Content-Security-Policy``) forbids the browser to load anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import NewType

from stpn_tasks.files import write_text

# Markup whose text is escaped: what the functions here return and put together.
Html = NewType("Html", str)

_STYLE = Path(__file__).with_name("page.css")
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading of its own, which the list of contents names."""

    title: str
    body: tuple[Html, ...]

    @property
    def anchor(self) -> str:
        """What a link to the section names."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Column:
    """One column of a table, or several below one heading.

    Attributes:
        title: of the column or the group.
        parts: titles of the group's columns; empty for a single one.
    """

    title: str
    parts: tuple[str, ...] = ()


def text(value: object) -> Html:
    """Return a value as text in markup."""
    return Html(escape(str(value)))


def join(*parts: Html) -> Html:
    """Return pieces of markup one behind the other."""
    return Html("".join(parts))


def element(tag: str, *content: Html, **attributes: str) -> Html:
    """Return an element.

    Args:
        tag: its name.
        content: what is inside.
        attributes: of the element; an underscore behind a name is left out (``class_``), others
            become hyphens.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
    )
    return Html(f"<{tag}{written}>{''.join(content)}</{tag}>")


def paragraph(*content: Html, class_: str = "") -> Html:
    """Return a paragraph."""
    return element("p", *content, **({"class_": class_} if class_ else {}))


def picture(source: str, alt: str, dark: str | None = None, **attributes: str) -> Html:
    """Return an image that is inside the page.

    Args:
        source: a ``data:`` address.
        alt: what it shows, for those who do not see it.
        dark: the same for a dark page, if it differs.
        attributes: of the image.
    """
    written = "".join(f' {name}="{escape(value)}"' for name, value in attributes.items())
    image = Html(f'<img src="{escape(source)}" alt="{escape(alt)}"{written}>')
    if dark is None:
        return image
    choice = f'<source media="(prefers-color-scheme: dark)" srcset="{escape(dark)}">'
    return element("picture", Html(choice), image)


def figure(content: Html, caption: Html) -> Html:
    """Return a figure with its caption below."""
    return element("figure", content, element("figcaption", caption))


def terms(entries: Iterable[tuple[str, Html]], class_: str = "meanings") -> Html:
    """Return a list of terms, each with what it means, or of facts with their values."""
    pairs = (join(element("dt", text(key)), element("dd", value)) for key, value in entries)
    return element("dl", *pairs, class_=class_)


def table(
    caption: str,
    corner: str,
    columns: Sequence[Column],
    rows: Sequence[tuple[str, Sequence[str]]],
) -> Html:
    """Return a table of text in a box of its own, which scrolls where it is too narrow.

    Args:
        caption: what the table shows.
        corner: what the rows are.
        columns: single ones and groups.
        rows: the title and the cells of each.
    """
    grouped = any(column.parts for column in columns)
    rowspan = {"rowspan": "2"} if grouped else {}
    top = [element("th", text(corner), scope="col", **rowspan)]
    below = []
    for column in columns:
        if column.parts:
            span = str(len(column.parts))
            top.append(element("th", text(column.title), scope="colgroup", colspan=span))
            below += [
                element("th", text(part), scope="col", **_first(i == 0))
                for i, part in enumerate(column.parts)
            ]
        else:
            top.append(element("th", text(column.title), scope="col", **rowspan))
    starts = _starts(columns) if grouped else set()
    body = [
        element(
            "tr",
            element("th", text(title), scope="row"),
            *(element("td", text(cell), **_first(i in starts)) for i, cell in enumerate(cells)),
        )
        for title, cells in rows
    ]
    head = [element("tr", *top)] + ([element("tr", *below)] if grouped else [])
    whole = element(
        "table",
        element("caption", element("span", text(caption))),
        element("thead", *head),
        element("tbody", *body),
    )
    return scrolling(whole, caption)


def scrolling(content: Html, label: str) -> Html:
    """Return a box that scrolls sideways, also by keyboard; ``label`` says what is in it."""
    return element("div", content, class_="scroll", role="region", tabindex="0", aria_label=label)


def page(title: str, lead: Html, sections: Iterable[Section]) -> Html:
    """Return a whole page: title, lead, list of contents, sections."""
    sections = list(sections)
    links = (
        element("li", element("a", text(section.title), href=f"#{section.anchor}"))
        for section in sections
    )
    bodies = (
        element(
            "section",
            element("h2", text(section.title), id=section.anchor),
            *section.body,
        )
        for section in sections
    )
    head = element(
        "head",
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html('<meta name="color-scheme" content="light dark">'),
        # An icon of its own keeps the browser from asking for one.
        Html('<link rel="icon" href="data:,">'),
        element("title", text(title)),
        element("style", Html(_STYLE.read_text(encoding="utf-8"))),
    )
    body = element(
        "body",
        element("header", element("h1", text(title)), lead),
        element("nav", element("ol", *links), aria_label="Contents"),
        element("main", *bodies),
    )
    return Html(f'<!doctype html>\n<html lang="en">{head}{body}</html>\n')


def write_page(path: Path, title: str, lead: Html, sections: Iterable[Section]) -> None:
    """Write a page atomically."""
    write_text(path, page(title, lead, sections))


def _first(is_first: bool) -> dict[str, str]:
    return {"class_": "first"} if is_first else {}


def _starts(columns: Sequence[Column]) -> set[int]:
    """Return where the groups of columns begin."""
    starts, position = set(), 0
    for column in columns:
        starts.add(position)
        position += max(1, len(column.parts))
    return starts
