"""Run the comparison of trackers, and say how sure its differences are."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from stpn_data.deteriorated.options import RENDERER_VERSION
from stpn_data.deteriorated.tracking_options import TRACKING_VERSION
from stpn_tasks.comparison.options import ComparisonOptions
from stpn_tasks.comparison.rows import by_seed, run_rows
from stpn_tasks.comparison.seeds import open_seeds
from stpn_tasks.metrics.bootstrap import paired_difference
from stpn_tasks.tables import write_json
from stpn_tasks.tracking.comparison.protocol import (
    DIFFERENCES,
    ROWS,
    SCALES,
    TEST_SEQUENCES,
    TRAIN_SEQUENCES,
)
from stpn_tasks.tracking.comparison.stages import (
    TrackingSeed,
    gate,
    read_overlaps,
    train_and_test,
    train_backbone,
)

TESTS = ("step_first", "step_recent", "track_first", "track_recent")


def open_tracking_seeds(options: ComparisonOptions) -> tuple[TrackingSeed, ...]:
    """Return the seeds, after a check that the folder is not another comparison's.

    Raises:
        ValueError: if the folder holds a comparison of another size, precision or on other
            sequences.
    """
    data = {
        "renderer": [RENDERER_VERSION, TRACKING_VERSION],
        "train_sequences": dataclasses.asdict(TRAIN_SEQUENCES),
        "test_sequences": dataclasses.asdict(TEST_SEQUENCES),
    }
    return open_seeds(options, TrackingSeed, SCALES[options.size], data, "tracking-")


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
    seeds = open_tracking_seeds(options)
    rows = run_rows(
        options,
        seeds,
        ROWS,
        command="demo tracking",
        render=_render,
        train_first=train_backbone,
        train_and_test=train_and_test,
    )
    results = {
        "title": "Prompts from earlier search crops, on generated sequences",
        **rows,
        "gates": by_seed(seeds, [gate(seed) for seed in seeds]),
        "differences": _differences(seeds),
    }
    write_json(options.output / "tracking-results.json", results)
    return results


def _render(seed: TrackingSeed) -> None:
    seed.train_sequences()
    seed.test_sequences()


def _differences(seeds: Sequence[TrackingSeed]) -> list[dict[str, Any]]:
    """Compare rows frame by frame: overlap and success rate, of all and of deteriorated frames."""
    found = []
    for first, second in DIFFERENCES:
        for test in TESTS:
            pairs = [
                [read_overlaps(seed.found(f"{row}-{test.replace('_', '-')}")) for seed in seeds]
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
    for mine, theirs in zip(*pairs, strict=True):
        if not np.array_equal(mine.sequences, theirs.sequences):
            raise ValueError("rows were tested on different frames: remove the folders of tests")
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
