"""Read Swin weights of any origin into `PromptedSwin`, each key used or named."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from stpn_backbones.reading import read_state_dict
from stpn_backbones.swin import PromptedSwin

_STEMS = ("patch_embed.proj.weight", "patch_embed.projection.weight")

# From mmdet's names (also those of the released STPN models) to Microsoft's and timm's.
_RENAMED = (
    (re.compile(r"^patch_embed\.projection\."), "patch_embed.proj."),
    (re.compile(r"^stages\."), "layers."),
    (re.compile(r"\.attn\.w_msa\."), ".attn."),
    (re.compile(r"\.ffn\.layers\.0\.0\."), ".mlp.fc1."),
    (re.compile(r"\.ffn\.layers\.1\."), ".mlp.fc2."),
)
_STAGE = re.compile(r"^layers\.(\d+)\.")
_MERGING = re.compile(r"^layers\.(\d+)\.downsample\.(?=norm\.|reduction\.)")
_OUTPUT_NORM = re.compile(r"^norm(\d+)\.")
# Not parameters of the backbone, and why.
_LEFT_OUT = (
    (re.compile(r"\.(relative_position_index|attn_mask)$"), "a buffer, computed anew"),
    (re.compile(r"^head\."), "the classifier of images"),
)
_OUTSIDE = "outside the backbone"


@dataclass(frozen=True)
class LoadReport:
    """Account for every key of a load.

    Attributes:
        loaded: keys of the model that took their value from the checkpoint, each with the key
            there.
        new: keys of the model that the checkpoint does not have, left as they were: output
            norms of the earlier stages, which only detection checkpoints have.
        unexpected: keys of the checkpoint that were not used, each with the reason: classifiers,
            index buffers, and what lies outside the backbone.
    """

    loaded: Mapping[str, str]
    new: tuple[str, ...]
    unexpected: Mapping[str, str]


def load_weights(
    model: PromptedSwin, weights: str | Path | Mapping[str, Tensor], *, prefix: str | None = None
) -> LoadReport:
    """Load a checkpoint of this package, timm, Microsoft, mmdet or the released STPN models.

    Names and layouts are converted by `convert_swin`. Either everything fits and is loaded, or
    the model is left as it was. Weights of the released STPN models were trained with the
    ``"released"`` merging of prompts.

    Args:
        model: the model that takes the weights.
        weights: a state dict, or a file for `read_state_dict`.
        prefix: what precedes the backbone's keys, such as ``"detector.backbone."``; found by
            the key of the patch embedding if not given.

    Raises:
        ValueError: if the checkpoint has no Swin, several, or that of another model; the keys
            and shapes that do not fit are named.
    """
    if isinstance(weights, (str, Path)):
        state_dict = read_state_dict(weights)
        try:
            return load_weights(model, state_dict, prefix=prefix)
        except ValueError as error:
            raise ValueError(f"{weights}: {error}") from error
    prefix = _find_prefix(weights) if prefix is None else prefix
    inside = {
        key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)
    }
    names = _own_names(inside)
    unexpected = {
        key: _why_left_out(key.removeprefix(prefix)) if key.startswith(prefix) else _OUTSIDE
        for key in weights
        if not key.startswith(prefix) or key.removeprefix(prefix) not in names
    }
    converted = convert_swin(inside)
    expected = model.state_dict()
    new = [key for key in expected if key not in converted and key.startswith("output_norms.")]
    loaded = {own: prefix + key for key, own in names.items()}
    check_fit(converted, expected, loaded, may_lack=new)
    model.load_state_dict(converted, strict=False)
    return LoadReport(loaded, tuple(new), unexpected)


def convert_swin(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a Swin state dict to the keys and layout of `PromptedSwin`.

    mmdet names its parts otherwise, and orders the channels of patch merging as (C, row, column)
    where timm and Microsoft have (column, row, C). All but timm keep the merging at the end of
    the stage before. Index buffers and the classifier are left out.

    Args:
        state_dict: the backbone's tensors, without a prefix.
    """
    in_unfold_layout = "patch_embed.projection.weight" in state_dict
    return {
        own: _from_unfold_layout(state_dict[key])
        if in_unfold_layout and _MERGING.match(_rename(key))
        else state_dict[key]
        for key, own in _own_names(state_dict).items()
    }


