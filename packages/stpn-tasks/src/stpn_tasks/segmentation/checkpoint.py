"""Segmenters in files: weights, recipe and classes in one ``.safetensors``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stpn_tasks.files import write_text
from stpn_tasks.recipe_json import from_json, to_json
from stpn_tasks.segmentation.build import build_segmenter
from stpn_tasks.segmentation.recipes import SegmentationRecipe
from stpn_tasks.segmentation.segmenter import MinVIS
from stpn_tasks.segmentation.weights import load_mask2former_weights
from stpn_tasks.weights_file import class_names, fit_weights, read_weights, save_weights

_PREDICTOR = "encoder.predictor."
_RECIPE, _CLASSES = "segmentation_recipe", "classes"


@dataclass(frozen=True)
class SavedSegmenter:
    """A segmenter read from a file.

    Attributes:
        segmenter: in eval mode.
        recipe: what it was made by.
        classes: names of its classes, in the order of the labels.
    """

    segmenter: MinVIS
    recipe: SegmentationRecipe
    classes: tuple[str, ...]

    def check_classes(self, classes: Sequence[str]) -> None:
        """Check that a data set has the segmenter's classes, in the same order.

        Raises:
            ValueError: if it has not.
        """
        if self.classes != tuple(classes):
            raise ValueError(
                f"the segmenter knows the classes {self.classes}, the data has {tuple(classes)}"
            )


def save_segmenter(
    path: Path, segmenter: MinVIS, recipe: SegmentationRecipe, classes: Sequence[str]
) -> None:
    """Write a segmenter atomically, and its recipe as ``recipe.json`` beside it."""
    save_weights(path, segmenter, {_RECIPE: to_json(recipe), _CLASSES: json.dumps(list(classes))})
    write_text(path.with_name("recipe.json"), to_json(recipe))


def load_segmenter(path: Path) -> SavedSegmenter:
    """Read a segmenter that ``save_segmenter`` wrote.

    Raises:
        ValueError: if the file is missing, damaged, or not a segmenter of this project; names it.
    """
    tensors, metadata = read_weights(path)
    if not {_RECIPE, _CLASSES} <= metadata.keys():
        raise ValueError(
            f"{path} is not a segmenter: it has no segmentation recipe and classes in its metadata"
        )
    recipe = from_json(metadata[_RECIPE], f"the recipe in {path}", SegmentationRecipe)
    classes = class_names(metadata[_CLASSES], path)
    try:
        segmenter = build_segmenter(recipe, len(classes), load_weights=False)
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        raise ValueError(f"no segmenter can be built by the recipe in {path}: {error}") from error
    fit_weights(segmenter, tensors, path)
    return SavedSegmenter(segmenter.eval(), recipe, classes)


def initialise(segmenter: MinVIS, path: Path) -> list[str]:
    """Begin from other weights: a segmenter of this project, or Mask2Former or MinVIS.

    A predictor that the file lacks begins anew; one that the segmenter lacks is left out.

    Args:
        segmenter: takes the weights.
        path: ``.safetensors`` for one of this project, else for `load_mask2former_weights`, which
            logs what begins anew or is not used.

    Returns:
        The names of what begins anew and of what was left out.

    Raises:
        ValueError: if anything else does not fit; nothing is loaded then.
    """
    if path.suffix != ".safetensors":
        report = load_mask2former_weights(segmenter, path)
        return [*report.new, *report.unexpected]
    tensors, _ = read_weights(path)
    unused = []
    if segmenter.encoder.predictor is None:
        unused = [key for key in tensors if key.startswith(_PREDICTOR)]
    kept = {key: tensor for key, tensor in tensors.items() if key not in set(unused)}
    return fit_weights(segmenter, kept, path, may_lack=(_PREDICTOR,)) + unused
