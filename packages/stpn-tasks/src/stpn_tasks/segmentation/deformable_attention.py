"""Multi-scale deformable attention (Zhu et al., ICLR 2021) in plain PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class DeformableAttention(nn.Module):
    """Let every query look at a few learned places of every level, around its own place.

    Args:
        dim: width C of queries and values.
        num_levels: maps L that the values come from.
        num_heads: heads h.
        num_points: places P that a head looks at on every level.

    Raises:
        ValueError: if the heads do not divide the width.
    """

    def __init__(self, dim: int, num_levels: int, num_heads: int = 8, num_points: int = 4) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads must divide the width {dim}, got {num_heads}")
        self.places = (num_heads, num_levels, num_points)
        self.offsets = nn.Linear(dim, 2 * math.prod(self.places))
        self.weights = nn.Linear(dim, math.prod(self.places))
        self.values = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)
        self._initialise()

    def _initialise(self) -> None:
        """Let head k look 1 .. P cells away, each head in a direction of its own, evenly."""
        num_heads, num_levels, num_points = self.places
        angles = torch.arange(num_heads) * (2 * math.pi / num_heads)
        directions = torch.stack((angles.cos(), angles.sin()), -1)  # (h, 2)
        directions = directions / directions.abs().amax(-1, keepdim=True)  # onto a square
        steps = torch.arange(1.0, num_points + 1)
        offsets = directions[:, None, None] * steps[:, None]  # (h, 1, P, 2)
        with torch.no_grad():
            self.offsets.bias.copy_(offsets.expand(-1, num_levels, -1, -1).flatten())
        for weight in (self.offsets.weight, self.weights.weight, self.weights.bias):
            nn.init.zeros_(weight)
        for layer in (self.values, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        queries: Float[Tensor, "B M C"],
        tokens: Float[Tensor, "B N C"],
        centres: Float[Tensor, "M 2"],
        grids: Sequence[tuple[int, int]],
    ) -> Float[Tensor, "B M C"]:
        """Return what each query gathers.

        Args:
            queries: ask, and choose where to look.
            tokens: of all levels, one level after the other, row by row: what is looked at.
            centres: (x, y) of each query in shares of the image.
            grids: rows and columns of each level.
        """
        num_heads, num_levels, num_points = self.places
        values = self.values(tokens).unflatten(2, (num_heads, -1))  # (B, N, h, d)
        offsets = self.offsets(queries).unflatten(2, (*self.places, 2))  # (B, M, h, L, P, 2)
        weights = self.weights(queries).unflatten(2, (num_heads, -1)).softmax(-1)
        weights = weights.unflatten(3, (num_levels, num_points))  # (B, M, h, L, P)
        sizes = offsets.new_tensor([(columns, rows) for rows, columns in grids])  # (L, 2)
        places = centres[:, None, None, None] + offsets / sizes[:, None]  # (B, M, h, L, P, 2)
        gathered = gather_from_levels(values, places, weights, grids)
        return cast("Tensor", self.output(gathered))


def gather_from_levels(
    values: Float[Tensor, "B N h d"],
    places: Float[Tensor, "B M h L P 2"],
    weights: Float[Tensor, "B M h L P"],
    grids: Sequence[tuple[int, int]],
) -> Float[Tensor, "B M C"]:
    """Return the weighted sums of values between cells; C is h times d.

    Values are interpolated bilinearly and are 0 outside a map, whose borders are the outer edges
    of its cells.

    Args:
        values: of all levels, one level after the other, row by row.
        places: (x, y) in shares of the map, 0 .. 1 inside.
        weights: of each place.
        grids: rows and columns of each level; N in all.
    """
    batch_size, num_heads = values.shape[0], values.shape[2]
    levels = values.permute(0, 2, 3, 1).flatten(0, 1).split([h * w for h, w in grids], dim=2)
    places = (2 * places - 1).transpose(1, 2).flatten(0, 1)  # (B*h, M, L, P, 2), -1 .. 1
    weights = weights.transpose(1, 2).flatten(0, 1)[:, None]  # (B*h, 1, M, L, P)
    gathered = torch.zeros((), dtype=values.dtype, device=values.device)
    for i, (level, grid) in enumerate(zip(levels, grids, strict=True)):
        maps = level.unflatten(2, grid)  # (B*h, d, H, W)
        found = F.grid_sample(maps, places[:, :, i], align_corners=False)  # (B*h, d, M, P)
        gathered = gathered + (found * weights[:, :, :, i]).sum(-1)
    heads: Tensor = gathered.unflatten(0, (batch_size, num_heads))  # (B, h, d, M)
    return heads.flatten(1, 2).transpose(1, 2)  # (B, M, C)
