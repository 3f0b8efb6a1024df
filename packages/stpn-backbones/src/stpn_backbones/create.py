"""Backbones by their timm name."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, cast

import timm
from timm.models.swin_transformer import SwinTransformer

from stpn_backbones.swin import PromptedSwin, PromptMerging
from stpn_backbones.weights import load_weights
from stpn_kernels import Backend

_logger = logging.getLogger(__name__)


def supported_backbones() -> list[str]:
    """Return the timm names that `create_backbone` builds."""
    return timm.list_models(module="swin_transformer")


def create_backbone(
    name: str,
    pretrained: bool = False,
    *,
    weights: str | Path | None = None,
    prompt_merging: PromptMerging = "repeat",
    classification: bool = False,
    attention_backend: Backend = "auto",
    **timm_options: Any,
) -> PromptedSwin:
    """Build a backbone that takes prompts.

    The output norms of all stages but the last are new with ImageNet weights and begin as plain
    normalisations: train them. What a load leaves new or does not use is logged by name.

    Args:
        name: timm's name, such as ``swin_tiny_patch4_window7_224``; a pretrained tag may follow
            a dot, as in ``swin_tiny_patch4_window7_224.ms_in22k``.
        pretrained: load timm's weights from the hub (or from a local file of the same names:
            ``pretrained_cfg_overlay=dict(file=...)``).
        weights: a checkpoint file for `load_weights` instead: of this package, timm, Microsoft,
            mmdet or the released STPN models.
        prompt_merging: see `PromptedSwin`; the released STPN weights want ``"released"``.
        classification: see `PromptedSwin`.
        attention_backend: ``"triton"``, ``"reference"`` or ``"auto"``: see `PromptedSwin`.
        **timm_options: arguments of timm's model, such as ``embed_dim``, ``depths``,
            ``num_heads``, ``window_size``, ``drop_path_rate``.

    Raises:
        ValueError: if timm has no such Swin, both kinds of weights are asked for, or the
            weights are those of another model.
    """
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
        **timm_options,
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
