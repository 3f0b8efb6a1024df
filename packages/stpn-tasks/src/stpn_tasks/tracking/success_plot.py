"""Draw the success curves of trackers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from stpn_tasks.files import atomic_path
from stpn_tasks.metrics.got10k import THRESHOLDS, TrackingSuccess

SUFFIXES = (".png", ".svg", ".pdf")
# Paul Tol's "bright" scheme, told apart by the colour-blind; dashes tell the rest apart.
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#b8a41e", "#44b4d6", "#aa3377", "#8c8c8c")
_DASHES: tuple[tuple[float, ...], ...] = ((), (5.0, 1.5), (1.5, 1.2), (5.0, 1.5, 1.5, 1.5))
_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture everywhere
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "stpn",
    "text.parse_math": False,  # a name with dollars is a name
}


def write_success_plot(
    path: Path, successes: Mapping[str, TrackingSuccess], title: str = "GOT-10k"
) -> None:
    """Draw the share of frames above each overlap, a line for each tracker, best AO first.

    Args:
        path: the picture to write, .png, .svg or .pdf.
        successes: what each tracker reached, by its name.
        title: what stands above: the data set.

    Raises:
        ValueError: another suffix, no tracker, or one without a counted frame.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: a plot is written as {', '.join(SUFFIXES)}")
    if not successes:
        raise ValueError("there is no tracker to draw")
    for name, success in successes.items():
        if math.isnan(success.ao):
            raise ValueError(f"{name}: no frame counted, there is nothing to draw")
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(6.0, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        best_first = sorted(successes.items(), key=lambda item: -item[1].ao)
        for number, (name, success) in enumerate(best_first):
            row, column = divmod(number, len(_COLOURS))
            dashes = _DASHES[row % len(_DASHES)]
            axes.plot(
                THRESHOLDS,
                success.curve,
                color=_COLOURS[column],
                linestyle=(0, dashes) if dashes else "solid",
                linewidth=1.7,
                label=f"{name}: AO {success.ao:.3f}",
            )
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="overlap threshold", ylabel="success rate")
        axes.set_title(title, loc="left", fontsize=9.5)
        axes.set_axisbelow(True)
        axes.grid(color="#e2e0d9", linewidth=0.6)
        figure.legend(frameon=False, loc="outside right upper")
        with atomic_path(path) as partial:
            figure.savefig(partial, dpi=200, metadata=_undated(path.suffix))


def _undated(suffix: str) -> dict[str, None]:
    """Return metadata that keeps the time out of the file: the same numbers, the same bytes."""
    return {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix, {})
