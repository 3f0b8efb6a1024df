"""What there is to train, and what it costs."""

from __future__ import annotations

import inspect
import textwrap
from typing import Literal

from tyro.conf import Positional

from stpn_tasks.recipes import DETECTION_RECIPES
from stpn_tasks.segmentation.recipes import SEGMENTATION_RECIPES
from stpn_tasks.tracking.recipes import TRACKING_RECIPES


def recipes() -> None:
    """List the recipes: what each is, its command, and what it gave."""
    for of_task in (DETECTION_RECIPES, SEGMENTATION_RECIPES, TRACKING_RECIPES):
        for name, recipe in of_task.items():
            print(f"{name}\n{textwrap.indent(inspect.cleandoc(recipe.__doc__ or ''), '    ')}\n")


def info(
    recipe: Positional[Literal[tuple(DETECTION_RECIPES)]],  # type: ignore[valid-type]
    height: int = 600,
    width: int = 1000,
    num_classes: int = 30,
    device: str | None = None,
    runs: int = 3,
) -> None:
    """Tell parameters, operations and frames per second of a recipe, with random weights.

    Args:
        recipe: name of the recipe.
        height: of the frames, in pixels.
        width: of the frames, in pixels.
        num_classes: classes of the detector.
        device: "cpu" or "cuda"; chosen if not given.
        runs: timed passes; the median counts.
    """
    from stpn_tasks.analysis.cost import cost_table, measure_cost
    from stpn_tasks.engine import make_accelerator
    from stpn_tasks.tables import print_table

    cost = measure_cost(
        DETECTION_RECIPES[recipe](),
        num_classes,
        (height, width),
        device=make_accelerator(device).device,
        runs=runs,
    )
    print_table(cost_table(recipe, cost))
