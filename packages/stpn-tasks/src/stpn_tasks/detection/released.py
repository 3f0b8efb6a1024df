"""Turns the authors' checkpoints, and those of Swin detectors, into this project's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from safetensors.torch import save_file
from torch import Tensor

from stpn_backbones import LoadReport, PromptedSwin, check_fit, load_weights, read_state_dict
from stpn_core import convert_released_predictor
from stpn_tasks.detection.build import build_detector
from stpn_tasks.detection.checkpoint import save_detector
from stpn_tasks.detection.detector import VideoDetector
from stpn_tasks.detection.weights import convert_released_detector
from stpn_tasks.files import atomic_path
from stpn_tasks.recipe_json import to_json
from stpn_tasks.recipes import DetectionRecipe

_BACKBONE, _DETECTOR, _PREDICTOR = "detector.backbone.", "detector.", "prompt_predictor."
_SCORES = "detector.roi_head.bbox_head.fc_cls.weight"
_AGGREGATORS = "detector.roi_head.bbox_head.aggregator."


def is_released(state_dict: Mapping[str, Tensor]) -> bool:
    """Return whether weights have the authors' layout of a video detector."""
    return any(key.removeprefix("module.").startswith(_BACKBONE) for key in state_dict)


def convert_file(
    checkpoint: Path, output: Path, recipe: DetectionRecipe, classes: Sequence[str]
) -> tuple[LoadReport, str]:
    """Convert a file: the authors' whole detectors by `convert_released`, else the backbone alone.

    Args:
        checkpoint: a file for `read_state_dict`.
        output: the ``.safetensors`` to write, for `load_detector` or, of a backbone,
            `stpn_backbones.load_weights`; with a detector's recipe beside it.
        recipe: what the weights are of.
        classes: names of a detector's classes, in the order of the labels.

    Returns:
        The account of every key, and what the file that was written is for.

    Raises:
        ValueError: if the checkpoint cannot be read or does not fit, or the output is there
            already or would lie beside another recipe; the file is named.
    """
    if output.suffix != ".safetensors":
        raise ValueError(f"the output must be named *.safetensors, got {output}")
    if output.exists():
        raise ValueError(f"{output} is there already, and is not overwritten")
    state_dict = read_state_dict(checkpoint)
    try:
        if is_released(state_dict):
            _check_beside(output, recipe)
            detector, report = convert_released(state_dict, recipe, classes)
            save_detector(output, detector, recipe, tuple(classes))
            return report, f"detector: {output}, for --weights of stpn eval and stpn predict"
        backbone, report = convert_backbone(state_dict, recipe)
    except ValueError as error:
        raise ValueError(f"{checkpoint}: {error}") from error
    with atomic_path(output) as partial:
        save_file({key: w.contiguous() for key, w in backbone.state_dict().items()}, partial)
    return report, f"the backbone alone: {output}, for --backbone.weights of stpn train"


def _check_beside(output: Path, recipe: DetectionRecipe) -> None:
    """Check that a detector's ``recipe.json`` would take the place of none of another run."""
    there = output.with_name("recipe.json")
    if there.exists() and there.read_bytes() != to_json(recipe).encode():
        raise ValueError(
            f"{there} is another recipe's, and is not overwritten: choose another folder"
        )


def convert_released(
    state_dict: Mapping[str, Tensor], recipe: DetectionRecipe, classes: Sequence[str]
) -> tuple[VideoDetector, LoadReport]:
    """Build the detector of a recipe with the weights of a whole checkpoint of the authors' code.

    Faster R-CNN with prompts (``detector.*`` and ``prompt_predictor.*``), without, and SELSA.
    Either every weight is used and every weight of the detector found, or nothing is returned;
    of the checkpoint only index buffers are left out.

    Args:
        state_dict: the checkpoint's, as `read_state_dict` gives it.
        recipe: what the checkpoint was trained as, such as ``swin_tiny_released``.
        classes: names of its classes, in the order of the labels, without background.

    Returns:
        The detector, in eval mode, and the account of every key.

    Raises:
        ValueError: if the checkpoint is not what the recipe and the classes say; the keys, their
            shapes and the options are named.
    """
    if not is_released(state_dict):
        raise ValueError(
            f"expected keys that begin with {_BACKBONE}, got {list(state_dict)[:3]}: the backbone "
            "of a single-frame checkpoint is read by `backbone.weights` of a recipe"
        )
    wrapped = all(key.startswith("module.") for key in state_dict)
    outer = "module." if wrapped else ""
    plain = {key.removeprefix(outer): value for key, value in state_dict.items()}
    _check_recipe(plain, recipe, classes)
    detector = build_detector(recipe, len(classes), load_weights=False)
    backbone = cast("PromptedSwin", detector.encoder.backbone)
    swin = load_weights(backbone, plain, prefix=_BACKBONE)
    converted, sources = _convert_rest(plain)
    expected = {
        key: value
        for key, value in detector.state_dict().items()
        if key.removeprefix("encoder.backbone.") not in swin.loaded
    }
    check_fit(converted, expected, sources)
    detector.load_state_dict(converted, strict=False)
    loaded = {f"encoder.backbone.{own}": outer + key for own, key in swin.loaded.items()}
    loaded |= {own: outer + key for own, key in sources.items()}
    left_out = {k: why for k, why in swin.unexpected.items() if k.startswith(_BACKBONE)}
    report = LoadReport(loaded, (), {outer + key: why for key, why in left_out.items()})
    return detector.eval(), report


