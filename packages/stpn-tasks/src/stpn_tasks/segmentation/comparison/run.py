"""Run the comparison of segmenters: all seeds and trainings, side by side where there are workers."""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from typing import Any

from stpn_data.deteriorated import SegmentationOptions
from stpn_data.deteriorated.options import RENDERER_VERSION
from stpn_data.deteriorated.segmentation_options import SEGMENTATION_VERSION
from stpn_tasks.comparison.claim import claim_comparison
from stpn_tasks.comparison.options import ComparisonOptions
from stpn_tasks.comparison.run import as_command
from stpn_tasks.comparison.stages import choose_device
from stpn_tasks.comparison.workers import in_two_stages
from stpn_tasks.engine import fast_precision
from stpn_tasks.segmentation.comparison.protocol import ROWS, SCALES
from stpn_tasks.segmentation.comparison.stages import (
    SegmentationWorkspace,
    train_and_test,
    train_first,
)
from stpn_tasks.tables import environment, write_json


def workspaces(options: ComparisonOptions) -> tuple[SegmentationWorkspace, ...]:
    """Return one workspace per seed, after a check that the folder is not another comparison's.

    Raises:
        ValueError: if the folder holds a comparison of another size, precision or on other video.
    """
    device = choose_device(options.device)
    chosen = options.mixed_precision
    precision = fast_precision(device) if chosen == "auto" else chosen
    scale = SCALES[options.size]
    protocol = {
        "scale": dataclasses.asdict(scale),
        "mixed_precision": precision,
        "renderer": [RENDERER_VERSION, SEGMENTATION_VERSION],
        "video": dataclasses.asdict(SegmentationOptions()),
    }
    claim_comparison(options.output / "segmentation-protocol.json", protocol)
    return tuple(
        SegmentationWorkspace(
            options.output / f"segmentation-seed-{seed}",
            seed,
            scale,
            device,
            precision,
            options.cache,
        )
        for seed in options.seeds
    )


def compare_segmenters(options: ComparisonOptions) -> dict[str, Any]:
    """Train and test every row with every seed, and write the results as json.

    What is there already, from a run that stopped, is not made again.

    Args:
        options: size, seeds, hardware, folder.

    Returns:
        What ``segmentation-results.json`` holds: "about" the run, and the "rows", each with the
        numbers of every seed.

    Raises:
        ValueError: if the folder holds another comparison, or weights of another recipe.
    """
    start = time.perf_counter()
    spaces = workspaces(options)
    about = environment(spaces[0].device)  # before a long run, in which files may change
    resumed = any(space.folder.exists() for space in spaces)
    for space in spaces:  # with all processors, before they are shared out
        space.train_videos()
        space.test_videos()
    trainings = tuple(dict.fromkeys(row.training for row in ROWS))
    found = in_two_stages(
        [partial(train_first, space) for space in spaces],
        [[partial(train_and_test, space, name) for name in trainings] for space in spaces],
        options.workers,
    )
    of_rows = [{name: row for one in of_seed for name, row in one.items()} for of_seed in found]
    minutes = f"{(time.perf_counter() - start) / 60:.1f}"
    results = {
        "title": "Prompts from neighbouring frames, in segmentation of deteriorated video",
        "about": {
            "command": as_command("demo segmentation", options),
            "minutes": minutes + (", after an earlier start" if resumed else ""),
            **about,
            "mixed_precision": spaces[0].mixed_precision,
            "workers": options.workers,
            **dataclasses.asdict(spaces[0].scale),
        },
        "rows": [
            {
                "name": row.name,
                "label": row.label,
                "about": row.about,
                "seeds": {
                    str(space.seed): by_row[row.name]
                    for space, by_row in zip(spaces, of_rows, strict=True)
                },
            }
            for row in ROWS
        ],
    }
    write_json(options.output / "segmentation-results.json", results)
    return results
