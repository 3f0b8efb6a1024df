"""Run the comparison of trackers: all seeds and trainings, side by side where there are workers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from stpn_data.deteriorated.tracking_options import TRACKING_VERSION, TrackingOptions
from stpn_tasks.comparison.claim import claim_comparison
from stpn_tasks.comparison.options import ComparisonOptions
from stpn_tasks.comparison.run import as_command
from stpn_tasks.comparison.stages import choose_device
from stpn_tasks.comparison.workers import in_two_stages
from stpn_tasks.engine import fast_precision
from stpn_tasks.metrics.bootstrap import paired_difference
from stpn_tasks.tables import environment, write_json
from stpn_tasks.tracking.comparison.protocol import DIFFERENCES, ROWS, SCALES
from stpn_tasks.tracking.comparison.stages import (
    TrackingWorkspace,
    gate,
    read_overlaps,
    train_and_test,
    train_first,
)

TESTS = ("step_first", "step_recent", "track_first", "track_recent")


def workspaces(options: ComparisonOptions) -> tuple[TrackingWorkspace, ...]:
    """Return one workspace per seed, after a check that the folder is not another comparison's.

    Raises:
        ValueError: if the folder holds a comparison of another size, precision or on other
            sequences.
    """
    device = choose_device(options.device)
    chosen = options.mixed_precision
    precision = fast_precision(device) if chosen == "auto" else chosen
    scale = SCALES[options.size]
    protocol = {
        "scale": dataclasses.asdict(scale),
        "mixed_precision": precision,
        "renderer": TRACKING_VERSION,
        "sequences": dataclasses.asdict(TrackingOptions()),
    }
    claim_comparison(options.output / "tracking-protocol.json", protocol)
    return tuple(
        TrackingWorkspace(
            options.output / f"tracking-seed-{seed}", seed, scale, device, precision, options.cache
        )
        for seed in options.seeds
    )


def compare_trackers(options: ComparisonOptions) -> dict[str, Any]:
    """Train and test every row with every seed, and write the results as json.

    What is there already, from a run that stopped, is not made again.

    Args:
        options: size, seeds, hardware, folder.

    Returns:
        What ``tracking-results.json`` holds: "about" the run; the "rows", each with the numbers of
        every seed; the "gates" of every seed; and "differences" of rows, over the sequences of all
        seeds, with their intervals.

    Raises:
        ValueError: if the folder holds another comparison, or weights of another recipe.
    """
    start = time.perf_counter()
    spaces = workspaces(options)
    about = environment(spaces[0].device)  # before a long run, in which files may change
    resumed = any(space.folder.exists() for space in spaces)
    for space in spaces:  # with all processors, before they are shared out
        space.train_sequences()
        space.test_sequences()
    trainings = tuple(dict.fromkeys(row.training for row in ROWS))
    found = in_two_stages(
        [partial(train_first, space) for space in spaces],
        [[partial(train_and_test, space, name) for name in trainings] for space in spaces],
        options.workers,
    )
    of_rows = [{name: row for one in of_seed for name, row in one.items()} for of_seed in found]
    gates = [gate(space) for space in spaces]
    minutes = f"{(time.perf_counter() - start) / 60:.1f}"
    results = {
        "title": "Prompts from earlier search crops, on generated sequences",
        "about": {
            "command": as_command("demo tracking", options),
            "minutes": minutes + (", after an earlier start" if resumed else ""),
            **about,
            "mixed_precision": spaces[0].mixed_precision,
            "workers": options.workers,
            **dataclasses.asdict(spaces[0].scale),
        },
        "gates": _by_seed(spaces, gates),
        "rows": [
            {
                "name": row.name,
                "label": row.label,
                "about": row.about,
                "seeds": _by_seed(spaces, [by_row[row.name] for by_row in of_rows]),
            }
            for row in ROWS
        ],
        "differences": _differences(spaces),
    }
    write_json(options.output / "tracking-results.json", results)
    return results


def _by_seed(spaces: Sequence[TrackingWorkspace], values: Sequence[Any]) -> dict[str, Any]:
    return {str(space.seed): value for space, value in zip(spaces, values, strict=True)}


def _differences(spaces: Sequence[TrackingWorkspace]) -> list[dict[str, Any]]:
    """Compare rows frame by frame: overlap and success rate, of all and of deteriorated frames."""
    found = []
    for first, second in DIFFERENCES:
        for test in TESTS:
            pairs = [
                [read_overlaps(space.found(f"{row}-{test.replace('_', '-')}")) for space in spaces]
                for row in (first, second)
            ]
            for condition in ("all", "deteriorated"):
                found.append(
                    {
                        "of": first,
                        "minus": second,
                        "test": test,
                        "condition": condition,
                        **_difference(pairs, condition),
                    }
                )
    return found


def _difference(pairs: Sequence[Sequence[Any]], condition: str) -> dict[str, list[float]]:
    """Return [mean, low, high], in points, of the overlap and of the success rate at 0.5."""
    kept = [[one.of(condition) for one in case] for case in pairs]
    overlaps = [
        np.concatenate([one.overlaps[keep] for one, keep in zip(case, keeps, strict=True)])
        for case, keeps in zip(pairs, kept, strict=True)
    ]
    sequences = np.concatenate(
        [
            one.sequences[keep] + number * 1_000_000  # sequences of another seed are other ones
            for number, (one, keep) in enumerate(zip(pairs[0], kept[0], strict=True))
        ]
    )
    if not len(sequences):
        return {}
    iou = paired_difference(overlaps[0], overlaps[1], sequences)
    rates = [(values > 0.5).astype(float) for values in overlaps]
    sr50 = paired_difference(rates[0], rates[1], sequences)
    return {
        name: [round(100 * value, 2) for value in (one.mean, one.low, one.high)]
        for name, one in (("iou", iou), ("sr50", sr50))
    }
