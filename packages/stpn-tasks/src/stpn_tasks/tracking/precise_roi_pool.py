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
    """Average the hat function of every node over every bin between two coordinates."""
    width = (end - start) / size  # (B,)
    bins = torch.arange(size + 1, device=start.device, dtype=start.dtype)
    edges = start[:, None] + width[:, None] * bins  # (B, size + 1)
    offsets = edges[:, :, None] - torch.arange(nodes, device=start.device, dtype=start.dtype)
    t = offsets.clamp(-1, 1)
    integral = t - 0.5 * t * t.abs()  # of max(0, 1 - |x|), from 0 to t
    shares = integral[:, 1:] - integral[:, :-1]  # (B, size, nodes)
    has_width = (width > 0)[:, None, None]
    divisor = torch.where(has_width, width[:, None, None], 1.0)
    return torch.where(has_width, shares / divisor, 0.0)
