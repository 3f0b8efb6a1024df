"""Measure frames per second of a segmenter."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from stpn_tasks.segmentation.recipes import SEGMENTATION_RECIPES


def bench_segmentation(
    recipe: Positional[Literal[tuple(SEGMENTATION_RECIPES)]] = "stpn-swin-tiny",  # type: ignore[valid-type]
    height: int = 480,
    width: int = 854,
    num_classes: int = 40,
    rounds: int = 5,
    video_frames: int = 30,
    device: str | None = None,
    output: Path | None = None,
) -> None:
    """Time a segmenter under every inference policy, and the same without prompts, in one run.

    The steady state is what the paper's 27.1 and 26.5 frames per second compare: prompts are at
    hand. The first frame of a video waits for all its support frames; streams pay for theirs as
    they go. Association is timed with the network; weights are random, batch 1; decoding, resizing
    of frames and masks, and copying are left out.

    Args:
        recipe: name of the recipe; it must have prompts.
        height: of the frames, in pixels.
        width: of the frames, in pixels.
        num_classes: classes of the segmenter.
        rounds: in each the baseline and every policy take their turn; medians count.
        video_frames: of a video, over which its first frame is shared out.
        device: "cpu" or "cuda"; chosen if not given.
        output: folder for bench-segmentation-RECIPE.json.
    """
    from stpn_tasks.analysis.speed import SpeedOptions
    from stpn_tasks.analysis.speed_command import bench_policies
    from stpn_tasks.engine import make_accelerator

    chosen = make_accelerator(device).device
    options = SpeedOptions((height, width), num_classes, chosen, rounds, video_frames)
    file = None if output is None else output / f"bench-segmentation-{recipe}.json"
    bench_policies(recipe, SEGMENTATION_RECIPES[recipe](), options, file)
    if file is not None:
        print(f"numbers: {file}")
