"""The tables of a comparison of segmenters, for a terminal."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from rich.table import Table

from stpn_tasks.comparison.rows import mean_and_spread
from stpn_tasks.comparison.tables import row_table
from stpn_tasks.segmentation.comparison.protocol import ASSOCIATED, ASSOCIATIONS

Numbers = Mapping[str, Any]


def precision_rows(results: Numbers) -> Table:
    """Return AP of frames, of videos, and of windows without a clean frame: a row per row.

    Args:
        results: what ``compare_segmenters`` returns.
    """
    columns: dict[str, Callable[[Numbers], float | None]] = {
        "all frames\nAP": lambda one: one["frames"]["all"]["ap"],
        "deteriorated\nAP": lambda one: one["frames"]["deteriorated"]["ap"],
        "deteriorated\nAP50": lambda one: one["frames"]["deteriorated"]["ap50"],
        "clean\nAP": lambda one: one["frames"]["clean"]["ap"],
        "videos\nAP": lambda one: one["video"]["ap"],
        "videos\nAP50": lambda one: one["video"]["ap50"],
        "no clean frame\nAP": lambda one: one.get("windows", {}).get("ap"),
        "no clean frame\nAP50": lambda one: one.get("windows", {}).get("ap50"),
    }
    table = row_table("YouTube-VIS AP of frames, videos and windows of four frames (percent)")
    _fill(table, results, columns)
    return table


def headroom_rows(results: Numbers) -> Table:
    """Return what tracks by annotations and the absence of classes would give.

    Args:
        results: what ``compare_segmenters`` returns.
    """
    columns: dict[str, Callable[[Numbers], float | None]] = {
        "videos\nAP": lambda one: one["video"]["ap"],
        "tracks by\nannotations": lambda one: one["headroom"]["oracle"]["ap"],
        "videos,\nno classes": lambda one: one["headroom"]["video, no classes"]["ap"],
        "deteriorated\nframes": lambda one: one["frames"]["deteriorated"]["ap"],
        "and no\nclasses": lambda one: one["headroom"]["deteriorated frames, no classes"]["ap"],
    }
    table = row_table(
        "Headroom, no bounds: association and classes, AP (percent; without classes over objects)"
    )
    _fill(table, results, columns)
    return table


def association_rows(results: Numbers) -> Table:
    """Return video AP with other associations than MinVIS', which go beyond it.

    Args:
        results: what ``compare_segmenters`` returns.
    """
    table = row_table("Association beyond MinVIS, AP of videos and of windows (percent)")
    for name in ASSOCIATIONS:
        table.add_column(f"{name}\nvideos", justify="right")
        table.add_column(f"{name}\nwindows", justify="right")
    for row in results["rows"]:
        if row["name"] in ASSOCIATED:
            cells = []
            for name in ASSOCIATIONS:
                seeds = [
                    one if name == "MinVIS" else one["associations"][name]
                    for one in row["seeds"].values()
                ]
                cells += [mean_and_spread([one["video"]["ap"] for one in seeds])]
                cells += [mean_and_spread([one.get("windows", {}).get("ap") for one in seeds])]
            table.add_row(row["label"], *cells)
    return table


def _fill(
    table: Table, results: Numbers, columns: Mapping[str, Callable[[Numbers], float | None]]
) -> None:
    for name in columns:
        table.add_column(name, justify="right")
    table.add_column("CPU s", justify="right")
    for row in results["rows"]:
        seeds = list(row["seeds"].values())
        cells = [mean_and_spread([take(one) for one in seeds]) for take in columns.values()]
        seconds = statistics.fmean(one["cpu_seconds"] for one in seeds)
        table.add_row(row["label"], *cells, f"{seconds:.0f}")
