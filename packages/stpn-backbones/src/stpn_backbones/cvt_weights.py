"""Read CvT weights of Microsoft, the Hugging Face hub and MixFormer, each key used or named."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from stpn_backbones.cvt_stages import CvtStages
from stpn_backbones.reading import read_state_dict
from stpn_backbones.weights import LoadReport, check_fit

_STEM = "stage0.patch_embed.proj.weight"
# From the hub's names (transformers' CvtForImageClassification, CvtModel) to Microsoft's, in this
# order: what is left of "output.dense" after the attention's is the MLP's.
_RENAMED = (
    (re.compile(r"^(?:cvt\.)?encoder\.stages\.(\d+)\."), r"stage\1."),
    (re.compile(r"^layernorm\."), "norm."),
    (re.compile(r"^classifier\."), "head."),
    (re.compile(r"\.embedding\.convolution_embeddings\.projection\."), ".patch_embed.proj."),
    (re.compile(r"\.embedding\.convolution_embeddings\.normalization\."), ".patch_embed.norm."),
    (re.compile(r"\.layers\.(\d+)\."), r".blocks.\1."),
    (re.compile(r"\.layernorm_before\."), ".norm1."),
    (re.compile(r"\.layernorm_after\."), ".norm2."),
    (re.compile(r"\.attention\.output\.dense\."), ".attn.proj."),
    (re.compile(r"\.attention\.attention\.projection_([qkv])[a-z]+\."), r".attn.proj_\1."),
    (
        re.compile(r"\.attention\.attention\.convolution_projection_([qkv])[a-z]+\."),
        r".attn.conv_proj_\1.",
    ),
    (re.compile(r"\.convolution_projection\.convolution\."), ".conv."),
    (re.compile(r"\.convolution_projection\.normalization\."), ".bn."),
    (re.compile(r"\.intermediate\.dense\."), ".mlp.fc1."),
    (re.compile(r"\.output\.dense\."), ".mlp.fc2."),
)
_HUB_STAGE = _RENAMED[0][0]
_BLOCK = re.compile(r"^stage(\d+)\.blocks\.(\d+)\.")
_COUNTER = ".num_batches_tracked"
_OUTSIDE = "outside the backbone"


def load_cvt_weights(
    model: CvtStages,
    weights: str | Path | Mapping[str, Tensor],
    *,
    prefix: str | None = None,
    truncate: bool = False,
) -> LoadReport:
    """Load a CvT checkpoint of Microsoft, the hub or this package, or MixFormer's backbone.

    Either everything fits and is loaded, or the model is left as it was. A class token or an
    output norm is not used by a model without it; counters of batch norms are used by those
    that count.

    Args:
        model: the model that takes the weights.
        weights: a state dict, or a file for `read_state_dict`.
        prefix: what precedes the backbone's keys, such as ``"backbone."``; found by the key of
            the first embedding if not given.
        truncate: leave out the blocks that the checkpoint has beyond the model's depths, as
            MixFormer-L does with the last eight of CvT-W24.

    Raises:
        ValueError: if the checkpoint has no CvT, several, or that of another model; the keys
            and shapes that do not fit are named.
    """
    state_dict = read_state_dict(weights) if isinstance(weights, (str, Path)) else weights
    names = {key: microsoft_name(key) for key in state_dict}
    prefix = _find_prefix(names) if prefix is None else prefix
    expected = model.state_dict()
    sources: dict[str, str] = {}
    unexpected: dict[str, str] = {}
    for key, name in names.items():
        if not name.startswith(prefix):
            unexpected[key] = _OUTSIDE
            continue
        name = name.removeprefix(prefix)
        if reason := _why_left_out(name, model, expected, truncate):
            unexpected[key] = reason
        elif name in sources:
            raise ValueError(f"keys of the checkpoint name one weight: {sources[name]} and {key}")
        else:
            sources[name] = key
    converted = {name: state_dict[key] for name, key in sources.items()}
    new = [
        key
        for key in expected
        if key not in converted and (key.startswith("output_norms.") or key.endswith(_COUNTER))
    ]
    check_fit(converted, expected, sources, may_lack=new)
    model.load_state_dict(converted, strict=False)
    return LoadReport(sources, tuple(new), unexpected)


def microsoft_name(key: str) -> str:
    """Name a key of the hub as Microsoft does; other keys stay as they are.

    The map is one to one: transformers' 731 keys of a CvT-21 become Microsoft's 731.
    """
    if not _HUB_STAGE.match(key) and not key.startswith(("layernorm.", "classifier.", "cvt.")):
        return key
    for pattern, replacement in _RENAMED:
        key = pattern.sub(replacement, key)
    return key


def _why_left_out(
    name: str, model: CvtStages, expected: Mapping[str, Tensor], truncate: bool
) -> str:
    """Return why a key of a CvT is left out, nothing if it is not."""
    if name.startswith("head."):
        return "the classifier of images"
    if name.endswith(".cls_token") and not model.num_cls:
        return "the class token, which the model does without"
    if name.startswith(("norm.", "output_norms.")) and name not in expected:
        return "an output norm, which the model does without"
    depths = [len(stage.blocks) for stage in model.stages]
    block = _BLOCK.match(name)
    if (
        truncate
        and block
        and int(block[1]) < len(depths)
        and int(block[2]) >= depths[int(block[1])]
    ):
        return "a block beyond the model's depth"
    if name.endswith(_COUNTER) and name not in expected:
        statistic = name.removesuffix(_COUNTER) + ".running_mean"
        return "a counter, which frozen batch norms do not have" if statistic in expected else ""
    return ""


def _find_prefix(names: Mapping[str, str]) -> str:
    prefixes = [name.removesuffix(_STEM) for name in names.values() if name.endswith(_STEM)]
    if len(prefixes) != 1:
        raise ValueError(
            f"expected one CvT in the checkpoint, a key that ends in {_STEM} or its name on the "
            f"hub; found {len(prefixes)}: {', '.join(prefixes) or list(names)[:5]}"
        )
    return prefixes[0]