def convert_backbone(
    state_dict: Mapping[str, Tensor], recipe: DetectionRecipe
) -> tuple[PromptedSwin, LoadReport]:
    """Build the backbone of a recipe with the weights of a Swin classifier or detector.

    Of a detector, mmdet's or Microsoft's, only the backbone is used, as the authors do: its head
    has other classes and scales its boxes otherwise.

    Args:
        state_dict: the checkpoint's, as `read_state_dict` gives it.
        recipe: tells the backbone's sizes.

    Raises:
        ValueError: if it holds another backbone; names what differs.
    """
    detector = build_detector(recipe, 1, load_weights=False)
    backbone = cast("PromptedSwin", detector.encoder.backbone)
    return backbone, load_weights(backbone, state_dict)


def _convert_rest(
    state_dict: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Rename what is not the backbone's; return it, and the source of each of our keys."""
    inside = {key for key in state_dict if key.startswith(_BACKBONE)}
    head = [key for key in state_dict if key.startswith(_DETECTOR) and key not in inside]
    predictor = [key for key in state_dict if key.startswith(_PREDICTOR)]
    unknown = state_dict.keys() - inside - set(head) - set(predictor)
    converted: dict[str, Tensor] = {}
    sources: dict[str, str] = {}
    for key in (*head, *predictor):
        name = _own_name(key, state_dict[key])
        if name is None:
            unknown.add(key)
        else:
            converted[name], sources[name] = state_dict[key], key
    if unknown:
        names = ", ".join(key for key in state_dict if key in unknown)
        raise ValueError(f"keys that no released video detector has: {names}")
    return converted, sources


def _own_name(key: str, value: Tensor) -> str | None:
    try:
        if key.startswith(_PREDICTOR):
            (name,) = convert_released_predictor({key.removeprefix(_PREDICTOR): value})
            return f"encoder.predictor.{name}"
        (name,) = convert_released_detector({key.removeprefix(_DETECTOR): value})
        return f"head.{name}"
    except (KeyError, ValueError):  # of a key that they do not know
        return None


def _check_recipe(
    state_dict: Mapping[str, Tensor], recipe: DetectionRecipe, classes: Sequence[str]
) -> None:
    """Check what the checkpoint tells of itself against the recipe's options."""
    prompts = recipe.prompts
    query, scores = state_dict.get(f"{_PREDICTOR}query"), state_dict.get(_SCORES)
    has_predictor = any(key.startswith(_PREDICTOR) for key in state_dict)
    kind = "none" if not has_predictor else "average" if query is None else "attention"
    if prompts.predictor != kind:
        keys = [key for key in state_dict if key.startswith(_PREDICTOR)]
        raise ValueError(
            f"the checkpoint has the predictor {kind!r} ({', '.join(keys) or 'no keys'} below "
            f"{_PREDICTOR}), the recipe's prompts.predictor is {prompts.predictor!r}"
        )
    if query is not None and query.shape[0] != prompts.num_prompts:
        raise ValueError(
            f"{_PREDICTOR}query is {tuple(query.shape)}: {query.shape[0]} prompts; the recipe's "
            f"prompts.num_prompts is {prompts.num_prompts}"
        )
    if scores is not None and scores.shape[0] != len(classes) + 1:
        raise ValueError(
            f"{_SCORES} is {tuple(scores.shape)}: {scores.shape[0] - 1} classes and background; "
            f"{len(classes)} names are given"
        )
    detector = "selsa" if any(k.startswith(_AGGREGATORS) for k in state_dict) else "faster-rcnn"
    if recipe.detector != detector:
        raise ValueError(
            f"the checkpoint's detector is {detector!r} by its keys below {_AGGREGATORS}, the "
            f"recipe's is {recipe.detector!r}"
        )
    if kind != "none" and recipe.backbone.prompt_merging != "released":
        raise ValueError(
            "these weights were trained with prompts merged as in the authors' code: "
            f"backbone.prompt_merging must be 'released', got {recipe.backbone.prompt_merging!r}"
        )
