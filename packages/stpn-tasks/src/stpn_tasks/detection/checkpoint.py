"""Detectors in files: weights, recipe and classes in one ``.safetensors``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stpn_tasks.detection.build import build_detector
from stpn_tasks.detection.detector import VideoDetector
from stpn_tasks.files import write_text
from stpn_tasks.recipe_json import from_json, to_json
from stpn_tasks.recipes import DetectionRecipe
from stpn_tasks.weights_file import class_names, fit_weights, read_weights, save_weights

# What one detector has and another has not: beginnings of the names of their weights.
OPTIONAL_PARTS = ("encoder.predictor.", "head.roi_head.aggregators.")


@dataclass(frozen=True)
class SavedDetector:
    """A detector read from a file.

    Attributes:
        detector: in eval mode.
        recipe: what it was made by.
        classes: names of its classes, in the order of the labels.
    """

    detector: VideoDetector
    recipe: DetectionRecipe
    classes: tuple[str, ...]

    def check_classes(self, classes: Sequence[str], name: str = "the detector") -> None:
        """Check that a data set has the detector's classes, in the same order.

        Args:
            classes: of the data set.
            name: of the detector, for the message.

        Raises:
            ValueError: if it has not.
        """
        if self.classes != tuple(classes):
            raise ValueError(f"{name} knows the classes {self.classes}, the data has {classes}")


def save_detector(
    path: Path, detector: VideoDetector, recipe: DetectionRecipe, classes: tuple[str, ...]
) -> None:
    """Write a detector atomically, and its recipe as ``recipe.json`` beside it."""
    metadata = {"recipe": to_json(recipe), "classes": json.dumps(classes)}
    save_weights(path, detector, metadata)
    write_text(path.with_name("recipe.json"), to_json(recipe))


def load_detector(path: Path) -> SavedDetector:
    """Read a detector that ``save_detector`` wrote.

    Raises:
        ValueError: if the file is missing, damaged, or not a detector of this project; names it.
    """
    tensors, metadata = read_weights(path)
    if not {"recipe", "classes"} <= metadata.keys():
        raise ValueError(f"{path} is not a detector: it has no recipe and classes in its metadata")
    recipe = from_json(metadata["recipe"], f"the recipe in {path}", DetectionRecipe)
    classes = class_names(metadata["classes"], path)
    try:
        detector = build_detector(recipe, len(classes), load_weights=False)
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        raise ValueError(f"no detector can be built by the recipe in {path}: {error}") from error
    fit_weights(detector, tensors, path)
    return SavedDetector(detector.eval(), recipe, classes)


def initialise(detector: VideoDetector, path: Path) -> list[str]:
    """Begin from the weights of another detector, say the single-frame one.

    A prompt predictor, or SELSA's aggregators, that the file lacks begin anew; what of these the
    detector lacks is left out.

    Returns:
        The names of what begins anew and of what was left out.

    Raises:
        ValueError: if anything but these parts does not fit; nothing is loaded then.
    """
    tensors, _ = read_weights(path)
    own = detector.state_dict()
    absent = tuple(part for part in OPTIONAL_PARTS if not any(key.startswith(part) for key in own))
    unused = [key for key in tensors if key.startswith(absent)]
    kept = {key: tensor for key, tensor in tensors.items() if key not in set(unused)}
    missing = fit_weights(detector, kept, path, may_lack=OPTIONAL_PARTS)
    return missing + unused
