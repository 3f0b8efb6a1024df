"""`prompted_window_attention` on Triton as a torch operator.

The forward saves its inputs only; the backward recomputes the weights in its tiles. Triton itself
is imported by the first call, so that the operator is known to torch without it.
"""

from typing import Any

import torch
from torch import Tensor

from stpn_kernels.backend import dot_precision, on_device, why_no_triton
from stpn_kernels.prompted_window_attention.configurations import (
    backward_configuration,
    forward_configuration,
    windows_per_program,
)
from stpn_kernels.prompted_window_attention.layout import count_windows, fold_table
from stpn_kernels.prompted_window_attention.op import register_shapes_and_gradients

HEAD_WIDTHS = (16, 32, 64)
LARGEST_TILE = 64  # rows; the scores of more no longer fit the registers


def why_not(qkv: Tensor, *, window_size: int, num_prompts: int) -> list[str]:
    """Return why Triton can't run a call with these arguments, in words; empty if it can."""
    reasons = why_no_triton(qkv)
    if qkv.shape[-1] not in HEAD_WIDTHS:
        reasons.append(f"head width {qkv.shape[-1]} is none of {HEAD_WIDTHS}")
    rows = window_size**2 + num_prompts
    if rows > LARGEST_TILE:
        reasons.append(
            f"a window of {window_size} x {window_size} tokens and {num_prompts} prompts has"
            f" {rows} rows, more than a tile of {LARGEST_TILE}"
        )
    return reasons


@torch.library.custom_op("stpn::prompted_window_attention_triton", mutates_args=())
def prompted_window_attention_triton_op(
    qkv: Tensor,
    qkv_bias: Tensor,
    bias_table: Tensor,
    height: int,
    width: int,
    window_size: int,
    shift: int,
    num_prompts: int,
    need_prompts: bool,
) -> Tensor:
    """Compute the forward; arguments as in `stpn_kernels.prompted_window_attention`."""
    from stpn_kernels.prompted_window_attention.kernel import forward_kernel

    B, X, _, h, d = qkv.shape
    out = qkv.new_empty(B, X, h * d)
    if B == 0:
        return out
    num_windows = count_windows(height, width, window_size)
    configuration = forward_configuration(qkv.dtype, d)
    each = windows_per_program(configuration, B, h, num_windows, qkv.device)
    groups = -(-num_windows // each)
    kept = num_prompts if need_prompts else 0
    sums = qkv.new_empty(B, groups, kept * h * d, dtype=torch.float32)
    with on_device(qkv):
        forward_kernel[(B * groups * h,)](
            *(t.contiguous() for t in (qkv, qkv_bias, bias_table)),
            out,
            sums,
            *(height, width, h, num_windows, groups, each),
            **_constants(qkv, window_size, shift, num_prompts, kept > 0),
            **configuration.options,
        )
        _write_sums(sums, out, num_windows)
    return out


@torch.library.custom_op("stpn::prompted_window_attention_triton_backward", mutates_args=())
def prompted_window_attention_triton_backward_op(
    grad_out: Tensor,
    qkv: Tensor,
    qkv_bias: Tensor,
    bias_table: Tensor,
    height: int,
    width: int,
    window_size: int,
    shift: int,
    num_prompts: int,
    need_prompts: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of ``qkv``, ``qkv_bias`` and ``bias_table`` by recomputation."""
    from stpn_kernels.prompted_window_attention.kernel import backward_kernel

    B, _, _, h, d = qkv.shape
    if B == 0:
        return torch.zeros_like(qkv), torch.zeros_like(qkv_bias), torch.zeros_like(bias_table)
    num_windows = count_windows(height, width, window_size)
    configuration = backward_configuration(qkv.dtype, d)
    each = windows_per_program(configuration, B, h, num_windows, qkv.device)
    groups = -(-num_windows // each)
    constants = _constants(qkv, window_size, shift, num_prompts, need_prompts)
    tile = constants["BLOCK_N"]
    d_qkv = qkv.new_empty(qkv.shape)
    prompts = qkv.new_empty(B, groups, num_prompts * 3 * h * d, dtype=torch.float32)
    padding = qkv.new_empty(B, groups, 2, h, d, dtype=torch.float32)
    scores = qkv.new_empty(B, groups, h, tile, tile, dtype=torch.float32)
    with on_device(qkv):
        backward_kernel[(B * groups * h,)](
            *(t.contiguous() for t in (grad_out, qkv, qkv_bias, bias_table)),
            *(d_qkv, prompts, padding, scores),
            *(height, width, h, num_windows, groups, each),
            **constants,
            **configuration.options,
        )
        _write_sums(prompts, d_qkv, 1)
    d_qkv_bias = torch.zeros_like(qkv_bias)  # padded queries have no output
    d_qkv_bias[1:] = padding.sum((0, 1))
    T = window_size**2
    d_table = fold_table(scores.sum((0, 1))[:, :T, :T], window_size)
    return d_qkv, d_qkv_bias, d_table.to(bias_table.dtype)


register_shapes_and_gradients(
    prompted_window_attention_triton_op, prompted_window_attention_triton_backward_op
)


def _constants(
    qkv: Tensor, window_size: int, shift: int, num_prompts: int, need_prompts: bool
) -> dict[str, Any]:
    rows = window_size**2 + num_prompts
    return {
        "D": qkv.shape[-1],
        "WINDOW": window_size,
        "SHIFT": shift,
        "PROMPTS": num_prompts,
        "NEED_PROMPTS": need_prompts,
        "BLOCK_N": max(16, 1 << (rows - 1).bit_length()),  # 16: least side of a matrix product
        "PRECISION": dot_precision(qkv.dtype),
    }


def _write_sums(sums: Tensor, out: Tensor, divisor: int) -> None:
    """Write what the groups of each image add up to, divided, to the prompt rows of ``out``."""
    from stpn_kernels.prompted_window_attention.kernel import sum_groups_kernel

    B, groups, size = sums.shape
    if size > 0:
        block = 256
        sum_groups_kernel[(-(-size // block), B)](
            *(sums, out, size, groups, out[0].numel(), divisor), BLOCK=block, num_warps=4
        )
