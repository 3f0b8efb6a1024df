"""`support_attend` on Triton as a torch operator; Triton is imported by the first call.

Forward: one kernel over the splits, one that merges them. Backward: one for what the weights'
gradients need to know of all tokens, one over the splits for the queries, one for the tokens.
"""

from typing import Any

import torch
from torch import Tensor

from stpn_kernels.backend import dot_precision, on_device, why_no_triton
from stpn_kernels.support_attend.configurations import (
    MOST_QUERIES_OF_TOKENS,
    MOST_SPLITS,
    MOST_STATISTICS,
    launch_options,
    tile_sizes,
    tiles_per_split,
)
from stpn_kernels.support_attend.op import register_shapes_and_gradients


def why_not(tokens: Tensor) -> list[str]:
    """Return why Triton can't run a call with these tokens, in words; empty if it can."""
    return why_no_triton(tokens)


@torch.library.custom_op("stpn::support_attend_triton", mutates_args=())
def support_attend_triton_op(queries: Tensor, tokens: Tensor) -> Tensor:
    """Compute the forward; arguments as in `stpn_kernels.support_attend`."""
    from stpn_kernels.support_attend.kernel import forward_kernel, merge_kernel

    out = tokens.new_empty(tokens.shape[0], *queries.shape)
    if out.numel() == 0:
        return out
    grid = _Grid(queries, tokens)
    splits, each = grid.split(grid.chunks, MOST_SPLITS)
    maxima, weight_sums = grid.new_sums(splits), grid.new_sums(splits)
    token_sums = grid.new_sums(splits, grid.constants["D"])
    with on_device(tokens):
        forward_kernel[(grid.programs(splits, grid.chunks),)](
            *(queries.contiguous(), grid.tokens, maxima, weight_sums, token_sums),
            *(*grid.sizes, splits, each),
            **grid.constants,
            **grid.options(with_gradients=False),
        )
        merge_kernel[(grid.images * grid.queries * grid.chunks,)](
            *(maxima, weight_sums, token_sums, out, grid.queries, splits),
            **{name: grid.constants[name] for name in ("D", "CHUNKS", "BLOCK_D")},
            MOST_SPLITS=MOST_SPLITS,
            num_warps=4,
            enable_fp_fusion=True,
        )
    return out


@torch.library.custom_op("stpn::support_attend_triton_backward", mutates_args=())
def support_attend_triton_backward_op(
    grad_out: Tensor, queries: Tensor, tokens: Tensor, need_tokens: bool
) -> tuple[Tensor, Tensor]:
    """Compute the gradients of ``queries`` and of ``tokens`` (an empty tensor if not needed)."""
    from stpn_kernels.support_attend.kernel import (
        query_gradient_kernel,
        statistics_kernel,
        token_gradient_kernel,
    )

    d_tokens = tokens.new_empty(tokens.shape if need_tokens else 0)
    if grad_out.numel() == 0:
        return torch.zeros_like(queries), d_tokens.zero_()
    grid = _Grid(queries, tokens)
    inputs = (grad_out.contiguous(), queries.contiguous(), grid.tokens)
    known, each_known = grid.split(1, MOST_STATISTICS)
    statistics = [grid.new_sums(known) for _ in range(3)]
    splits, each = grid.split(grid.chunks, MOST_SPLITS)
    query_sums = grid.new_sums(splits, grid.constants["D"])
    with on_device(tokens):
        statistics_kernel[(grid.programs(known, 1),)](
            *(*inputs, *statistics, *grid.sizes, known, each_known),
            **grid.constants,
            **grid.options(with_gradients=False),
        )
        query_gradient_kernel[(grid.programs(splits, grid.chunks),)](
            *(*inputs, *statistics, query_sums, *grid.sizes, splits, each, known),
            **grid.constants,
            MOST_STATISTICS=MOST_STATISTICS,
            **grid.options(with_gradients=True),
        )
        if need_tokens:
            block_q = min(MOST_QUERIES_OF_TOKENS, grid.constants["BLOCK_Q"])
            token_gradient_kernel[(grid.images * grid.tiles * grid.chunks,)](
                *(*inputs, *statistics, d_tokens, *grid.sizes, known),
                **grid.constants | {"BLOCK_Q": block_q},
                MOST_STATISTICS=MOST_STATISTICS,
                **grid.options(with_gradients=True),
            )
    return query_sums.sum((0, 1)).view(queries.shape).to(queries.dtype), d_tokens


register_shapes_and_gradients(support_attend_triton_op, support_attend_triton_backward_op)


class _Grid:
    """How the kernels share out a call.

    Attributes:
        tokens: as they lie in memory; copied only if the numbers of a token lie scattered.
        images: B.
        queries: P * h.
        tiles: of the tokens of an image.
        chunks: of the width of a token.
        sizes: the strides of an image, a frame and a token; P * h, N and K * N.
        constants: of the kernels that read tokens.
    """

    def __init__(self, queries: Tensor, tokens: Tensor) -> None:
        self.tokens = tokens if tokens.stride(-1) == 1 else tokens.contiguous()
        self.images, K, N, D = tokens.shape
        self.queries = queries.shape[0] * queries.shape[1]
        tile = tile_sizes(self.queries, D, tokens.dtype)
        self.tiles = -(-K * N // tile["BLOCK_T"])
        self.chunks = -(-D // tile["BLOCK_D"])
        self.sizes = (*self.tokens.stride()[:3], self.queries, N, K * N)
        self.constants: dict[str, Any] = {
            "D": D,
            "CHUNKS": self.chunks,
            **tile,
            "PRECISION": dot_precision(tokens.dtype),
        }

    def programs(self, splits: int, chunks: int) -> int:
        """Return how many programs there are if each takes one chunk, or all of them."""
        blocks = -(-self.queries // int(self.constants["BLOCK_Q"]))
        return self.images * splits * blocks * chunks

    def split(self, chunks: int, most: int) -> tuple[int, int]:
        """Return how many splits share the tokens, and the tiles of each."""
        written = 4 * self.queries  # bytes for each number of a token's width
        read = self.tokens.element_size() * int(self.constants["BLOCK_T"])
        programs = self.programs(1, chunks)
        least = -(-written // read)
        each = tiles_per_split(self.tiles, programs, least, most, self.tokens.device)
        return -(-self.tiles // each), each

    def new_sums(self, splits: int, *width: int) -> Tensor:
        """Return room for what each split finds of each query."""
        shape = (self.images, splits, self.queries, *width)
        return self.tokens.new_empty(shape, dtype=torch.float32)

    def options(self, *, with_gradients: bool) -> dict[str, Any]:
        """Return what to launch a kernel with."""
        return launch_options(self.tokens.dtype, self.chunks, with_gradients=with_gradients)
