"""The tables of a comparison, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from stpn_tasks.report.words import MAIN, spoken
from stpn_tasks.results import Results, statistic


def precision_rows(results: Results, test_set: str) -> Table:
    """Return AP and AP50 of all, deteriorated and clean frames: a row per model.

    Args:
        results: with one seed, or more for means and spreads.
        test_set: which one.
    """
    table = row_table(f"Average precision, {spoken(test_set)} clips (percent)")
    for condition in MAIN:
        for metric in ("AP", "AP50"):
            table.add_column(f"{condition}\n{metric}", justify="right")
    table.add_column("CPU s", justify="right")
    for model in results.models:
        numbers = [
            str(statistic(model, test_set, condition, metric))
            for condition in MAIN
            for metric in ("ap", "ap50")
        ]
        seconds = "–" if model.cpu_seconds is None else f"{model.cpu_seconds:.0f}"
        table.add_row(model.label, *numbers, seconds)
    return table


def condition_rows(results: Results, test_set: str, conditions: Sequence[str]) -> Table:
    """Return AP50 of the frames of some conditions: a row per model.

    Args:
        results: as above.
        test_set: which one.
        conditions: the columns.
    """
    table = row_table(f"AP50, {spoken(test_set)} clips (percent)")
    for condition in conditions:
        table.add_column(spoken(condition), justify="right")
    for model in results.models:
        numbers = [statistic(model, test_set, condition) for condition in conditions]
        table.add_row(model.label, *map(str, numbers))
    return table


def row_table(title: str) -> Table:
    """Return a table whose first column is for the labels of rows."""
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    return table
