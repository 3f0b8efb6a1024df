"""Anchors: one box per ratio at every cell of every pyramid level.

torchvision rounds the boxes and derives strides from the image size; the released detector
does neither, which moves anchors by up to 40 pixels at sizes that are no multiple of 64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def cell_anchors(stride: int, scale: float, ratios: Sequence[float]) -> Float[Tensor, "R 4"]:
    """Return the anchors of the cell at the origin: area (scale * stride)², height/width ratio r.

    They are centred on (0, 0), the corner of the cell, not rounded.
    """
    root = torch.tensor(ratios, dtype=torch.float32).sqrt()
    half = torch.stack((stride * (1 / root) * scale, stride * root * scale), dim=1) * 0.5
    return torch.cat((-half, half), dim=1)


def grid_anchors(
    grid_sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    scale: float,
    ratios: Sequence[float],
    device: torch.device,
) -> Float[Tensor, "A 4"]:
    """Return the anchors of all levels, in the order (level, y, x, ratio)."""
    levels = []
    for (height, width), stride in zip(grid_sizes, strides, strict=True):
        y, x = torch.meshgrid(
            torch.arange(height, device=device) * stride,
            torch.arange(width, device=device) * stride,
            indexing="ij",
        )
        corners = torch.stack((x, y, x, y), dim=-1)[:, :, None]  # (H, W, 1, 4)
        cell = cell_anchors(stride, scale, ratios).to(device)
        levels.append((corners + cell).flatten(0, 2))
    return torch.cat(levels)


def anchors_inside(
    grid_sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    num_ratios: int,
    pad_size: tuple[int, int],
    device: torch.device,
) -> Bool[Tensor, " A"]:
    """Tell which anchors stand on a cell that begins inside ``pad_size`` (height, width).

    In a batch of images of several sizes the rest stands on another image's padding.
    """
    levels = []
    for (height, width), stride in zip(grid_sizes, strides, strict=True):
        inside = torch.zeros(height, width, num_ratios, dtype=torch.bool, device=device)
        inside[: math.ceil(pad_size[0] / stride), : math.ceil(pad_size[1] / stride)] = True
        levels.append(inside.flatten())
    return torch.cat(levels)
