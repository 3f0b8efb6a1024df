"""`support_pool` on Triton as a torch operator; Triton is imported by the first call."""

from typing import Any

import torch
from torch import Tensor

from stpn_kernels.backend import on_device, why_no_triton
from stpn_kernels.support_pool.configurations import (
    BACKWARD,
    FORWARD,
    LARGEST_WIDTH,
    block_width,
    tokens_per_tile,
    wanted_programs,
)
from stpn_kernels.support_pool.op import register_shapes_and_gradients


def why_not(support: Tensor) -> list[str]:
    """Return why Triton can't run a call with this input, in words; empty if it can."""
    reasons = why_no_triton(support)
    if support.shape[-1] > LARGEST_WIDTH:
        reasons.append(f"width {support.shape[-1]} is more than a tile of {LARGEST_WIDTH} holds")
    return reasons


@torch.library.custom_op("stpn::support_pool_triton", mutates_args=())
def support_pool_triton_op(support: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Compute the forward; arguments as in `stpn_kernels.support_pool`."""
    from stpn_kernels.support_pool.kernel import forward_kernel

    B, K, N, C = support.shape
    out = support.new_empty(B, N, C)
    if out.numel() == 0:
        return out
    support = _with_whole_tokens(support)
    rows = tokens_per_tile(FORWARD, B, N, C, support.device)
    with on_device(support):
        forward_kernel[(B * -(-N // rows),)](
            *(support, weight.contiguous(), bias.contiguous(), out),
            *(*support.stride()[:3], K, N),
            **_constants(C, eps, rows),
            **FORWARD.options,
        )
    return out


@torch.library.custom_op("stpn::support_pool_triton_backward", mutates_args=())
def support_pool_triton_backward_op(
    grad_out: Tensor, support: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of one support frame (B, N, C), the weight and the bias."""
    from stpn_kernels.support_pool.kernel import backward_kernel

    B, K, N, C = support.shape
    d_frame = support.new_empty(B, N, C)
    if d_frame.numel() == 0:
        return d_frame, torch.zeros_like(weight), torch.zeros_like(bias)
    support = _with_whole_tokens(support)
    rows = tokens_per_tile(BACKWARD, B, N, C, support.device)
    tiles = B * -(-N // rows)
    each = -(-tiles // wanted_programs(BACKWARD, support.device))
    programs = -(-tiles // each)
    weight_sums, bias_sums = (
        support.new_empty(programs, C, dtype=torch.float32) for _ in ("weight", "bias")
    )
    with on_device(support):
        backward_kernel[(programs,)](
            *(grad_out.contiguous(), support, weight.contiguous()),
            *(d_frame, weight_sums, bias_sums),
            *(*support.stride()[:3], K, N, tiles, each),
            **_constants(C, eps, rows),
            **BACKWARD.options,
        )
    return d_frame, weight_sums.sum(0).to(weight.dtype), bias_sums.sum(0).to(bias.dtype)


register_shapes_and_gradients(support_pool_triton_op, support_pool_triton_backward_op)


def _with_whole_tokens(support: Tensor) -> Tensor:
    """Return the support embeddings as they lie in memory, copied only if tokens lie scattered."""
    return support if support.stride(-1) == 1 else support.contiguous()


def _constants(width: int, eps: float, rows: int) -> dict[str, Any]:
    return {"C": width, "EPS": eps, "ROWS": rows, "BLOCK_C": block_width(width)}
