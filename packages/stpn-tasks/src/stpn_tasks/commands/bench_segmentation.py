"""Measure frames per second of a segmenter."""

from __future__ import annotations

import shlex
import sys
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
    from stpn_tasks.analysis.speed import SpeedOptions, measure_speed, speed_json, speed_table
    from stpn_tasks.engine import make_accelerator
    from stpn_tasks.tables import environment, print_table, write_json

    chosen = make_accelerator(device).device
    about = environment(chosen)
    options = SpeedOptions((height, width), num_classes, chosen, rounds, video_frames)
    speeds = measure_speed(SEGMENTATION_RECIPES[recipe](), options)
    title = f"{recipe}, {height}×{width}, {about['device']} ({about['processor']}), batch 1"
    print_table(speed_table(speeds, title))
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        path = output / f"bench-segmentation-{recipe}.json"
        command = shlex.join(["stpn", *sys.argv[1:]])
        about |= {"command": command, "height": height, "width": width, "rounds": rounds}
        write_json(path, {"about": about, "speeds": speed_json(speeds)})
        print(f"numbers: {path}")
