import base64
import math
import re
import warnings
from dataclasses import replace

import matplotlib as mpl
import pytest

from stpn_tasks.metrics import AveragePrecision
from stpn_tasks.report.figures import gain_bars, precision_recall
from stpn_tasks.report.numbers import lead, number_sections
from stpn_tasks.results import Model, Results, Run

NAN = math.nan
CURVE = tuple(1 - i / 200 for i in range(101))


def ap(ap50, curve=CURVE):
    return AveragePrecision(ap50 / 2, ap50, NAN, NAN, NAN, NAN, () if math.isnan(ap50) else curve)


def model(name, *by_seed, test_set="test", label=None):
    """A model of as many seeds as numbers by condition are given."""
    runs = tuple(
        Run(seed, {test_set: {c: ap(v) for c, v in values.items()}}, 600, 90.0)
        for seed, values in enumerate(by_seed)
    )
    return Model(name, label or name, f"About {name}.", runs)


def results(*models):
    about = {"command": "stpn demo", "environment": {"commit": "abc123", "threads": 2}}
    return Results("Title", about, models)


BASELINE = model("baseline", {"all": 0.5, "clean": 0.9}, {"all": 0.6, "clean": 0.9})
STPN = model("stpn", {"all": 0.7, "clean": 0.9}, {"all": 0.9, "clean": 0.9}, label="STPN")


def images(markup):
    """The decoded drawings of a figure, and what they are said to show."""
    found = re.findall(r'<img src="data:image/svg\+xml;base64,([^"]+)" alt="([^"]*)"', markup)
    return [base64.b64decode(data).decode() for data, _ in found], [alt for _, alt in found]


def whole(sections):
    return "".join(part for section in sections for part in section.body)


def cells(markup):
    """The cells of each row, by the title of the row, of all tables one behind the other."""
    rows = re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', markup)
    return [(title, re.findall(r"<td[^>]*>(.*?)</td>", row)) for title, row in rows]


def test_there_is_a_panel_for_each_condition_that_has_a_curve():
    drawings, alts = images(precision_recall(results(BASELINE, STPN), "test"))
    assert len(drawings) == 2
    assert alts[0] == (
        "Precision-recall curves of all frames. AP50: baseline 55.0 ± 7.1, STPN 80.0 ± 14.1."
    )
    assert alts[1].startswith("Precision-recall curves of clean frames.")
    for drawing in drawings:
        assert "#8c8c8c" in drawing
        assert "#4477aa" in drawing
    assert precision_recall(results(model("a", {"all": NAN})), "test") is None


def test_a_band_is_drawn_only_over_several_seeds():
    one = results(model("baseline", {"all": 0.5}))
    several = results(BASELINE)
    assert "band" not in precision_recall(one, "test")
    assert "band" in precision_recall(several, "test")
    areas = [images(precision_recall(r, "test"))[0][0].count("FillBetween") for r in (one, several)]
    assert areas == [0, 1]


def test_a_model_has_its_colour_in_curves_and_bars_whatever_stands_beside_it():
    other = model("static", {"all": 0.6, "clean": 0.9}, {"all": 0.6, "clean": 0.9})
    for given in (results(BASELINE, STPN), results(BASELINE, other, STPN)):
        for markup in (precision_recall(given, "test"), gain_bars(given, ["all"])):
            key = re.search(r'stroke="(#\w+)"[^>]*></line></svg>STPN', markup)
            assert key[1] == "#4477aa"
            assert "#4477aa" in images(markup)[0][0]


def test_models_that_no_figure_knows_get_colours_of_their_own():
    names = ["baseline", *(f"own-{i}" for i in range(9))]
    markup = precision_recall(results(*(model(n, {"all": 0.5}) for n in names)), "test")
    colours = re.findall(r'stroke="(#\w+)"', markup)
    assert len(colours) == 10
    assert len(set(colours)) == 7


def test_models_tested_otherwise_than_trained_stand_in_tables_only():
    off = replace(model("stpn_off", {"all": 0.5}, {"all": 0.5}), in_figures=False)
    given = results(BASELINE, STPN, off)
    assert "stpn_off" not in precision_recall(given, "test") + gain_bars(given, ["all"])
    assert "stpn_off" in whole(number_sections(given))


def test_gains_are_seed_by_seed_and_have_a_spread_over_several():
    _, alts = images(gain_bars(results(BASELINE, STPN), ["all", "clean", "absent"]))
    assert alts == ["Gain in AP50. all: STPN 25.0 ± 7.1. clean: STPN 0.0 ± 0.0."]
    _, alts = images(
        gain_bars(results(model("a", {"all": 0.5}), model("b", {"all": 0.7})), ["all"])
    )
    assert alts == ["Gain in AP50. all: b 20.0."]


