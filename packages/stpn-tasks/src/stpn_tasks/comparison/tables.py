"""The tables of a comparison, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from stpn_tasks.results import Results, gain, statistic

FRAMES = ("all", "deteriorated", "clean")


def precision_rows(results: Results, test_set: str) -> Table:
    """Return AP and AP50 of all, deteriorated and clean frames: a row per model.

    Args:
        results: with one seed, or more for means and spreads.
        test_set: which one.
    """
    table = _table(f"Average precision, {test_set.replace('_', ' ')} clips (percent)")
    for condition in FRAMES:
        for metric in ("AP", "AP50"):
            table.add_column(f"{condition}\n{metric}", justify="right")
    table.add_column("CPU s", justify="right")
    for model in results.models:
        numbers = [
            str(statistic(model, test_set, condition, metric))
            for condition in FRAMES
            for metric in ("ap", "ap50")
        ]
        seconds = [run.cpu_seconds for run in model.runs if run.cpu_seconds is not None]
        mean = f"{sum(seconds) / len(seconds):.0f}" if seconds else "–"
        table.add_row(model.label, *numbers, mean)
    return table


def gain_rows(results: Results, test_set: str, conditions: Sequence[str]) -> Table:
    """Return the gain in AP50 over the first model: a row per other model.

    Args:
        results: as above.
        test_set: which one.
        conditions: the columns.
    """
    baseline, *others = results.models
    clips = test_set.replace("_", " ")
    table = _table(f"AP50 over {baseline.label}, {clips} clips (points)")
    for condition in conditions:
        table.add_column(condition.replace("_", " "), justify="right")
    for model in others:
        numbers = [gain(model, baseline, test_set, condition) for condition in conditions]
        table.add_row(model.label, *(number.signed() for number in numbers))
    return table


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    return table
