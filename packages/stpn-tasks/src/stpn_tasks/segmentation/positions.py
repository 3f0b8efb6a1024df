"""Where the cells of a map are."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def sine_positions(grid: tuple[int, int], dim: int, like: Tensor) -> Float[Tensor, "N dim"]:
    """Return the sine encoding of the cells of a map, row by row (DETR's, normalised).

    The first half of the channels tells the row, the second the column; rows and columns count
    from 1 and are scaled so that the last one is 2 pi.

    Args:
        grid: rows and columns.
        dim: channels, a multiple of 4.
        like: tells dtype and device.
    """
    frequencies = 10000 ** -(torch.arange(dim // 4).to(like) / (dim // 4))
    encodings = []
    for size in grid:
        steps = torch.arange(1, size + 1).to(like)
        angles = (steps * (2 * math.pi / (size + 1e-6)))[:, None] * frequencies
        encodings.append(torch.stack((angles.sin(), angles.cos()), -1).flatten(1))  # (size, dim/2)
    rows, columns = encodings
    row_by_row = rows[:, None].expand(-1, grid[1], -1), columns.expand(grid[0], -1, -1)
    return torch.cat(row_by_row, -1).flatten(0, 1)


def cell_centres(grid: tuple[int, int], like: Tensor) -> Float[Tensor, "N 2"]:
    """Return the centres (x, y) of the cells of a map in shares of it, row by row."""
    rows, columns = ((torch.arange(size).to(like) + 0.5) / size for size in grid)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack((x, y), -1).flatten(0, 1)
