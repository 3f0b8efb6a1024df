"""The tables of a comparison of trackers, for a terminal."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from stpn_tasks.comparison.rows import mean_and_spread
from stpn_tasks.comparison.tables import row_table

_TEMPLATES = {"first": "first template alone", "recent": "with a recent one"}


def gate_rows(results: Mapping[str, Any]) -> Table:
    """Return how much the sequences ask for identity, and for a recent template.

    Args:
        results: what ``compare_trackers`` returns.
    """
    table = row_table("How much identity counts: one step of the baseline, SR0.5 (percent)")
    for name in ("all", "deteriorated", "new look"):
        table.add_column(name, justify="right")
    baseline = results["rows"][0]["seeds"]
    rows = {
        "template of another sequence": results["gates"],
        "first template": {seed: one["step_first"] for seed, one in baseline.items()},
        "and the last clean frame's": {seed: one["step_recent"] for seed, one in baseline.items()},
    }
    for label, seeds in rows.items():
        conditions = ("all", "deteriorated", "new_look")
        table.add_row(label, *(_over_seeds(seeds, name, "sr50") for name in conditions))
    return table


def step_rows(results: Mapping[str, Any], template: str) -> Table:
    """Return overlap and success of single steps from the true place: a row per row.

    Args:
        results: what ``compare_trackers`` returns.
        template: "first" or "recent".
    """
    table = row_table(f"One step from the true place, {_TEMPLATES[template]} (percent)")
    columns = [(name, metric) for name in ("all", "deteriorated", "clean") for metric in METRICS]
    for name, metric in columns:
        table.add_column(f"{name}\n{'IoU' if metric == 'ao' else METRICS[metric]}", justify="right")
    table.add_column("CPU s", justify="right")
    for row in results["rows"]:
        seeds = {seed: one[f"step_{template}"] for seed, one in row["seeds"].items()}
        numbers = [_over_seeds(seeds, name, metric) for name, metric in columns]
        seconds = statistics.fmean(one["cpu_seconds"] for one in row["seeds"].values())
        table.add_row(row["label"], *numbers, f"{seconds:.0f}")
    return table


METRICS = {"ao": "AO", "sr50": "SR0.5"}


def track_rows(results: Mapping[str, Any]) -> Table:
    """Return what the online trackers reach, with the first template alone and with renewed ones.

    Args:
        results: what ``compare_trackers`` returns.
    """
    table = row_table("Online tracking by GOT-10k's protocol (percent)")
    tests = {"track_first": "first template", "track_recent": "online template"}
    columns = [(test, metric) for test in tests for metric in ("ao", "sr50", "sr75")]
    for test, metric in columns:
        name = {"ao": "AO", "sr50": "SR0.5", "sr75": "SR0.75"}[metric]
        table.add_column(f"{tests[test]}\n{name}", justify="right")
    table.add_column("deteriorated\nAO", justify="right")
    for row in results["rows"]:
        numbers = [
            _over_seeds({seed: one[test] for seed, one in row["seeds"].items()}, "all", metric)
            for test, metric in columns
        ]
        online = {seed: one["track_recent"] for seed, one in row["seeds"].items()}
        table.add_row(row["label"], *numbers, _over_seeds(online, "deteriorated", "ao"))
    return table


def difference_rows(results: Mapping[str, Any]) -> Table:
    """Return the differences that matter, each with its 95 % interval over sequences."""
    table = row_table("Differences in overlap, points, with 95 % intervals over sequences")
    labels = {row["name"]: row["label"] for row in results["rows"]}
    tests = dict.fromkeys(one["test"] for one in results["differences"])
    for test in tests:
        kind, template = test.split("_")
        table.add_column(f"{'one step' if kind == 'step' else 'AO'}\n{template}", justify="right")
    pairs = dict.fromkeys(
        (one["of"], one["minus"], one["condition"]) for one in results["differences"]
    )
    for of, minus, condition in pairs:
        cells = [_interval(results["differences"], of, minus, condition, test) for test in tests]
        frames = "" if condition == "all" else f", {condition} frames"
        table.add_row(f"{labels[of]} - {labels[minus]}{frames}", *cells)
    return table


def _interval(
    differences: Sequence[Mapping[str, Any]], of: str, minus: str, condition: str, test: str
) -> str:
    key = {"of": of, "minus": minus, "condition": condition, "test": test}
    for one in differences:
        if key.items() <= one.items() and "iou" in one:
            mean, low, high = one["iou"]
            return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
    return "–"


def _over_seeds(seeds: Mapping[str, Mapping[str, Any]], condition: str, metric: str) -> str:
    return mean_and_spread([one[condition][metric] for one in seeds.values()])
