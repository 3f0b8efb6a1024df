"""Checking images where they enter."""

from __future__ import annotations

import torch
from torch import Tensor

_SHAPES = {4: "(B, 3, H, W)", 5: "(B, K, 3, H, W)"}


def check_images(images: Tensor, name: str, num_dims: int) -> None:
    """Raise an error that names what is wrong with a batch of images.

    Values are looked at on the CPU only: on an accelerator that would wait for the device, and
    in a compiled graph it could not raise.

    Args:
        images: ``(B, 3, H, W)`` current or ``(B, K, 3, H, W)`` support frames.
        name: what the caller calls them.
        num_dims: 4 or 5, the number of dimensions they must have.

    Raises:
        TypeError: if the dtype is not floating point.
        ValueError: if rank or channels are wrong, a size is 0, or a pixel is NaN or infinite.
    """
    shape = tuple(images.shape)
    if images.ndim != num_dims or shape[-3] != 3:
        raise ValueError(f"{name} must be {_SHAPES[num_dims]}, got shape {shape}")
    if not images.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {images.dtype}")
    if num_dims == 5 and shape[1] == 0:
        raise ValueError(f"{name} holds no support frames: shape {shape}")
    if 0 in shape:
        raise ValueError(f"{name} is empty: shape {shape}")
    if images.device.type != "cpu" or torch.compiler.is_compiling():
        return
    # The sum is NaN or infinite if any pixel is; only then is it worth looking closer.
    if not images.sum(dtype=torch.float32).isfinite() and not images.isfinite().all():
        raise ValueError(f"{name} has NaN or infinite pixels")