def check_fit(
    converted: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    sources: Mapping[str, str],
    may_lack: Collection[str] = (),
) -> None:
    """Check that converted weights are all that a model expects, and of the same shapes.

    Args:
        converted: weights of the checkpoint by the model's keys.
        expected: the model's state dict.
        sources: the checkpoint's key of each converted one.
        may_lack: keys of the model that need not be there.

    Raises:
        ValueError: if a weight does not fit; every such key is named, with both shapes.
    """
    problems = [
        f"{sources[key]}: {tuple(value.shape)} in the checkpoint, "
        f"{tuple(expected[key].shape)} in the model"
        for key, value in converted.items()
        if key in expected and value.shape != expected[key].shape
    ]
    problems += [
        f"{sources[key]}: only in the checkpoint" for key in converted if key not in expected
    ]
    problems += [
        f"{key}: only in the model"
        for key in expected
        if key not in converted and key not in may_lack
    ]
    if problems:
        raise ValueError(
            f"the checkpoint is of another model, {len(problems)} keys do not fit:\n"
            + "\n".join(problems)
        )


def _own_names(state_dict: Mapping[str, Tensor]) -> dict[str, str]:
    """Name the keys of a checkpoint as `PromptedSwin` does, without those that are left out.

    Raises:
        ValueError: if two keys have one name.
    """
    kept = [key for key in state_dict if not _why_left_out(key)]
    if any(key.startswith("swin.") for key in kept):
        return {key: key for key in kept}
    renamed = {key: _rename(key) for key in kept}
    # timm merges at the start of a stage, the others at the end of the one before.
    merges_at_end = any(key.startswith("layers.0.downsample.") for key in renamed.values())
    last = max(
        (int(stage[1]) for key in renamed.values() if (stage := _STAGE.match(key))), default=0
    )
    names: dict[str, str] = {}
    for key, name in renamed.items():
        if merges_at_end and (merging := _MERGING.match(name)):
            name = _MERGING.sub(f"layers.{int(merging[1]) + 1}.downsample.", name)
        if norm := _OUTPUT_NORM.match(name):
            stage_norm = "norm." if int(norm[1]) == last else f"output_norms.{norm[1]}."
            name = _OUTPUT_NORM.sub(stage_norm, name)
        names[key] = name if name.startswith("output_norms.") else f"swin.{name}"
    if len(set(names.values())) < len(names):
        sources = {own: key for key, own in names.items()}
        twice = [f"{key} and {sources[own]}" for key, own in names.items() if sources[own] != key]
        raise ValueError(f"keys of the checkpoint name one weight: {', '.join(twice)}")
    return names


def _why_left_out(key: str) -> str:
    """Return why a key of a Swin is left out, nothing if it is not."""
    key = key.removeprefix("swin.")
    return next((reason for pattern, reason in _LEFT_OUT if pattern.search(key)), "")


def _rename(key: str) -> str:
    for pattern, replacement in _RENAMED:
        key = pattern.sub(replacement, key)
    return key


def _from_unfold_layout(value: Tensor) -> Tensor:
    """Reorder the last dimension from (C, row, column) to (column, row, C)."""
    places: Tensor = value.unflatten(-1, (-1, 2, 2))  # (..., C, row, column)
    return places.transpose(-3, -1).flatten(-3)


def _find_prefix(state_dict: Mapping[str, Tensor]) -> str:
    prefixes = [
        key.removesuffix(stem).removesuffix("swin.")
        for key in state_dict
        for stem in _STEMS
        if key.endswith(stem)
    ]
    if len(prefixes) != 1:
        raise ValueError(
            f"expected one Swin in the checkpoint, a key that ends in {' or '.join(_STEMS)}; "
            f"found {len(prefixes)}: {', '.join(prefixes) or list(state_dict)[:5]}"
        )
    return prefixes[0]
