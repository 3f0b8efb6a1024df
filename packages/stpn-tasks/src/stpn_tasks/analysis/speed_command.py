"""What ``stpn bench detection`` and ``stpn bench segmentation`` do: time, print, write."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from stpn_tasks.analysis.speed import SpeedOptions, measure_speed, speed_json, speed_table
from stpn_tasks.recipes import DetectionRecipe
from stpn_tasks.segmentation.recipes import SegmentationRecipe
from stpn_tasks.tables import environment, print_table, write_json


def bench_policies(
    name: str,
    recipe: DetectionRecipe | SegmentationRecipe,
    options: SpeedOptions,
    path: Path | None,
) -> None:
    """Time a network under every inference policy, print a table and write the numbers.

    Args:
        name: of the recipe.
        recipe: with prompts.
        options: what is timed, and where.
        path: the json to write; none if not given.

    Raises:
        ValueError: if the recipe has no prompts.
    """
    about = environment(options.device)
    height, width = options.size
    speeds = measure_speed(recipe, options)
    title = f"{name}, {height}×{width}, {about['device']} ({about['processor']}), batch 1"
    print_table(speed_table(speeds, title))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        command = shlex.join(["stpn", *sys.argv[1:]])
        about |= {"command": command, "height": height, "width": width, "rounds": options.rounds}
        write_json(path, {"about": about, "speeds": speed_json(speeds)})
