"""Read the weights of Mask2Former and MinVIS as published, each key used or named."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from stpn_backbones import LoadReport, PromptedSwin, check_fit, load_weights
from stpn_tasks.load_report import load_lines
from stpn_tasks.segmentation.detectron2_file import read_detectron2
from stpn_tasks.segmentation.segmenter import MinVIS

_logger = logging.getLogger(__name__)

_BACKBONE, _HEAD = "backbone.", "sem_seg_head."
_CLASS_HEAD = "decoder.class_head."
# From the authors' names to ours, in the pixel decoder and in the decoder ("predictor").
_PIXEL_DECODER = (
    (r"input_proj\.", "input_projections."),
    (r"transformer\.level_embed$", "level_embed"),
    (
        r"transformer\.encoder\.(layers\.\d+)\.self_attn\.sampling_offsets\.",
        r"\1.attention.offsets.",
    ),
    (
        r"transformer\.encoder\.(layers\.\d+)\.self_attn\.attention_weights\.",
        r"\1.attention.weights.",
    ),
    (r"transformer\.encoder\.(layers\.\d+)\.self_attn\.value_proj\.", r"\1.attention.values."),
    (r"transformer\.encoder\.(layers\.\d+)\.self_attn\.output_proj\.", r"\1.attention.output."),
    (r"transformer\.encoder\.(layers\.\d+)\.norm1\.", r"\1.attention_norm."),
    (r"transformer\.encoder\.(layers\.\d+)\.linear1\.", r"\1.ffn.0."),
    (r"transformer\.encoder\.(layers\.\d+)\.linear2\.", r"\1.ffn.2."),
    (r"transformer\.encoder\.(layers\.\d+)\.norm2\.", r"\1.ffn_norm."),
    (r"mask_features\.", "mask_features."),
)
_DECODER = (
    (r"(?:static_query|query_feat)\.", "query_features."),  # renamed after the first release
    (r"query_embed\.", "query_positions."),
    (r"level_embed\.", "level_embed."),
    (r"transformer_cross_attention_layers\.(\d+)\.multihead_attn\.", r"layers.\1.cross_attention."),
    (r"transformer_cross_attention_layers\.(\d+)\.norm\.", r"layers.\1.cross_norm."),
    (r"transformer_self_attention_layers\.(\d+)\.self_attn\.", r"layers.\1.self_attention."),
    (r"transformer_self_attention_layers\.(\d+)\.norm\.", r"layers.\1.self_norm."),
    (r"transformer_ffn_layers\.(\d+)\.linear1\.", r"layers.\1.ffn.0."),
    (r"transformer_ffn_layers\.(\d+)\.linear2\.", r"layers.\1.ffn.2."),
    (r"transformer_ffn_layers\.(\d+)\.norm\.", r"layers.\1.ffn_norm."),
    (r"decoder_norm\.", "norm."),
    (r"class_embed\.", "class_head."),
)
_PYRAMID = re.compile(r"(adapter|layer)_(\d+)\.(norm\.)?(\w+)$")
_MASK_HEAD = re.compile(r"mask_embed\.layers\.(\d)\.(\w+)$")
# Not weights of the network, and why.
_LEFT_OUT = (
    (re.compile(r"criterion\.empty_weight$"), "weights of classes in the loss, an option here"),
    (re.compile(r"pixel_(mean|std)$"), "the normalisation of pixels, which the data does"),
)


def load_mask2former_weights(
    segmenter: MinVIS, weights: str | Path | Mapping[str, Tensor]
) -> LoadReport:
    """Load a published Mask2Former (where MinVIS begins) or MinVIS with a Swin.

    Either everything fits and is loaded, or the segmenter is left as it was. A class head for
    another number of classes is left out and ours stays new, as does a predictor of prompts. What
    is new, and what was not used and why, is logged as a warning.

    Args:
        segmenter: takes the weights; it must have the checkpoint's sizes.
        weights: a state dict, or a file for `read_detectron2`.

    Raises:
        ValueError: if the file cannot be read, the segmenter's backbone is no Swin, or the
            checkpoint is of another network; keys and shapes that do not fit are named.
    """
    if isinstance(weights, (str, Path)):
        state_dict = read_detectron2(weights)
        try:
            return load_mask2former_weights(segmenter, state_dict)
        except ValueError as error:
            raise ValueError(f"{weights}: {error}") from error
    backbone = segmenter.encoder.backbone
    if not isinstance(backbone, PromptedSwin):
        raise ValueError(f"Mask2Former's weights are of a Swin, not of {type(backbone).__name__}")
    expected = segmenter.head.state_dict()
    unexpected = _left_out(weights, expected)
    names = {
        key: own_name(key) or key
        for key in weights
        if not key.startswith(_BACKBONE) and key not in unexpected
    }
    sources = {name: key for key, name in names.items()}
    if len(sources) < len(names):
        raise ValueError("keys of the checkpoint name one weight: it mixes old names and new ones")
    converted = {name: weights[key] for name, key in sources.items()}
    new = [key for key in expected if key.startswith(_CLASS_HEAD) and key not in converted]
    check_fit(converted, expected, sources, may_lack=new)
    swin = load_weights(backbone, weights, prefix=_BACKBONE)
    segmenter.head.load_state_dict(converted, strict=False)
    loaded = {f"encoder.backbone.{own}": key for own, key in swin.loaded.items()}
    loaded |= {f"head.{own}": key for own, key in sources.items()}
    unexpected |= {key: why for key, why in swin.unexpected.items() if key.startswith(_BACKBONE)}
    still_new = tuple(key for key in segmenter.state_dict() if key not in loaded)
    report = LoadReport(loaded, still_new, unexpected)
    _logger.info("%d tensors loaded", len(report.loaded))
    for line in load_lines(report):
        _logger.warning(line)
    return report


def own_name(key: str) -> str | None:
    """Name a key of the authors' ``sem_seg_head`` as `Mask2FormerHead` does; others have none."""
    part, _, rest = key.removeprefix(_HEAD).partition(".")
    if not key.startswith(_HEAD):
        return None
    if part == "pixel_decoder":
        name = _pyramid_name(rest) or _renamed(rest, _PIXEL_DECODER)
        return None if name is None else f"pixel_decoder.{name}"
    if part == "predictor":
        name = _mask_head_name(rest) or _renamed(rest, _DECODER)
        return None if name is None else f"decoder.{name}"
    return None


