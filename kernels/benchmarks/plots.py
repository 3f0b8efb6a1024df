"""A picture of each operator: its peers as multiples of ours, and how near ours is to the floor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, ScalarFormatter
from measure import EAGER, GRAPH
from report import Row

mpl.use("Agg")

MARKERS = {"forward": "o", "backward": "s", "both": "D"}


def draw_plot(rows: Sequence[Row], ours: str, title: str, path: Path) -> None:
    """Draw a line per shape, a mark per peer and direction; nothing without rows.

    Of a GPU's two modes only the CUDA graph is drawn, which leaves out the time that Python takes.

    Args:
        rows: of one operator, with times.
        ours: the provider that the others are compared with.
        title: over the picture.
        path: of the picture.
    """
    mode = GRAPH if any(row.mode == GRAPH for row in rows) else EAGER
    rows = [row for row in rows if row.mode == mode]
    if not rows:
        return
    shapes = list(dict.fromkeys(row.shape for row in rows))
    peers = list(dict.fromkeys(row.provider for row in rows if row.provider != ours))
    colours = dict(zip(peers, mpl.colormaps["tab10"].colors, strict=False)) | {ours: "black"}
    figure, (times, floor) = plt.subplots(
        1,
        2,
        figsize=(11, 0.24 * len(shapes) + 2.2),
        sharey=True,
        width_ratios=(3, 1),
        layout="constrained",
    )
    for row in rows:
        value = row.percent_of_floor if row.provider == ours else row.times_ours
        (floor if row.provider == ours else times).plot(
            [value],
            [shapes.index(row.shape)],
            MARKERS[row.direction],
            color=colours[row.provider],
            markersize=5,
            alpha=0.7,
        )
    times.set_yticks(range(len(shapes)), shapes, fontsize=8)
    times.set_ylim(len(shapes) - 0.5, -0.5)
    _scale(times, "time, as a multiple of ours: right of 1 ours is faster", line=1.0)
    _scale(floor, "ours, % of floor", line=100.0)
    marks = [_mark("o", colours[name], name) for name in (ours, *peers)]
    marks += [_mark(marker, "0.6", name) for name, marker in MARKERS.items()]
    figure.legend(handles=marks, loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle(f"{title}, {mode}", fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _scale(ax: Axes, label: str, line: float) -> None:
    ax.axvline(line, color="0.3", linewidth=1)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter("")
    ax.grid(color="0.9")
    ax.set_xlabel(label, fontsize=9)
    low, high = ax.get_xlim()
    ax.set_xlim(min(low, line / 2.2), max(high, line * 1.2))


def _mark(marker: str, colour: object, label: str) -> plt.Line2D:
    return plt.Line2D([], [], color=colour, marker=marker, ls="", label=label)
