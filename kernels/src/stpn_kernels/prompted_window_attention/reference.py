"""The meaning of `prompted_window_attention` in plain PyTorch, in the order of the paper's code."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from stpn_kernels.precision import compute_dtype

# What Swin adds to the score of two tokens that are no neighbours in the image.
MASKED = -100.0


def prompted_window_attention_reference(
    qkv: Float[Tensor, "B X 3 h d"],
    qkv_bias: Float[Tensor, "3 h d"],
    bias_table: Float[Tensor, "R h"],
    *,
    height: int,
    width: int,
    window_size: int,
    shift: int,
    num_prompts: int,
    need_prompts: bool = True,
) -> Float[Tensor, "B X h*d"]:
    """Compute `stpn_kernels.prompted_window_attention` step by step, differentiable by autograd.

    Arguments and result are those of the operator; nothing is checked here.
    """
    x = qkv.to(compute_dtype(qkv.dtype))
    bias = qkv_bias.to(x.dtype)
    prompts, tokens = x[:, :num_prompts], x[:, num_prompts:]
    grid = pad_map(torch.unflatten(tokens, 1, (height, width)), bias, window_size)
    grid = grid.roll((-shift, -shift), (1, 2))
    windows = partition(grid, window_size)  # (B, M, w * w, 3, h, d)
    num_windows = windows.shape[1]
    prompts = prompts[:, None].expand(-1, num_windows, -1, -1, -1, -1)
    windows = torch.cat([prompts, windows], dim=2)  # (B, M, N, 3, h, d)

    q, k, v = windows.permute(3, 0, 1, 4, 2, 5)  # (B, M, h, N, d) each
    scores = q @ k.mT * q.shape[-1] ** -0.5
    scores = scores + position_bias(bias_table.to(x.dtype), window_size, num_prompts)
    if shift > 0:
        mask = shift_mask(grid.shape[1], grid.shape[2], window_size, shift, x)
        scores = scores + F.pad(mask, (num_prompts, 0, num_prompts, 0))[:, None]
    out = (scores.softmax(-1) @ v).transpose(2, 3).flatten(3)  # (B, M, N, h * d)

    prompts = out[:, :, :num_prompts].mean(1)  # (B, P, h * d)
    if not need_prompts:
        prompts = torch.zeros_like(prompts)
    grid = reverse(out[:, :, num_prompts:], grid.shape[1], grid.shape[2], window_size)
    grid = grid.roll((shift, shift), (1, 2))[:, :height, :width]
    return torch.cat([prompts, grid.flatten(1, 2)], dim=1).to(qkv.dtype)  # (B, X, h * d)


def pad_map(
    grid: Float[Tensor, "B H W 3 h d"], qkv_bias: Float[Tensor, "3 h d"], window_size: int
) -> Float[Tensor, "B Hp Wp 3 h d"]:
    """Pad a projected map at the bottom and right to whole windows.

    The padded tokens are zeros *before* the projection, hence its bias after it.
    """
    B, H, W = grid.shape[:3]
    below = qkv_bias.expand(B, -H % window_size, W, -1, -1, -1)
    grid = torch.cat([grid, below], dim=1)
    right = qkv_bias.expand(B, grid.shape[1], -W % window_size, -1, -1, -1)
    return torch.cat([grid, right], dim=2)


def partition(grid: Shaped[Tensor, "B Hp Wp ..."], window_size: int) -> Shaped[Tensor, "B M T ..."]:
    """Cut a map into its windows of T = w * w positions, both row by row."""
    grid = torch.unflatten(grid, 2, (-1, window_size))
    grid = torch.unflatten(grid, 1, (-1, window_size))
    return grid.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def reverse(
    windows: Float[Tensor, "B M T C"], height: int, width: int, window_size: int
) -> Float[Tensor, "B Hp Wp C"]:
    """Put windows back into the padded map of ``height`` by ``width``; undoes `partition`."""
    grid_shape = (height // window_size, width // window_size)
    grid = torch.unflatten(windows, 2, (window_size, window_size))
    grid = torch.unflatten(grid, 1, grid_shape)
    return grid.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def relative_position_index(window_size: int, device: torch.device) -> Int[Tensor, "T T"]:
    """Return the row of the bias table of each (query, key) pair of a window, as timm orders them.

    The pair with offset (dy, dx) = query - key reads row (dy + w - 1) * (2 * w - 1) + dx + w - 1.
    """
    side = torch.arange(window_size, device=device)
    y, x = side.repeat_interleave(window_size), side.repeat(window_size)
    dy, dx = y[:, None] - y, x[:, None] - x
    return (dy + window_size - 1) * (2 * window_size - 1) + dx + window_size - 1


def position_bias(
    bias_table: Float[Tensor, "R h"], window_size: int, num_prompts: int
) -> Float[Tensor, "h N N"]:
    """Spread the bias table over all (query, key) pairs of a window; pairs with prompts get 0."""
    index = relative_position_index(window_size, bias_table.device)
    bias = bias_table.index_select(0, index.flatten()).view(*index.shape, -1)  # (T, T, h)
    return F.pad(bias.permute(2, 0, 1), (num_prompts, 0, num_prompts, 0))


def shift_mask(
    height: int, width: int, window_size: int, shift: int, like: Tensor
) -> Float[Tensor, "M T T"]:
    """Return -100 for the pairs of each window that the roll brought together, else 0.

    The rolled and padded map of ``height`` by ``width`` has three by three regions: all but the
    last window, the last window up to the wrapped rows (columns), and the wrapped ones.
    """
    y, x = (torch.arange(size, device=like.device) for size in (height, width))
    region_y = (y >= height - window_size).long() + (y >= height - shift).long()
    region_x = (x >= width - window_size).long() + (x >= width - shift).long()
    regions = 3 * region_y[:, None] + region_x  # (Hp, Wp)
    regions = partition(regions[None], window_size)[0]  # (M, T)
    different = regions[:, :, None] != regions[:, None, :]
    return different.to(like.dtype) * MASKED
