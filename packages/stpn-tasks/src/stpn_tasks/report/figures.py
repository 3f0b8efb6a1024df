"""Curves and bars, drawn once for a light page and once for a dark one."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stpn_tasks.report.page import Html, element, figure, join, picture, text
from stpn_tasks.report.words import spoken
from stpn_tasks.results import CURVES, Model, Results, Statistic, gain, statistic

# Paul Tol's "bright" scheme, told apart by the colour-blind and on light and dark ground.
# Dashes tell them apart without colour.
_LONG, _DOTS, _MIXED = (5.0, 1.5), (1.5, 1.2), (5.0, 1.5, 1.5, 1.5)
_FIRST = ("#8c8c8c", ())
_STYLES: dict[str, tuple[str, tuple[float, ...]]] = {
    "stpn": ("#4477aa", ()),
    "baseline_equal_compute": ("#b8a41e", _LONG),
    "stpn_other": ("#ee6677", _MIXED),
    "static": ("#228833", _DOTS),
    "stpn_off": ("#44b4d6", _LONG),
    "stpn_other_tested": ("#aa3377", _DOTS),
}

_WIDTH = 3.5  # inches; at 110 pixels an inch a panel fits a phone as it is
RC = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture everywhere
    "font.size": 9.0,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.dpi": 220,  # of what is drawn as pixels inside
    "svg.fonttype": "path",
    "svg.hashsalt": "stpn",
    "text.parse_math": False,  # a name with dollars is a name
}


@dataclass(frozen=True)
class Look:
    """Colours of a page: of words, of what stands back, of lines behind curves."""

    ink: str
    quiet: str
    line: str


LIGHT, _DARK = Look("#1d1f23", "#5b6069", "#e2e0d9"), Look("#e4e2dc", "#a0a4ab", "#34383e")


@dataclass(frozen=True)
class _Drawn:
    """A model in a figure; no dashes make a solid line."""

    model: Model
    colour: str
    dashes: tuple[float, ...]


def precision_recall(results: Results, test_set: str) -> Html | None:
    """Return precision-recall curves, a panel for each of `CURVES`; ``None`` without any.

    A line is the mean over seeds, the band around it reaches from the lowest to the highest seed.
    """
    drawn = _drawn(results)
    panels = []
    for condition in CURVES:
        curves = [(one, _curves(one.model, test_set, condition)) for one in drawn]
        curves = [(one, of_seeds) for one, of_seeds in curves if len(of_seeds)]
        if not curves:
            continue
        models = [one.model for one, _ in curves]
        said = (f"{model.label} {statistic(model, test_set, condition)}" for model in models)
        alt = f"Precision-recall curves of {condition} frames. AP50: {', '.join(said)}."
        panels.append(panel(partial(_draw_curves, curves, f"{condition} frames"), 3.0, alt))
    if not panels:
        return None
    several = any(len(one.model.runs) > 1 for one in drawn)
    bands = " A line is the mean over the seeds; its band reaches from the lowest to the highest."
    of_set = f" Test set “{spoken(test_set)}”." if len(results.test_sets) > 1 else ""
    caption = text(
        "Precision at every recall for IoU 0.5, mean over the classes. The area below a line is "
        f"AP50.{bands if several else ''}{of_set}"
    )
    return figure(join(_key(drawn), element("div", *panels, class_="panels")), caption)


def gain_bars(results: Results, conditions: Sequence[str]) -> Html | None:
    """Return the points of AP50 that models gain on the first one, a panel per test set.

    Args:
        results: what was measured.
        conditions: which to show, top down; a panel leaves out those that its test set lacks.

    Returns:
        The figure; ``None`` where there is nothing to compare.
    """
    first, *others = _drawn(results)
    by_test_set: dict[str, _Bars] = {}
    for test_set in results.test_sets:
        bars = {
            condition: [gain(one.model, first.model, test_set, condition) for one in others]
            for condition in conditions
        }
        known = {c: of_c for c, of_c in bars.items() if any(g.num_seeds for g in of_c)}
        if known:
            by_test_set[test_set] = known
    if not by_test_set:
        return None
    limits = _limits(list(by_test_set.values()))
    height = max(0.9 + _height(bars, len(others)) for bars in by_test_set.values())
    panels = []
    for test_set, bars in by_test_set.items():
        title = spoken(test_set) if len(results.test_sets) > 1 else ""
        alt = " ".join(filter(None, ("Gain in AP50.", title, _said(bars, others))))
        panels.append(panel(partial(_draw_bars, bars, others, title, limits), height, alt))
    several = any(len(model.runs) > 1 for model in results.models)
    spread = " Thin lines: ± one standard deviation over the seeds, of the gain seed by seed."
    caption = text(
        f"Points of AP50 gained over {first.model.label}, by the condition of the frames."
        f"{spread if several else ''}"
    )
    return figure(join(_key(others, bars=True), element("div", *panels, class_="panels")), caption)


_Bars = dict[str, list[Statistic]]


def _drawn(results: Results) -> list[_Drawn]:
    """Return the models that figures show, the first of the results before the others."""
    first, *others = results.models
    names = {model.name for model in others}
    spare = [style for name, style in _STYLES.items() if name not in names]
    drawn = [_Drawn(first, *_FIRST)]
    for model in others:
        if model.in_figures:
            style = _STYLES.get(model.name) or (spare or [_FIRST]).pop(0)
            drawn.append(_Drawn(model, *style))
    return drawn


def _curves(model: Model, test_set: str, condition: str) -> NDArray[np.float64]:
    """Return the curves of a model's seeds, ``(S, 101)`` in percent."""
    found = [
        run.precision[test_set][condition].curve50
        for run in model.runs
        if condition in run.precision.get(test_set, {})
    ]
    return 100 * np.array([curve for curve in found if curve])


