"""Detectors in files: weights, recipe and classes in one ``.safetensors``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stpn_tasks.detection.build import build_detector
from stpn_tasks.detection.detector import VideoDetector
from stpn_tasks.files import atomic_path, write_text
from stpn_tasks.recipes import DetectionRecipe, from_json, to_json

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


def save_detector(
    path: Path, detector: VideoDetector, recipe: DetectionRecipe, classes: tuple[str, ...]
) -> None:
    """Write a detector atomically, and its recipe as ``recipe.json`` beside it."""
    tensors = {key: tensor.contiguous() for key, tensor in detector.state_dict().items()}
    metadata = {"recipe": to_json(recipe), "classes": json.dumps(classes)}
    with atomic_path(path) as partial:
        save_file(tensors, partial, metadata)
        _sort_metadata(partial)
    write_text(path.with_name("recipe.json"), to_json(recipe))


def _sort_metadata(path: Path) -> None:
    """Give the metadata the same order in every process, so that equal detectors are equal files.

    The header of a safetensors file is compact json after its length in 8 bytes.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        file.write(text.ljust(size))


def load_detector(path: Path) -> SavedDetector:
    """Read a detector that ``save_detector`` wrote.

    Raises:
        ValueError: if the file is missing, damaged, or not a detector of this project; names it.
    """
    tensors, metadata = _read(path)
    if not {"recipe", "classes"} <= metadata.keys():
        raise ValueError(f"{path} is not a detector: it has no recipe and classes in its metadata")
    recipe = from_json(metadata["recipe"], f"the recipe in {path}")
    classes = _classes(metadata["classes"], path)
    try:
        detector = build_detector(recipe, len(classes), load_weights=False)
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        raise ValueError(f"no detector can be built by the recipe in {path}: {error}") from error
    _fit(detector, tensors, path)
    return SavedDetector(detector.eval(), recipe, classes)


def _classes(text: str, path: Path) -> tuple[str, ...]:
    try:
        classes = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the classes in {path} are not JSON: {error}") from error
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"the classes in {path} are no list of names")
    return tuple(classes)


def initialise(detector: VideoDetector, path: Path) -> list[str]:
    """Begin from the weights of another detector, say the single-frame one.

    A prompt predictor, or SELSA's aggregators, that the file lacks begin anew; what of these the
    detector lacks is left out.

    Returns:
        The names of what begins anew and of what was left out.

    Raises:
        ValueError: if anything but these parts does not fit; nothing is loaded then.
    """
    tensors, _ = _read(path)
    own = detector.state_dict()
    absent = tuple(part for part in OPTIONAL_PARTS if not any(key.startswith(part) for key in own))
    unused = [key for key in tensors if key.startswith(absent)]
    kept = {key: tensor for key, tensor in tensors.items() if key not in set(unused)}
    missing = _fit(detector, kept, path, may_lack=OPTIONAL_PARTS)
    return missing + unused


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error


def _fit(
    detector: VideoDetector, tensors: dict[str, Tensor], path: Path, may_lack: tuple[str, ...] = ()
) -> list[str]:
    """Load tensors after checking that all of them fit; return the keys that the file lacks."""
    own = detector.state_dict()
    unknown = sorted(tensors.keys() - own.keys())
    shapes = [
        f"{key} is {tuple(tensors[key].shape)}, want {tuple(own[key].shape)}"
        for key in sorted(tensors.keys() & own.keys())
        if tensors[key].shape != own[key].shape
    ]
    missing = sorted(own.keys() - tensors.keys())
    lacking = [key for key in missing if not key.startswith(may_lack)]
    for what, keys in (("unknown", unknown), ("misshapen", shapes), ("missing", lacking)):
        if keys:
            raise ValueError(f"{path} is of another model; {what} weights: {_some(keys)}")
    detector.load_state_dict(tensors, strict=False)
    return missing


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
