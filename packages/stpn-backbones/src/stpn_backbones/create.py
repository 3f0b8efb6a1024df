"""Backbones by their name: timm's for Swins, our own for CvTs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, overload

import timm
from timm.models.swin_transformer import SwinTransformer

from stpn_backbones.cvt import PromptedCvt
from stpn_backbones.cvt_create import create_cvt, supported_cvts
from stpn_backbones.swin import PromptedSwin, PromptMerging
from stpn_backbones.weights import load_weights
from stpn_kernels import Backend

_logger = logging.getLogger(__name__)

CvtName: TypeAlias = Literal["cvt_13", "cvt_21", "cvt_w24"]


def supported_backbones() -> list[str]:
    """Return the names that `create_backbone` builds: Swins of timm, and CvTs."""
    return [*timm.list_models(module="swin_transformer"), *supported_cvts()]


@overload
def create_backbone(
    name: CvtName,
    pretrained: bool = False,
    *,
    weights: str | Path | None = None,
    classification: bool = False,
    **options: Any,
) -> PromptedCvt: ...


@overload
def create_backbone(
    name: str,
    pretrained: bool = False,
    *,
    weights: str | Path | None = None,
    prompt_merging: PromptMerging = "repeat",
    classification: bool = False,
    attention_backend: Backend = "auto",
    **options: Any,
) -> PromptedSwin: ...


def create_backbone(
    name: str,
    pretrained: bool = False,
    *,
    weights: str | Path | None = None,
    prompt_merging: PromptMerging = "repeat",
    classification: bool = False,
    attention_backend: Backend = "auto",
    **options: Any,
) -> PromptedSwin | PromptedCvt:
    """Build a backbone that takes prompts.

    The output norms of all stages but the last are new with ImageNet weights and begin as plain
    normalisations: train them. What a load leaves new or does not use is logged by name.

    Args:
        name: timm's name, such as ``swin_tiny_patch4_window7_224``, or ``cvt_13``, ``cvt_21``,
            ``cvt_w24``; a pretrained tag may follow a dot, as in
            ``swin_tiny_patch4_window7_224.ms_in22k`` or ``cvt_21.384_22k``.
        pretrained: load timm's or Microsoft's weights from the hub (for Swins also from a local
            file of the same names: ``pretrained_cfg_overlay=dict(file=...)``).
        weights: a checkpoint file for `load_weights` or `load_cvt_weights` instead: of this
            package, timm, Microsoft, mmdet or the released STPN models; a CvT's of this package,
            Microsoft, the hub or MixFormer.
        prompt_merging: of Swins, see `PromptedSwin`; the released STPN weights want
            ``"released"``.
        classification: see `PromptedSwin`; gives a CvT its class token.
        attention_backend: of Swins, ``"triton"``, ``"reference"`` or ``"auto"``: see
            `PromptedSwin`.
        **options: arguments of timm's model, such as ``embed_dim``, ``depths``, ``num_heads``,
            ``window_size``, ``drop_path_rate``; for a CvT of `PromptedCvt`.

    Raises:
        OSError: if weights of the hub are neither in its local cache nor to be had.
        ValueError: if there is no such backbone, an option is not of its kind, both kinds of
            weights are asked for, or the weights are those of another model.
    """
    if name.partition(".")[0] in supported_cvts():
        _refuse_options_of_swins(name, prompt_merging, attention_backend)
        return create_cvt(name, pretrained, weights=weights, cls_token=classification, **options)
    if name.partition(".")[0] not in supported_backbones():
        raise ValueError(
            f"no promptable backbone {name!r}; supported: {', '.join(supported_backbones())}"
        )
    if pretrained and weights is not None:
        raise ValueError(f"choose one: pretrained=True or weights={str(weights)!r}")
    # Otherwise timm shrinks windows and bias tables to its default image size, and keeps
    # attention masks for it.
    swin = timm.create_model(
        name,
        pretrained=pretrained,
        num_classes=0,
        always_partition=True,
        strict_img_size=False,
        **options,
    )
    model = PromptedSwin(
        cast("SwinTransformer", swin),
        prompt_merging=prompt_merging,
        classification=classification,
        attention_backend=attention_backend,
    )
    if pretrained:
        new = [key for key in model.state_dict() if key.startswith("output_norms.")]
        _logger.info("%s: new %s", name, ", ".join(new))
    if weights is not None:
        report = load_weights(model, weights)
        _logger.info(
            "%s from %s: %d tensors loaded; new: %s; not used: %s",
            name,
            weights,
            len(report.loaded),
            ", ".join(report.new) or "none",
            ", ".join(report.unexpected) or "none",
        )
    return model


def _refuse_options_of_swins(
    name: str, prompt_merging: PromptMerging, attention_backend: Backend
) -> None:
    for option, value, default in (
        ("prompt_merging", prompt_merging, "repeat"),
        ("attention_backend", attention_backend, "auto"),
    ):
        if value != default:
            raise ValueError(f"{option} is an option of Swins, got {value!r} for {name}")