def _pyramid_name(rest: str) -> str | None:
    """Name a step of the pyramid: convolution 0 and its norm 1, counted from the finest map."""
    if (step := _PYRAMID.match(rest)) is None:
        return None
    kind, number, norm, parameter = step.groups()
    ours = {"adapter": "laterals", "layer": "outputs"}[kind]
    return f"{ours}.{int(number) - 1}.{1 if norm else 0}.{parameter}"


def _mask_head_name(rest: str) -> str | None:
    """Name a layer of the masks' MLP, between which we have activations."""
    if (layer := _MASK_HEAD.match(rest)) is None:
        return None
    return f"mask_head.{2 * int(layer[1])}.{layer[2]}"


def _renamed(rest: str, names: tuple[tuple[str, str], ...]) -> str | None:
    for pattern, ours in names:
        if match := re.match(pattern, rest):
            return match.expand(ours) + rest[match.end() :]
    return None


def _left_out(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the keys outside the backbone that are not used, each with the reason."""
    unexpected = {
        key: reason for key in weights for pattern, reason in _LEFT_OUT if pattern.match(key)
    }
    for key, value in weights.items():
        name = own_name(key) or ""
        if name.startswith(_CLASS_HEAD) and value.shape[:1] != expected[name].shape[:1]:
            theirs, ours = len(value) - 1, len(expected[name]) - 1
            unexpected[key] = f"the head of {theirs} classes, where {ours} are wanted"
    return unexpected
