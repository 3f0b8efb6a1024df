"""Checks of what a prompted backbone is given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def check_images(images: Tensor, weight: Tensor) -> None:
    """Check images against the weight of the convolution that reads them first.

    Raises:
        TypeError: if the images' dtype is not that of the weights (unless under autocast).
        ValueError: if the images are not (B, channels, H, W).
    """
    channels = weight.shape[1]
    if images.ndim != 4 or images.shape[1] != channels:
        raise ValueError(f"images must be (B, {channels}, H, W), got shape {tuple(images.shape)}")
    if images.dtype != weight.dtype and not (
        images.is_floating_point() and torch.is_autocast_enabled(images.device.type)
    ):
        raise TypeError(f"images must be {weight.dtype} as the weights, got {images.dtype}")


def prompts_by_layer(
    images: Tensor, prompts: Sequence[Tensor] | None, prompt_dims: Sequence[int]
) -> list[Tensor | None]:
    """Return the prompts that enter before each layer, None where the tokens stay.

    Args:
        images: (B, channels, H, W).
        prompts: one tensor (B, P, D) for the first layer, one per layer, or None.
        prompt_dims: width of every layer.

    Raises:
        ValueError: if batch, width or number of prompts is wrong.
    """
    num_layers = len(prompt_dims)
    if prompts is None:
        return [None] * num_layers
    if isinstance(prompts, Tensor) or len(prompts) not in (1, num_layers):
        got = "a tensor" if isinstance(prompts, Tensor) else f"{len(prompts)} tensors"
        raise ValueError(
            f"prompts must be a sequence of 1 tensor (shallow) or {num_layers} tensors "
            f"(deep), got {got}"
        )
    num_prompts = prompts[0].shape[1] if prompts[0].ndim == 3 else "P"
    for layer, (prompt, width) in enumerate(zip(prompts, prompt_dims, strict=False)):
        expected = (images.shape[0], num_prompts, width)
        if tuple(prompt.shape) != expected:
            raise ValueError(
                f"prompts of layer {layer} must be (B, P, D) = {expected}, "
                f"got shape {tuple(prompt.shape)}"
            )
    return [*prompts, *[None] * (num_layers - len(prompts))]
