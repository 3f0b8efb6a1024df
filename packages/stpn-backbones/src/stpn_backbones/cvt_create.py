"""CvTs by their name: sizes, and where their weights are on the Hugging Face hub."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from timm.models import load_state_dict_from_hf
from torch import Tensor

from stpn_backbones.cvt import PromptedCvt
from stpn_backbones.cvt_weights import load_cvt_weights

_logger = logging.getLogger(__name__)

_SIZES: dict[str, dict[str, tuple[int, ...]]] = {
    "cvt_13": {"dims": (64, 192, 384), "depths": (1, 2, 10), "num_heads": (1, 3, 6)},
    "cvt_21": {"dims": (64, 192, 384), "depths": (1, 4, 16), "num_heads": (1, 3, 6)},
    "cvt_w24": {"dims": (192, 768, 1024), "depths": (2, 2, 20), "num_heads": (3, 12, 16)},
}
# Tags: the image size where it is not 224, and 22k for pretraining on ImageNet-22k.
_HUB = {
    "cvt_13": "microsoft/cvt-13",
    "cvt_13.384": "microsoft/cvt-13-384",
    "cvt_13.384_22k": "microsoft/cvt-13-384-22k",
    "cvt_21": "microsoft/cvt-21",
    "cvt_21.384": "microsoft/cvt-21-384",
    "cvt_21.384_22k": "microsoft/cvt-21-384-22k",
    "cvt_w24": "microsoft/cvt-w24-384-22k",
    "cvt_w24.384_22k": "microsoft/cvt-w24-384-22k",
}


class HubWeightsError(OSError):
    """The hub's weights are neither in the local cache nor to be had.

    Args:
        repository: of the weights on the Hugging Face hub.
        reason: what the hub's client says.
        instead: how a file is given in place of the hub's; callers with an option of their own
            raise the error anew with it.
    """

    def __init__(self, repository: str, reason: str, instead: str = "weights=...") -> None:
        super().__init__(
            f"no weights of {repository} in the local cache nor from the Hugging Face hub; "
            f"download them elsewhere and give the file as {instead}: {reason}"
        )
        self.repository = repository
        self.reason = reason


def supported_cvts() -> list[str]:
    """Return the names that `create_cvt` builds, without tags of weights."""
    return list(_SIZES)


def create_cvt(
    name: str,
    pretrained: bool = False,
    *,
    weights: str | Path | None = None,
    **options: Any,
) -> PromptedCvt:
    """Build a CvT that takes prompts.

    What a load leaves new or does not use is logged by name.

    Args:
        name: ``cvt_13``, ``cvt_21`` or ``cvt_w24``; with ``pretrained`` a tag may follow that
            says which weights, as in ``cvt_21.384_22k``.
        pretrained: load Microsoft's weights from the Hugging Face hub or its local cache.
        weights: a checkpoint file for `load_cvt_weights` instead.
        **options: arguments of `PromptedCvt`; ``dims``, ``depths`` and ``num_heads`` replace
            those of the name.

    Raises:
        HubWeightsError: if the hub's weights are neither in the cache nor to be had.
        ValueError: if the name or tag is unknown, both kinds of weights are asked for, or the
            weights are those of another model.
    """
    size, _, tag = name.partition(".")
    if size not in _SIZES or (tag and name not in _HUB):
        known = ", ".join(sorted({*_SIZES, *_HUB}))
        raise ValueError(f"no CvT {name!r}; supported: {known}")
    if pretrained and weights is not None:
        raise ValueError(f"choose one: pretrained=True or weights={str(weights)!r}")
    model = PromptedCvt(**{**_SIZES[size], **options})
    if pretrained or weights is not None:
        source = _HUB[name] if weights is None else weights
        report = load_cvt_weights(model, _from_hub(_HUB[name]) if weights is None else weights)
        _logger.info(
            "%s from %s: %d tensors loaded; new: %s; not used: %s",
            name,
            source,
            len(report.loaded),
            ", ".join(report.new) or "none",
            ", ".join(report.unexpected) or "none",
        )
    return model


def _from_hub(repository: str) -> dict[str, Tensor]:
    """Return the state dict of ``model.safetensors``, else of ``pytorch_model.bin``."""
    try:
        state_dict: dict[str, Tensor] = load_state_dict_from_hf(repository, weights_only=True)
    except OSError as error:  # as the hub's client says: no connection, repository or file
        raise HubWeightsError(repository, str(error)) from error
    return state_dict
