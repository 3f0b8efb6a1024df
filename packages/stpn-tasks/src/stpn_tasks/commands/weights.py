"""Convert weights of other projects."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional
from tyro.extras import SubcommandApp

from stpn_tasks.recipes import DETECTION_RECIPES, DetectionRecipe


def convert_weights_app() -> SubcommandApp:
    """Return one converting command per recipe."""
    converting = SubcommandApp()
    for name, recipe in DETECTION_RECIPES.items():
        command = _convert_command(recipe())
        first_line = inspect.cleandoc(recipe.__doc__ or "").partition("\n")[0]
        arguments = inspect.cleandoc(command.__doc__ or "").partition("\n")[2]
        command.__doc__ = f"{first_line}\n{arguments}"
        converting.command(name=name)(command)
    return converting


def _convert_command(default: DetectionRecipe) -> Callable[..., None]:
    """Return the command that converts weights for a recipe, whose every value can be changed."""

    def convert_weights(
        checkpoint: Positional[Path],
        output: Positional[Path],
        recipe: Annotated[DetectionRecipe, tyro.conf.arg(name="")] = default,
        classes: tuple[str, ...] = (),
    ) -> None:
        """Convert.

        A checkpoint of the authors' code becomes a detector, for ``stpn eval`` and ``stpn
        predict``. Of a Swin classifier or a single-frame detector (mmdet's or Microsoft's names)
        the backbone is taken, for ``--backbone.weights``. Every key is counted or named.

        Args:
            checkpoint: a .pth or .safetensors; nothing in it is run.
            output: the .safetensors to write, which must not be there; a detector's recipe.json is
                written beside it.
            recipe: what the weights are of.
            classes: names of the detector's classes in order; ImageNet VID's if not given.
        """
        from stpn_data.imagenet_vid import ImageNetVID
        from stpn_tasks.detection.released import convert_file
        from stpn_tasks.load_report import load_lines, load_table
        from stpn_tasks.tables import print_table

        report, use = convert_file(checkpoint, output, recipe, classes or ImageNetVID.classes)
        print_table(load_table(report))
        for line in load_lines(report):
            print(line)
        print(use)

    return convert_weights
