"""Read MixFormer's weights, the authors' or this project's, each key used or named."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor

from stpn_backbones import (
    HubWeightsError,
    LoadReport,
    check_fit,
    create_backbone,
    load_cvt_weights,
    read_state_dict,
)
from stpn_tasks.load_report import load_lines
from stpn_tasks.tracking.mixformer import MixFormer

_logger = logging.getLogger(__name__)

# From the authors' names to ours; the backbone's are the same.
_CORNERS = {"tl": "top_left", "br": "bottom_right"}
_CORNER = re.compile(r"^box_head\.conv(\d)_(tl|br)\.(?:([01])\.)?(\w+)$")
_SCORE = (
    (re.compile(r"^score_branch\.score_token$"), "score_head.token"),
    (re.compile(r"^score_branch\.norm1\."), "score_head.token_norm."),
    (re.compile(r"^score_branch\.norm2\.(\d)\."), r"score_head.looks.\1.norm."),
    (re.compile(r"^score_branch\.proj_q\.(\d)\."), r"score_head.looks.\1.query."),
    (re.compile(r"^score_branch\.proj_k\.(\d)\."), r"score_head.looks.\1.key."),
    (re.compile(r"^score_branch\.proj_v\.(\d)\."), r"score_head.looks.\1.value."),
    (re.compile(r"^score_branch\.proj\.(\d)\."), r"score_head.looks.\1.output."),
)
_SCORE_MLP = re.compile(r"^score_branch\.score_head\.layers\.(\d)\.")
_OPTIONAL_PARTS = ("score_head", "predictor")
_COUNTER = ".num_batches_tracked"


def load_mixformer_weights(
    network: MixFormer, weights: str | Path | Mapping[str, Tensor], *, new: Collection[str] = ()
) -> LoadReport:
    """Load a checkpoint of the authors' trainer or of this project.

    Either everything fits and is loaded, or the network is left as it was. What is new, and what
    was not used and why, is logged as a warning.

    Args:
        network: takes the weights.
        weights: a state dict, or a file; of a trainer's checkpoint the entry ``net`` is read and
            nothing in the file is run.
        new: parts that the checkpoint must not have and that keep their random weights:
            ``"score_head"`` where the second stage of training begins, ``"predictor"`` where STPN
            is fine-tuned from MixFormer.

    Raises:
        ValueError: if the file cannot be read, a part of the network is missing from the checkpoint
            without being announced as new, or is there although it was; or if the checkpoint is of
            another network. Keys and shapes that do not fit are named.
    """
    if isinstance(weights, (str, Path)):
        state_dict = read_state_dict(weights, skip_objects=True)
        try:
            return load_mixformer_weights(network, state_dict, new=new)
        except ValueError as error:
            raise ValueError(f"{weights}: {error}") from error
    names = {key: own_name(key) for key in weights}
    expected = network.state_dict()
    _check_parts(names.values(), expected, new)
    unexpected = {
        key: reason for key, name in names.items() if (reason := _why_left_out(name, expected))
    }
    sources = {name: key for key, name in names.items() if key not in unexpected}
    if len(sources) + len(unexpected) < len(names):
        raise ValueError("keys of the checkpoint name one weight: it mixes the authors' and ours")
    converted = {name: weights[key] for name, key in sources.items()}
    missing = [
        key
        for key in expected
        if key not in converted and (_part(key) in new or key.endswith(_COUNTER))
    ]
    check_fit(converted, expected, sources, may_lack=missing)
    network.load_state_dict(converted, strict=False)
    report = LoadReport(sources, tuple(missing), unexpected)
    _log(report)
    return report


def initialise_backbone(network: MixFormer, weights: str | Path) -> LoadReport:
    """Begin with a CvT that was trained on images, as MixFormer does.

    Class token, classifier, output norm and, for MixFormer-L, the last blocks of the deepest stage
    are left out; what is new or was not used is logged.

    Args:
        network: takes the weights into its backbone.
        weights: a file for `stpn_backbones.load_cvt_weights`, or the name of weights on the
            Hugging Face hub that `stpn_backbones.create_backbone` knows, such as
            ``cvt_21.384_22k``.

    Raises:
        HubWeightsError: if the hub's weights are neither in the cache nor to be had.
        ValueError: if the file or name is unknown, or the weights are of another CvT.
    """
    source: str | Path | Mapping[str, Tensor] = weights
    if isinstance(weights, str) and weights.startswith("cvt_") and not Path(weights).exists():
        source = _from_hub(weights)
    report = load_cvt_weights(network.backbone, source, truncate=True)
    _log(report)
    return report


def _from_hub(name: str) -> Mapping[str, Tensor]:
    try:
        return create_backbone(name, pretrained=True).state_dict()
    except HubWeightsError as error:  # which names an argument that users of recipes do not have
        instead = f"--network.cvt FILE instead of {name}"
        raise HubWeightsError(error.repository, error.reason, instead) from error


def own_name(key: str) -> str:
    """Name a key of the authors' checkpoint as `MixFormer` does; other keys stay as they are."""
    if corner := _CORNER.match(key):
        layer, side, part, parameter = corner.groups()
        # Each of our layers is a convolution, a norm and an activation without weights.
        index = 3 * (int(layer) - 1) + int(part or 0)
        return f"box_head.{_CORNERS[side]}.{index}.{parameter}"
    if layer_of_mlp := _SCORE_MLP.match(key):
        return _SCORE_MLP.sub(f"score_head.mlp.{2 * int(layer_of_mlp[1])}.", key)
    for pattern, replacement in _SCORE:
        key = pattern.sub(replacement, key)
    return key


def _check_parts(
    names: Collection[str], expected: Mapping[str, Tensor], new: Collection[str]
) -> None:
    if unknown := set(new) - set(_OPTIONAL_PARTS):
        raise ValueError(f"only {_OPTIONAL_PARTS} can be new to a checkpoint, not {unknown}")
    for part in _OPTIONAL_PARTS:
        is_there = part in map(_part, names)
        is_expected = part in map(_part, expected)
        if is_expected and not is_there and part not in new:
            raise ValueError(
                f"the checkpoint has no {part}, the network does; if it shall be trained from "
                f'random weights, say so by new=("{part}",)'
            )
        if is_there and part in new:
            raise ValueError(f"the checkpoint has a {part}, which was expected to be new")


def _why_left_out(name: str, expected: Mapping[str, Tensor]) -> str:
    """Return why a key is left out, nothing if it is not."""
    if name.startswith("backbone.head."):
        return "the classifier of images"
    if name.startswith("backbone.norm."):
        return "an output norm, which the network does without"
    if (part := _part(name)) in _OPTIONAL_PARTS and part not in map(_part, expected):
        return f"the {part}, which the network does without"
    if name.endswith(_COUNTER) and name not in expected:
        statistic = name.removesuffix(_COUNTER) + ".running_mean"
        return "a counter, which frozen batch norms do not have" if statistic in expected else ""
    return ""


def _part(name: str) -> str:
    """Return what part of a network a weight is of; gates come and go with the predictor."""
    return "predictor" if name == "prompt_gates" else name.partition(".")[0]


def _log(report: LoadReport) -> None:
    _logger.info("%d tensors loaded", len(report.loaded))
    for line in load_lines(report):
        _logger.warning(line)