def _draw_curves(
    curves: Sequence[tuple[_Drawn, NDArray[np.float64]]], title: str, axes: Axes, look: Look
) -> None:
    recall = np.linspace(0, 100, 101)
    for one, of_seeds in reversed(curves):  # the first one on top
        if len(of_seeds) > 1:
            low, high = of_seeds.min(0), of_seeds.max(0)
            axes.fill_between(recall, low, high, color=one.colour, alpha=0.16, linewidth=0)
        style = (0, one.dashes) if one.dashes else "solid"
        axes.plot(recall, of_seeds.mean(0), color=one.colour, linestyle=style, linewidth=1.7)
    axes.set(xlim=(0, 100), ylim=(0, 102), xlabel="recall (%)", ylabel="precision (%)")
    axes.set_title(title, loc="left", fontsize=9.5, color=look.ink)
    axes.grid(color=look.line, linewidth=0.6)


def _draw_bars(
    bars: _Bars,
    others: Sequence[_Drawn],
    title: str,
    limits: tuple[float, float],
    axes: Axes,
    look: Look,
) -> None:
    step = 1 / (len(others) + 0.6)
    for row, of_condition in enumerate(bars.values()):
        for number, (one, value) in enumerate(zip(others, of_condition, strict=True)):
            place = row + (number - (len(others) - 1) / 2) * step
            axes.barh(place, value.mean, height=0.86 * step, color=one.colour, linewidth=0)
            if not math.isnan(value.spread):
                axes.errorbar(value.mean, place, xerr=value.spread, color=look.ink, elinewidth=0.9)
    axes.axvline(0, color=look.quiet, linewidth=0.8)
    axes.set(xlim=limits, ylim=(len(bars) - 0.45, -0.55), xlabel="points of AP50")
    axes.set_yticks(range(len(bars)), [spoken(name) for name in bars])
    axes.tick_params(axis="y", length=0)
    axes.set_title(title, loc="left", fontsize=9.5, color=look.ink)
    axes.grid(axis="x", color=look.line, linewidth=0.6)


def _height(bars: _Bars, num_others: int) -> float:
    """Return how high the rows are, in inches."""
    return len(bars) * (0.16 + 0.12 * num_others)


def _limits(panels: Sequence[_Bars]) -> tuple[float, float]:
    """Return one range for all panels, so that they can be compared: zero and every bar in it."""
    ends = [0.0]
    for value in (value for bars in panels for values in bars.values() for value in values):
        if value.num_seeds:
            reach = 0.0 if math.isnan(value.spread) else value.spread
            ends += [value.mean - reach, value.mean + reach]
    margin = 0.04 * max(max(ends) - min(ends), 1.0)
    return min(ends) - margin, max(ends) + margin


def _said(bars: _Bars, others: Sequence[_Drawn]) -> str:
    return " ".join(
        f"{spoken(condition)}: "
        + ", ".join(f"{one.model.label} {value}" for one, value in zip(others, values, strict=True))
        + "."
        for condition, values in bars.items()
    )


def panel(draw: Callable[[Axes, Look], None], height: float, alt: str) -> Html:
    """Return one pair of axes as a picture, for a light page and for a dark one.

    Args:
        draw: draws into axes in the colours of a page.
        height: inches; a panel is 3.5 inches wide.
        alt: what it shows, for those who do not see it.
    """
    light, dark = (_svg(draw, height, look) for look in (LIGHT, _DARK))
    return picture(light, alt, dark)


def _svg(draw: Callable[[Axes, Look], None], height: float, look: Look) -> str:
    """Draw into axes of their own, without pyplot's state; return a ``data:`` address."""
    inks = ("axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor")
    colours = dict.fromkeys(inks, look.ink)
    colours |= dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), look.quiet)
    style: dict[Any, Any] = {**RC, **colours}
    with mpl.rc_context(style):
        figure_ = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure_)
        axes = figure_.subplots()
        axes.set_axisbelow(True)
        draw(axes, look)
        buffer = io.BytesIO()
        figure_.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _key(drawn: Sequence[_Drawn], *, bars: bool = False) -> Html:
    """Return the legend of panels: a line or a square of each model's colour, and its label."""
    entries = []
    for one in drawn:
        dashes = " ".join(f"{2 * length:g}" for length in one.dashes)
        width, stroke = ("14", "12") if bars else ("34", "3")
        line = element(
            "line",
            x1="0",
            y1="7",
            x2=width,
            y2="7",
            stroke=one.colour,
            stroke_width=stroke,
            **({} if bars or not dashes else {"stroke_dasharray": dashes}),
        )
        swatch = element("svg", line, width=width, height="14", aria_hidden="true")
        entries.append(element("li", swatch, text(one.model.label)))
    return element("ul", *entries, class_="key")
