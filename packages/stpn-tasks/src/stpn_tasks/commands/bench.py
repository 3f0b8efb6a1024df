"""Measure frames per second."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from stpn_tasks.recipes import DETECTION_RECIPES
from stpn_tasks.tracking.recipes import TRACKING_RECIPES


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
    from stpn_tasks.analysis.speed import SpeedOptions
    from stpn_tasks.analysis.speed_command import bench_policies
    from stpn_tasks.engine import make_accelerator

    chosen = make_accelerator(device).device
    options = SpeedOptions((height, width), num_classes, chosen, rounds)
    file = None if output is None else output / f"bench-{recipe}.json"
    bench_policies(recipe, DETECTION_RECIPES[recipe](), options, file)
    if file is not None:
        print(f"numbers: {file}")


def bench_tracking(
    recipe: Positional[Literal[tuple(TRACKING_RECIPES)]] = "stpn-1k",  # type: ignore[valid-type]
    frames: int = 17,
    height: int = 720,
    width: int = 1280,
    rounds: int = 5,
    device: str | None = None,
    output: Path | None = None,
) -> None:
    """Time a tracker with prompts, and plain MixFormer with the same weights, in one run.

    Both track the same frames in turns. Between two refreshes of the prompts a frame costs a pass;
    every S-th frame costs one more, and in the next one prompts are predicted anew. Weights are
    random; the cut of the crops is timed, decoding is not.

    Args:
        recipe: name of the recipe; it must have prompts.
        frames: of a round, the one with the given box among them; 1 + a multiple of the stride S.
        height: of the frames, in pixels.
        width: of the frames, in pixels.
        rounds: times that both trackers follow all frames; medians count.
        device: "cpu" or "cuda"; chosen if not given.
        output: json file for the numbers.
    """
    from stpn_tasks.engine import make_accelerator
    from stpn_tasks.tables import environment, print_table, write_json
    from stpn_tasks.tracking.speed import TrackingSpeedOptions, measure_tracking_speed
    from stpn_tasks.tracking.speed_table import tracking_speed_json, tracking_speed_table

    chosen = make_accelerator(device).device
    about = environment(chosen)
    options = TrackingSpeedOptions(chosen, frames, rounds, (height, width))
    found = measure_tracking_speed(TRACKING_RECIPES[recipe](), options)
    title = f"{recipe}, {about['device']} ({about['processor']}), threads: {about['threads']}"
    print_table(tracking_speed_table(found, title))
    if output is not None:
        command = shlex.join(["stpn", *sys.argv[1:]])
        sizes = {"frames": frames, "height": height, "width": width, "rounds": rounds}
        write_json(
            output, {"about": about | {"command": command} | sizes} | tracking_speed_json(found)
        )
        print(f"numbers: {output}")
