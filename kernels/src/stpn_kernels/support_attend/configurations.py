"""How the Triton kernels of `support_attend` are launched.

By what compiling for sm_80 and sm_90 says of registers and spills; not yet tuned on a GPU.
"""

from typing import Any

import torch

from stpn_kernels.backend import num_multiprocessors

# The tokens of an image are shared out among at most so many programs, whose sums are merged at
# once; so are the statistics of the backward, by each program that needs them.
MOST_SPLITS = 32
MOST_STATISTICS = 16
PROGRAMS_PER_MULTIPROCESSOR = 2
# Queries at a time in the gradient of the tokens: more spill where tokens are narrow.
MOST_QUERIES_OF_TOKENS = 32


def tile_sizes(num_queries: int, width: int, dtype: torch.dtype) -> dict[str, int]:
    """Return the sides of a tile: of queries, of tokens, and of a chunk of their width.

    The scores of a tile and the sums of a chunk fit the registers together. Float32 products take
    twice the room of half precision, and spill unless their chunks are short.
    """
    half = dtype.itemsize == 2
    return {
        "BLOCK_Q": _side(num_queries, 64),
        "BLOCK_T": 64 if half else 32,
        "BLOCK_D": _side(width, 128 if half else 64),
    }


def launch_options(dtype: torch.dtype, chunks: int, *, with_gradients: bool) -> dict[str, Any]:
    """Return what to launch a kernel with.

    Args:
        dtype: of the tokens.
        chunks: of their width.
        with_gradients: whether the kernel has the gradients of weights beside them.
    """
    light = dtype.itemsize == 2 and chunks == 1 and not with_gradients
    return {
        "num_warps": 4 if light else 8,
        "num_stages": 2,
        "enable_fp_fusion": True,  # Triton 3.10 switches it off
    }


def tiles_per_split(
    num_tiles: int,
    programs_per_split: int,
    least_tiles: int,
    most_splits: int,
    device: torch.device,
) -> int:
    """Return how many tiles of tokens one program walks: as few as leave no multiprocessor idle.

    Args:
        num_tiles: tiles of an image.
        programs_per_split: programs of all images, queries and chunks for one split.
        least_tiles: so many at least, that a split reads no less than it writes.
        most_splits: so many at most.
        device: which runs them.
    """
    programs = PROGRAMS_PER_MULTIPROCESSOR * num_multiprocessors(device)
    splits = max(1, min(most_splits, programs // programs_per_split, num_tiles // least_tiles))
    return -(-num_tiles // splits)


def _side(size: int, largest: int) -> int:
    return min(largest, max(16, 1 << (size - 1).bit_length()))  # 16: least of a matrix product
