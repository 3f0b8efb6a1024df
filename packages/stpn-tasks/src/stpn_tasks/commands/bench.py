"""Measure frames per second."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from stpn_tasks.recipes import DETECTION_RECIPES


def bench_detection(
    recipe: Positional[Literal[tuple(DETECTION_RECIPES)]] = "swin-tiny",  # type: ignore[valid-type]
    height: int = 600,
    width: int = 1000,
    num_classes: int = 30,
    rounds: int = 5,
    device: str | None = None,
    output: Path | None = None,
) -> None:
    """Time a detector under every inference policy, and the same without prompts, in one run.

    The steady state is what the paper's 23.12 and 22.27 frames per second compare: prompts are at
    hand. The first frame of a video waits for all its support frames; streams pay for theirs as
    they go. Weights are random, batch 1; decoding, resizing and copying are left out.

    Args:
        recipe: name of the recipe; it must have prompts.
        height: of the frames, in pixels.
        width: of the frames, in pixels.
        num_classes: classes of the detector.
        rounds: in each the baseline and every policy take their turn; medians count.
        device: "cpu" or "cuda"; chosen if not given.
        output: folder for bench-RECIPE.json.
    """
    from stpn_tasks.analysis.speed import SpeedOptions, measure_speed, speed_json, speed_table
    from stpn_tasks.engine import make_accelerator
    from stpn_tasks.tables import environment, print_table, write_json

    chosen = make_accelerator(device).device
    about = environment(chosen)
    options = SpeedOptions((height, width), num_classes, chosen, rounds)
    speeds = measure_speed(DETECTION_RECIPES[recipe](), options)
    title = f"{recipe}, {height}×{width}, {about['device']} ({about['processor']}), batch 1"
    print_table(speed_table(speeds, title))
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        path = output / f"bench-{recipe}.json"
        command = shlex.join(["stpn", *sys.argv[1:]])
        about |= {"command": command, "height": height, "width": width, "rounds": rounds}
        write_json(path, {"about": about, "speeds": speed_json(speeds)})
        print(f"numbers: {path}")
