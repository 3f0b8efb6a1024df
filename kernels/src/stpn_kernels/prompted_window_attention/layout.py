"""Which rows of the sequence each window reads, worked out once per map size.

The operator copies rows by index instead of padding, rolling, partitioning and concatenating the
whole map. Windows that share one additive mask are walked in chunks that fit the CPU's cache, which
measures up to four times as fast as all windows at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from stpn_kernels.prompted_window_attention.reference import (
    MASKED,
    partition,
    relative_position_index,
)


@dataclass(frozen=True)
class WindowChunk:
    """Some windows of a map, of N = P + w * w rows each, prompts first.

    Attention runs on n * h matrices, windows before heads. The *place* of row j of window i in the
    first head of these is ``i * h * N + j``; that of the next head lies N further on.

    Indices are int32 where torch takes them: rows are copied in half the time.

    Attributes:
        count: number of windows n.
        rows: (n, 1, N) row of the sequence at each window position; 0 where the map is padded.
        token_rows: rows of the sequence that hold the tokens of these windows.
        token_places: where those tokens are in the first head.
        padded_places: where padding is in the first head.
        edge: which of the masks of `shift_masks` these windows share.
    """

    count: int
    rows: Tensor
    token_rows: Tensor
    token_places: Tensor
    padded_places: Tensor
    edge: int


@dataclass(frozen=True)
class WindowLayout:
    """All windows of a map in chunks, their number, and their masks (1 or 4, N, N)."""

    chunks: tuple[WindowChunk, ...]
    num_windows: int
    masks: Tensor


def count_windows(height: int, width: int, window_size: int) -> int:
    """Return how many windows a map has, padded to whole ones."""
    return -(-height // window_size) * -(-width // window_size)


@lru_cache(maxsize=64)
def window_layout(
    height: int,
    width: int,
    window_size: int,
    shift: int,
    num_prompts: int,
    num_heads: int,
    chunk_size: int,
    device: torch.device,
) -> WindowLayout:
    """Lay the windows of a ``height`` by ``width`` map out in chunks of at most ``chunk_size``."""
    with torch.inference_mode(False):  # cached tensors outlive the mode of the first call
        source = _source_tokens(height, width, window_size, shift)
        if shift == 0:
            groups = [source.flatten(0, 1)]
        else:  # inner windows, right column, bottom row, corner
            groups = [
                part.flatten(0, 1)
                for row in (source[:-1], source[-1:])
                for part in (row[:, :-1], row[:, -1:])
            ]
        chunks = tuple(
            _chunk(windows, num_prompts, num_heads, edge, device)
            for edge, group in enumerate(groups)
            for windows in torch.split(group, chunk_size)
            if len(windows) > 0
        )
        masks = F.pad(shift_masks(window_size, shift), (num_prompts, 0, num_prompts, 0))
        num_windows = source.shape[0] * source.shape[1]
        return WindowLayout(chunks, num_windows, masks.to(device))


def fold_table(d_scores: Tensor, window_size: int) -> Tensor:
    """Sum the score gradients (h, T, T) of the pairs that read the same row, in a fixed order."""
    pairs = table_pairs(window_size, d_scores.device)
    flat = F.pad(d_scores.flatten(1), (0, 1))  # the pair T * T is empty
    d_table = flat.index_select(1, pairs.flatten()).view(-1, *pairs.shape).sum(2)  # (h, R)
    return d_table.T.contiguous()


@lru_cache(maxsize=16)
def table_pairs(window_size: int, device: torch.device) -> Tensor:
    """List for each row of the bias table the (query, key) pairs that read it.

    Pairs are flat indices into (T, T); shorter lists are filled with T * T. Summing along this list
    folds a gradient in a fixed order, which atomic adds would not.

    Returns:
        ((2 * w - 1) ** 2, T) int64 with T = w * w.
    """
    with torch.inference_mode(False):
        index = relative_position_index(window_size, torch.device("cpu")).flatten()
        num_rows = (2 * window_size - 1) ** 2
        rows, order = index.sort(stable=True)
        starts = index.bincount(minlength=num_rows).cumsum(0).roll(1)
        starts[0] = 0
        pairs = torch.full((num_rows, window_size**2), len(index))
        pairs[rows, torch.arange(len(rows)) - starts[rows]] = order
        return pairs.to(device)


def shift_masks(window_size: int, shift: int) -> Tensor:
    """Return the masks that windows of a rolled map can have.

    Only the last window row and column mix regions, so there are four: inner windows, right column,
    bottom row, corner. Without a shift the first is left.

    Returns:
        (1 or 4, T, T) float32: -100 where the pair comes from different regions, else 0.
    """
    if shift == 0:
        return torch.zeros(1, window_size**2, window_size**2)
    wrapped = (torch.arange(window_size) >= window_size - shift).long()
    right = wrapped.repeat(window_size)
    bottom = wrapped.repeat_interleave(window_size)
    regions = torch.stack([0 * right, right, 2 * bottom, 2 * bottom + right])  # (4, T)
    return (regions[:, :, None] != regions[:, None, :]).float() * MASKED


def _source_tokens(height: int, width: int, window_size: int, shift: int) -> Tensor:
    """Return the token at each position of each window, -1 where padded: (rows, columns, T)."""
    padded_height, padded_width = height + -height % window_size, width + -width % window_size
    y = (torch.arange(padded_height) + shift) % padded_height
    x = (torch.arange(padded_width) + shift) % padded_width
    inside = (y[:, None] < height) & (x < width)
    source = torch.where(inside, y[:, None] * width + x, -1)
    windows = partition(source[None], window_size)[0]  # (M, T)
    return windows.view(padded_height // window_size, -1, window_size**2)


def _chunk(
    windows: Tensor, num_prompts: int, num_heads: int, edge: int, device: torch.device
) -> WindowChunk:
    prompts = torch.arange(num_prompts).expand(len(windows), -1)
    rows = torch.cat([prompts, torch.where(windows < 0, -1, windows + num_prompts)], dim=1)
    n, N = rows.shape
    places = torch.arange(n)[:, None] * num_heads * N + torch.arange(N)  # (n, N)
    tokens = rows >= 0
    tokens[:, :num_prompts] = False
    return WindowChunk(
        count=n,
        rows=rows.clamp(min=0)[:, None].to(device, torch.int32),
        token_rows=rows[tokens].to(device),
        token_places=places[tokens].to(device, torch.int32),
        padded_places=places[rows < 0].to(device, torch.int32),
        edge=edge,
    )
