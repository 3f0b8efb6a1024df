"""Precise RoI pooling (Jiang et al. 2018) in closed form, in plain PyTorch."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def precise_roi_pool(
    maps: Float[Tensor, "B C H W"], boxes_xyxy: Float[Tensor, "B 4"], size: int
) -> Float[Tensor, "B C {size} {size}"]:
    """Average a map, interpolated bilinearly, over each bin of a box: an exact integral.

    Cell ``(i, j)`` of the map is a node at ``y = i, x = j``; between nodes the map is linear in x
    and y, and it falls to zero one cell outside. The integral of the product of two hat functions
    is the product of two integrals, so that pooling is two small matrix products. It is
    differentiable in the map and in the box.

    Args:
        maps: one map of each box.
        boxes_xyxy: left, top, right, bottom in cells; may be more precise than the map.
        size: bins per side.

    Returns:
        The mean over each bin; zero where a bin has no area.
    """
    x_shares = _hat_means(boxes_xyxy[:, 0], boxes_xyxy[:, 2], size, maps.shape[3])
    y_shares = _hat_means(boxes_xyxy[:, 1], boxes_xyxy[:, 3], size, maps.shape[2])
    return torch.einsum("bchw,bph,bqw->bcpq", maps, y_shares.to(maps), x_shares.to(maps))


def _hat_means(
    start: Float[Tensor, " B"], end: Float[Tensor, " B"], size: int, nodes: int
) -> Float[Tensor, "B {size} {nodes}"]:
    """Average the hat function of every node over every bin between two coordinates.

    The two formulas are the same function. Each is used where it is exact to the rounding of the
    coordinates: a difference of integrals has no digits left in a narrow bin.
    """
    width = ((end - start) / size)[:, None, None]
    has_width = width > torch.finfo(width.dtype).tiny  # below it, the inverse may overflow
    steps = torch.arange(2 * size + 1, device=start.device, dtype=start.dtype) / 2
    places = start[:, None, None] + width * steps[:, None]  # (B, 2 * size + 1, 1)
    offsets = places - torch.arange(nodes, device=start.device, dtype=start.dtype)
    integrals = _hat_integral(offsets[:, ::2])  # (B, size + 1, nodes)
    wide = (integrals[:, 1:] - integrals[:, :-1]) / width.clamp(min=1)
    narrow = _hat_mean(offsets[:, 1::2], torch.where(has_width, width, 1.0))
    return torch.where(has_width, torch.where(width > 1, wide, narrow), 0.0)


def _hat_integral(x: Tensor) -> Tensor:
    """Integrate max(0, 1 - |x|) from 0."""
    t = x.clamp(-1, 1)
    return t - 0.5 * t * t.abs()


def _hat_mean(middle: Tensor, width: Tensor) -> Tensor:
    """Average max(0, 1 - |x|) over a bin by its middle: the value there, but for the kinks."""
    # At a kink, maximum() shares the gradient of either side, as the mean does; clamp() does not.
    value = torch.maximum(1 - middle.abs(), torch.zeros_like(middle))
    left, top, right = (_kink(middle + node, 0.5 * width) for node in (1, 0, -1))
    return value + 0.5 * left - top + 0.5 * right


def _kink(middle: Tensor, half: Tensor) -> Tensor:
    """Return by how much |x| averages more than it is in the middle of a bin."""
    inside = (half - middle.abs()).clamp(min=0)
    return inside * (inside / (2 * half))
