"""`prompted_window_attention` as a torch operator: opaque to compile and export on every device.

The forward differs from the reference in order only: rows are copied by index, window by window, so
that no padded, rolled or partitioned map and no dense mask exist. The backward recomputes the
attention weights, so that only the inputs are saved.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from stpn_kernels.precision import compute_dtype, without_autocast
from stpn_kernels.prompted_window_attention.layout import (
    WindowChunk,
    WindowLayout,
    table_pairs,
    window_layout,
)
from stpn_kernels.prompted_window_attention.reference import position_bias

# Attention matrices (windows * heads * images) at a time and CPU thread; what fits its cache.
CPU_CHUNK = 48


@torch.library.custom_op("stpn::prompted_window_attention", mutates_args=())
def prompted_window_attention_op(
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
    B, X, _, h, d = qkv.shape
    layout = _layout(qkv, height, width, window_size, shift, num_prompts)
    with without_autocast(qkv):
        bias = _score_bias(qkv, bias_table, layout, window_size, num_prompts)
        N = bias.shape[-1]
        out = qkv.new_empty(B, X, h * d)
        prompts = bias.new_zeros(B, num_prompts, h * d)
        for chunk in layout.chunks:
            q, k, v = _window_rows(qkv, qkv_bias, chunk, N)
            heads = _weights(q, k, bias[chunk.edge]) @ v  # (B * n * h, N, d)
            rows = heads.view(B, chunk.count, h, N, d).transpose(2, 3).flatten(3)
            if need_prompts:
                prompts += rows[:, :, :num_prompts].sum(1)
            tokens = rows.flatten(1, 2).index_select(1, chunk.tokens)
            out.index_copy_(1, chunk.token_rows, tokens.to(out.dtype))
        out[:, :num_prompts] = prompts / layout.num_windows
    return out


@torch.library.custom_op("stpn::prompted_window_attention_backward", mutates_args=())
def prompted_window_attention_backward_op(
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
    B, _, _, h, d = qkv.shape
    layout = _layout(qkv, height, width, window_size, shift, num_prompts)
    with without_autocast(qkv):
        bias = _score_bias(qkv, bias_table, layout, window_size, num_prompts)
        N = bias.shape[-1]
        d_qkv = torch.empty_like(qkv, memory_format=torch.contiguous_format)
        d_prompts = bias.new_zeros(B, num_prompts, 3, h, d)
        d_qkv_bias = bias.new_zeros(3, h, d)
        d_scores = bias.new_zeros(h, N, N)
        scale = d**-0.5
        prompt_share = 1.0 / layout.num_windows if need_prompts else None
        for chunk in layout.chunks:
            q, k, v = _window_rows(qkv, qkv_bias, chunk, N)
            p = _weights(q, k, bias[chunk.edge])
            d_heads = _head_grads(grad_out, chunk, h, num_prompts, prompt_share)
            # One fused pass for p * (dp - rowsum(p * dp)).
            ds = torch.ops.aten._softmax_backward_data(d_heads @ v.mT, p, -1, p.dtype)
            d_scores += ds.view(B * chunk.count, h, N, N).sum(0)
            d_rows = bias.new_empty(B, chunk.count, N, 3, h, d)
            d_q, d_k, d_v = d_rows.permute(3, 0, 1, 4, 2, 5)  # (B, n, h, N, d) each
            torch.mul((ds @ k).view(d_q.shape), scale, out=d_q)
            torch.mul((ds.mT @ q).view(d_k.shape), scale, out=d_k)
            d_v.copy_((p.mT @ d_heads).view(d_v.shape))
            d_prompts += d_rows[:, :, :num_prompts].sum(1)
            d_rows = d_rows.flatten(1, 2)
            d_tokens = d_rows.index_select(1, chunk.tokens)
            d_qkv.index_copy_(1, chunk.token_rows, d_tokens.to(d_qkv.dtype))
            if chunk.padded.numel() > 0:
                d_qkv_bias += d_rows.index_select(1, chunk.padded).sum((0, 1))
        d_qkv[:, :num_prompts] = d_prompts
        d_table = _fold_table(d_scores[:, num_prompts:, num_prompts:], window_size)
    return d_qkv, d_qkv_bias.to(qkv_bias.dtype), d_table.to(bias_table.dtype)


@prompted_window_attention_op.register_fake
def _(qkv: Tensor, *args: Any) -> Tensor:
    B, X, _, h, d = qkv.shape
    return qkv.new_empty(B, X, h * d)


@prompted_window_attention_backward_op.register_fake
def _(grad_out: Tensor, *args: Any) -> tuple[Tensor, ...]:
    return tuple(tensor.new_empty(tensor.shape) for tensor in args[:3])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.layout = inputs[3:]


def _backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    grads = prompted_window_attention_backward_op(grad_out, *ctx.saved_tensors, *ctx.layout)
    needed = (g if need else None for g, need in zip(grads, ctx.needs_input_grad[:3], strict=True))
    return *needed, None, None, None, None, None, None


prompted_window_attention_op.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.stpn.prompted_window_attention)
def _forward_flops(*args: Any, **kwargs: Any) -> int:
    """Count the two products of each window: query-key, weight-value."""
    return 2 * _product_flops(*args)


@register_flop_formula(torch.ops.stpn.prompted_window_attention_backward)
def _backward_flops(grad_out: tuple[int, ...], *args: Any, **kwargs: Any) -> int:
    """Count the five products of each window, recomputed scores included."""
    return 5 * _product_flops(*args)


def _product_flops(
    qkv: tuple[int, ...],
    qkv_bias: tuple[int, ...],
    bias_table: tuple[int, ...],
    height: int,
    width: int,
    window_size: int,
    shift: int,
    num_prompts: int,
    need_prompts: bool,
) -> int:
    B, _, _, h, d = qkv
    num_windows = -(-height // window_size) * -(-width // window_size)
    return 2 * B * num_windows * h * d * (num_prompts + window_size**2) ** 2


def _layout(
    qkv: Tensor, height: int, width: int, window_size: int, shift: int, num_prompts: int
) -> WindowLayout:
    matrices = qkv.shape[0] * qkv.shape[3]
    if qkv.device.type == "cpu":
        chunk_size = max(1, CPU_CHUNK * torch.get_num_threads() // max(1, matrices))
    else:
        chunk_size = height * width
    return window_layout(height, width, window_size, shift, num_prompts, chunk_size, qkv.device)


def _score_bias(
    qkv: Tensor, bias_table: Tensor, layout: WindowLayout, window_size: int, num_prompts: int
) -> Tensor:
    """Return what is added to the scores per kind of window: (1 or 4, h, N, N)."""
    table = bias_table.to(compute_dtype(qkv.dtype))
    bias = position_bias(table, window_size, num_prompts)
    return bias + layout.masks[:, None].to(bias.dtype)


def _window_rows(qkv: Tensor, qkv_bias: Tensor, chunk: WindowChunk, N: int) -> Sequence[Tensor]:
    """Copy the rows of each window, head by head: query, key, value (B * n * h, N, d) each."""
    dtype = compute_dtype(qkv.dtype)
    B, _, _, h, d = qkv.shape
    rows = qkv.index_select(1, chunk.rows).to(dtype)
    if chunk.padded.numel() > 0:
        rows[:, chunk.padded] = qkv_bias.to(dtype)
    rows = rows.view(B * chunk.count, N, 3, h, d).permute(2, 0, 3, 1, 4)
    return rows.flatten(1, 2).unbind(0)


def _head_grads(
    grad_out: Tensor, chunk: WindowChunk, h: int, num_prompts: int, prompt_share: float | None
) -> Tensor:
    """Copy the output gradient of each window, head by head: (B * n * h, N, d).

    Each window has a share of the gradient of the prompts; padded rows have none.
    """
    rows = grad_out.index_select(1, chunk.rows).to(compute_dtype(grad_out.dtype))
    rows.index_fill_(1, chunk.padded, 0.0)
    rows = torch.unflatten(rows, 1, (chunk.count, -1))  # (B, n, N, h * d)
    prompts = rows[:, :, :num_prompts]
    if prompt_share is None:
        prompts.zero_()
    else:
        prompts.mul_(prompt_share)
    return torch.unflatten(rows, 3, (h, -1)).transpose(2, 3).flatten(0, 2)


def _weights(q: Tensor, k: Tensor, bias: Tensor) -> Tensor:
    """Return the softmax of the biased scores (B * n * h, N, N)."""
    bias = bias.expand(q.shape[0] // bias.shape[0], -1, -1, -1).flatten(0, 1)
    return torch.baddbmm(bias, q, k.mT, alpha=q.shape[-1] ** -0.5).softmax(-1)


def _fold_table(d_scores: Tensor, window_size: int) -> Tensor:
    """Sum the score gradients (h, T, T) of the pairs that read the same row, in a fixed order."""
    pairs = table_pairs(window_size, d_scores.device)
    flat = F.pad(d_scores.flatten(1), (0, 1))  # the pair T * T is empty
    d_table = flat.index_select(1, pairs.flatten()).view(-1, *pairs.shape).sum(2)  # (h, R)
    return d_table.T.contiguous()
