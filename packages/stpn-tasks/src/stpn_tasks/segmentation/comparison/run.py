"""Run the comparison of segmenters."""

from __future__ import annotations

import dataclasses
from typing import Any

from stpn_data.deteriorated import SegmentationOptions
from stpn_data.deteriorated.options import RENDERER_VERSION
from stpn_data.deteriorated.segmentation_options import SEGMENTATION_VERSION
from stpn_tasks.comparison.options import ComparisonOptions
from stpn_tasks.comparison.rows import run_rows
from stpn_tasks.comparison.seeds import open_seeds
from stpn_tasks.segmentation.comparison.protocol import ROWS, SCALES
from stpn_tasks.segmentation.comparison.stages import (
    SegmentationSeed,
    train_and_test,
    train_first,
)
from stpn_tasks.tables import write_json


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
    data = {
        "renderer": [RENDERER_VERSION, SEGMENTATION_VERSION],
        "video": dataclasses.asdict(SegmentationOptions()),
    }
    rows = run_rows(
        options,
        open_seeds(options, SegmentationSeed, SCALES[options.size], data, "segmentation-"),
        ROWS,
        command="demo segmentation",
        render=_render,
        train_first=train_first,
        train_and_test=train_and_test,
    )
    title = "Prompts from neighbouring frames, in segmentation of deteriorated video"
    results = {"title": title, **rows}
    write_json(options.output / "segmentation-results.json", results)
    return results


def _render(seed: SegmentationSeed) -> None:
    seed.train_videos()
    seed.test_videos()