def test_there_is_a_panel_of_gains_per_test_set_and_none_without_a_second_model():
    runs = tuple(
        Run(0, {"same_class": {"all": ap(value)}, "mixed_class": {"all": ap(value / 2)}})
        for value in (0.4, 0.8)
    )
    given = results(*(Model(n, n, n, (run,)) for n, run in zip("ab", runs, strict=True)))
    assert images(gain_bars(given, ["all"]))[1] == [
        "Gain in AP50. same class all: b 40.0.",
        "Gain in AP50. mixed class all: b 20.0.",
    ]
    assert gain_bars(results(BASELINE), ["all"]) is None
    assert gain_bars(results(BASELINE, STPN), ["absent"]) is None


def test_drawing_is_repeatable_and_leaves_matplotlib_as_it_was():
    with warnings.catch_warnings(), mpl.rc_context({"font.size": 13, "text.parse_math": True}):
        warnings.simplefilter("error")
        before = dict(mpl.rcParams)
        one, other = (gain_bars(results(BASELINE, STPN), ["all"]) for _ in range(2))
        assert dict(mpl.rcParams) == before
    assert one == other


def test_names_with_dollars_and_markup_are_names():
    name = r'<b>"$\foo$"</b>'
    given = results(
        model("baseline", {"all": 0.5, name: 0.2}, label=name),
        model("stpn", {"all": 0.6, name: 0.4}, label=name),
    )
    markup = whole(number_sections(given)) + lead(given)
    assert "<b>" not in markup
    assert "&lt;b&gt;&quot;$\\foo$&quot;&lt;/b&gt;" in markup
    assert "as the data set names it." in markup


def test_tables_have_mean_and_spread_and_a_dash_for_what_is_not_there():
    given = results(BASELINE, STPN, model("other", {"all": 0.5, "defocus": NAN}))
    rows = cells(whole(number_sections(given)))
    seconds, main, by_kind, gains = rows[:3], rows[3:6], rows[6:9], rows[9:]
    assert seconds[0] == ("baseline", ["0, 1", "600", "1.5"])
    assert main[0] == ("baseline", ["27.5 ± 3.5", "55.0 ± 7.1", "45.0 ± 0.0", "90.0 ± 0.0"])
    assert main[2] == ("other", ["25.0", "50.0", "–", "–"])
    assert by_kind == [(name, ["–", "–"]) for name in ("baseline", "STPN", "other")]
    assert gains == [
        ("STPN", ["+12.5 ± 3.5", "+25.0 ± 7.1", "+0.0 ± 0.0", "+0.0 ± 0.0"]),
        ("other", ["+0.0", "+0.0", "–", "–"]),
    ]


def test_losses_have_a_minus():
    rows = cells(whole(number_sections(results(STPN, BASELINE))))
    assert rows[-1] == ("baseline", ["−12.5 ± 3.5", "−25.0 ± 7.1", "+0.0 ± 0.0", "+0.0 ± 0.0"])


def test_the_lead_is_the_main_number_with_its_gain():
    both = "baseline 55.0 ± 7.1, STPN 80.0 ± 14.1; gain +25.0 ± 7.1 points (2 seeds)"
    compared = results(BASELINE, STPN, model("static", {"all": 0.1}))
    assert f">AP50 on all frames: {both}.<" in lead(compared)
    alone = results(model("a", {"all": 0.5, "deteriorated": 0.3}))
    assert ">AP50 on deteriorated frames: a 30.0 (1 seed).<" in lead(alone)


def test_what_was_run_is_told():
    markup = whole(number_sections(results(BASELINE)))
    for key, value in (
        ("command", "<code>stpn demo</code>"),
        ("commit", "abc123"),
        ("threads", "2"),
    ):
        assert f"<dt>{key}</dt><dd>{value}</dd>" in markup
    assert "<dt>baseline</dt><dd>About baseline.</dd>" in markup


@pytest.mark.parametrize("name", ["all", "deteriorated", "clean", "low_light", "fast"])
def test_every_condition_is_explained(name):
    markup = whole(number_sections(results(model("a", {"all": 0.5, name: 0.3, "defocus": 0.1}))))
    assert f"<dt>{name.replace('_', ' ')}</dt><dd>" in markup
    assert "as the data set names it" not in markup
