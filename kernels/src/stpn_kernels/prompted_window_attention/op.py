"""`prompted_window_attention` as a torch operator: opaque to compile and export on every device.

The forward differs from the reference in order only: rows are copied by index, window by window and
head by head, so that no padded, rolled or partitioned map and no dense mask exist. The backward
recomputes the attention weights, so that only the inputs are saved.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.library import CustomOpDef  # type: ignore[attr-defined]
from torch.utils.flop_counter import register_flop_formula

from stpn_kernels.precision import compute_dtype, without_autocast
from stpn_kernels.prompted_window_attention.layout import (
    WindowChunk,
    WindowLayout,
    count_windows,
    fold_table,
    window_layout,
)
from stpn_kernels.prompted_window_attention.reference import position_bias

# Attention matrices (windows * heads * images) at a time and CPU thread; what fits its cache.
CPU_CHUNK = 128
# Scores so far below the largest of their row get no weight. Their share is below 1e-26, of no
# effect in float64; left in, the masked ones become denormal numbers, with which the softmax takes
# eight times and the product with the values fifty times as long.
NEGLIGIBLE = -60.0


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
    if B == 0:
        return qkv.new_empty(B, X, h * d)
    layout = _layout(qkv, height, width, window_size, shift, num_prompts)
    dtype = compute_dtype(qkv.dtype)
    with without_autocast(qkv):
        bias = _score_bias(qkv, bias_table, layout, window_size, num_prompts)
        out = qkv.new_empty(B, X, h * d)
        prompts = qkv.new_zeros(B, h, num_prompts, d, dtype=dtype)
        index = _Index.of(qkv, num_prompts + window_size**2)
        rows = qkv.reshape(-1, d)
        for chunk in layout.chunks:
            q, k, v = _window_rows(rows, qkv_bias, chunk, index)
            heads = torch.bmm(_weights(q, k, bias, chunk), v)  # (B * n * h, N, d)
            if need_prompts:
                prompts += heads.view(B, chunk.count, h, -1, d)[:, :, :, :num_prompts].sum(1)
            places = index.places(chunk.token_places)
            tokens = heads.view(B, -1, d).index_select(1, places).view(B, -1, h * d)
            out.index_copy_(1, chunk.token_rows, tokens.to(out.dtype))
        out[:, :num_prompts] = (prompts / layout.num_windows).transpose(1, 2).flatten(2)
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
    B, X, _, h, d = qkv.shape
    if B == 0:
        return torch.zeros_like(qkv), torch.zeros_like(qkv_bias), torch.zeros_like(bias_table)
    layout = _layout(qkv, height, width, window_size, shift, num_prompts)
    dtype = compute_dtype(qkv.dtype)
    with without_autocast(qkv):
        bias = _score_bias(qkv, bias_table, layout, window_size, num_prompts)
        N = num_prompts + window_size**2
        index = _Index.of(qkv, N)
        d_qkv = qkv.new_empty(B, X, 3 * h * d)
        d_prompts = qkv.new_zeros(3, B, h, num_prompts, d, dtype=dtype)
        d_qkv_bias = qkv.new_zeros(3, h, d, dtype=dtype)
        d_scores = qkv.new_zeros(h, N, N, dtype=dtype)
        scale = d**-0.5
        prompt_share = 1.0 / layout.num_windows if need_prompts else 0.0
        rows, grad_rows = qkv.reshape(-1, d), grad_out.reshape(-1, d)
        for chunk in layout.chunks:
            q, k, v = _window_rows(rows, qkv_bias, chunk, index)
            p = _weights(q, k, bias, chunk)
            d_heads = _head_grads(grad_rows, chunk, index, num_prompts, prompt_share)
            # One fused pass for p * (dp - rowsum(p * dp)).
            ds = torch.ops.aten._softmax_backward_data(torch.bmm(d_heads, v.mT), p, -1, p.dtype)
            d_scores += ds.view(-1, h, N, N).sum(0)
            d_rows = q.new_empty(3, len(q), N, d)  # of query, key, value, head by head
            torch.baddbmm(d_rows[0], ds, k, beta=0, alpha=scale, out=d_rows[0])
            torch.baddbmm(d_rows[1], ds.mT, q, beta=0, alpha=scale, out=d_rows[1])
            torch.bmm(p.mT, d_heads, out=d_rows[2])
            d_prompts += d_rows.view(3, B, chunk.count, h, N, d)[..., :num_prompts, :].sum(2)
            d_tokens = _token_rows(d_rows, chunk, index)  # (B, tokens, 3 * h * d)
            d_qkv.index_copy_(1, chunk.token_rows, d_tokens.to(d_qkv.dtype))
            if chunk.padded_places.numel() > 0:
                places = index.places(chunk.padded_places)
                padded = d_rows.view(3, B, -1, d).index_select(2, places)
                d_qkv_bias += padded.view(3, -1, h, d).sum(1)
        d_qkv[:, :num_prompts] = d_prompts.permute(1, 3, 0, 2, 4).flatten(2)
        d_table = fold_table(d_scores[:, num_prompts:, num_prompts:], window_size)
    return d_qkv.view(qkv.shape), d_qkv_bias.to(qkv_bias.dtype), d_table.to(bias_table.dtype)


def register_shapes_and_gradients(op: CustomOpDef, backward_op: CustomOpDef) -> None:
    """Tell torch what an implementation returns, its backward, and how many operations it takes."""

    def output(qkv: Tensor, *args: Any) -> Tensor:
        B, X, _, h, d = qkv.shape
        return qkv.new_empty(B, X, h * d)

    def gradients(grad_out: Tensor, *args: Any) -> tuple[Tensor, ...]:
        return tuple(tensor.new_empty(tensor.shape) for tensor in args[:3])

    def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.layout = inputs[3:]

    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        grads = backward_op(grad_out, *ctx.saved_tensors, *ctx.layout)
        needed = zip(grads, ctx.needs_input_grad[:3], strict=True)
        return *(grad if need else None for grad, need in needed), *[None] * 6

    op.register_fake(output)
    backward_op.register_fake(gradients)
    op.register_autograd(backward, setup_context=save)
    register_flop_formula(op._opoverload.overloadpacket)(_forward_flops)
    register_flop_formula(backward_op._opoverload.overloadpacket)(_backward_flops)


def _forward_flops(*args: Any, **kwargs: Any) -> int:
    """Count the two products of each window: query-key, weight-value."""
    return 2 * _product_flops(*args)


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
    num_windows = count_windows(height, width, window_size)
    return 2 * B * num_windows * h * d * (num_prompts + window_size**2) ** 2


def _layout(
    qkv: Tensor, height: int, width: int, window_size: int, shift: int, num_prompts: int
) -> WindowLayout:
    matrices = qkv.shape[0] * qkv.shape[3]
    if qkv.device.type == "cpu":
        chunk_size = max(1, CPU_CHUNK * torch.get_num_threads() // max(1, matrices))
    else:
        chunk_size = height * width
    heads = qkv.shape[3]
    return window_layout(
        height, width, window_size, shift, num_prompts, heads, chunk_size, qkv.device
    )


@dataclass(frozen=True)
class _Index:
    """Which head is where, worked out once per call.

    Rows of one head are copied on their own, ``d`` numbers each, so that matrices come out whole.

    Attributes:
        qkv: (3, B, 1, h, 1) row of each part, image and head in ``qkv`` as (B * X * 3 * h, d).
        grads: (B, 1, h, 1) row of each image and head in an output as (B * X * h, d).
        heads: (h,) place of the first row of each head within a window.
    """

    qkv: Tensor
    grads: Tensor
    heads: Tensor

    @classmethod
    def of(cls, qkv: Tensor, num_rows: int) -> "_Index":
        """Work it out for ``qkv`` and windows of N = ``num_rows`` rows."""
        B, X, _, h, d = qkv.shape
        device, dtype = qkv.device, torch.int32
        if qkv.numel() // d > torch.iinfo(dtype).max:
            dtype = torch.int64
        parts = torch.arange(3 * h, device=device, dtype=dtype).view(3, 1, 1, h, 1)
        images = torch.arange(B, device=device, dtype=dtype).view(B, 1, 1, 1) * (X * h)
        heads = torch.arange(h, device=device, dtype=dtype) * num_rows
        return cls(parts + 3 * images, parts[0, 0] + images, heads)

    def places(self, first: Tensor) -> Tensor:
        """Return the places of some rows in all heads, from those in the first; row by row."""
        return (first[:, None] + self.heads).flatten()


def _score_bias(
    qkv: Tensor, bias_table: Tensor, layout: WindowLayout, window_size: int, num_prompts: int
) -> list[Tensor]:
    """Return what is added to the scores of the largest chunk of each kind: (B * n * h, N, N)."""
    table = bias_table.to(compute_dtype(qkv.dtype))
    bias = position_bias(table, window_size, num_prompts)
    counts = [0] * len(layout.masks)
    for chunk in layout.chunks:
        counts[chunk.edge] = max(counts[chunk.edge], chunk.count)
    return [
        (bias + mask.to(bias.dtype)).repeat(len(qkv) * count, 1, 1)
        for mask, count in zip(layout.masks, counts, strict=True)
    ]


def _window_rows(qkv: Tensor, qkv_bias: Tensor, chunk: WindowChunk, index: _Index) -> Tensor:
    """Copy the rows of each window, head by head: (3, B * n * h, N, d) for query, key, value.

    Args:
        qkv: (B * X * 3 * h, d), each part and head of the sequence in a row of its own.
        qkv_bias: (3, h, d).
        chunk: the windows.
        index: of the sequence.
    """
    dtype = compute_dtype(qkv.dtype)
    _, B, _, h, _ = index.qkv.shape
    d = qkv.shape[1]
    source = torch.add(index.qkv, chunk.rows, alpha=3 * h)  # (3, B, n, h, N)
    rows = qkv.index_select(0, source.flatten()).to(dtype)
    if chunk.padded_places.numel() > 0:
        bias = qkv_bias.to(dtype)[:, None, None].expand(-1, B, len(chunk.padded_places), -1, -1)
        places = index.places(chunk.padded_places).long()
        rows.view(3, B, -1, d).index_copy_(2, places, bias.flatten(2, 3))
    return rows.view(3, B * chunk.count * h, -1, d)


def _head_grads(
    grad_out: Tensor, chunk: WindowChunk, index: _Index, num_prompts: int, prompt_share: float
) -> Tensor:
    """Copy the output gradient of each window, head by head: (B * n * h, N, d).

    Each window has a share of the gradient of the prompts; padded rows have none. ``grad_out`` is
    (B * X * h, d), each head of the output in a row of its own.
    """
    B, _, h, _ = index.grads.shape
    d = grad_out.shape[1]
    source = torch.add(index.grads, chunk.rows, alpha=h)  # (B, n, h, N)
    rows = grad_out.index_select(0, source.flatten()).to(compute_dtype(grad_out.dtype))
    if chunk.padded_places.numel() > 0:
        places = index.places(chunk.padded_places).long()
        rows.view(B, -1, d).index_fill_(1, places, 0.0)
    rows = rows.view(B * chunk.count * h, -1, d)
    rows[:, :num_prompts].mul_(prompt_share)
    return rows


def _token_rows(rows: Tensor, chunk: WindowChunk, index: _Index) -> Tensor:
    """Collect the tokens of (3, B * n * h, N, d) rows by head: (B, tokens, 3 * h * d)."""
    B = index.grads.shape[0]
    part, d = rows[0].numel() // rows.shape[-1] // B, rows.shape[-1]
    first = torch.arange(3 * B, device=rows.device, dtype=index.heads.dtype).view(3, B, 1) * part
    heads = (first + index.heads).transpose(0, 1)[:, None]  # (B, 1, 3, h)
    places = heads + chunk.token_places.view(-1, 1, 1)  # (B, tokens, 3, h)
    return rows.view(-1, d).index_select(0, places.flatten()).view(B, -1, 3 * len(index.heads) * d)


def _weights(q: Tensor, k: Tensor, bias: Sequence[Tensor], chunk: WindowChunk) -> Tensor:
    """Return the softmax of the biased scores (B * n * h, N, N)."""
    scores = torch.baddbmm(bias[chunk.edge][: len(q)], q, k.mT, alpha=q.shape[-1] ** -0.5)
    if chunk.edge > 0:
        scores -= scores.amax(-1, keepdim=True)
        F.threshold(scores, NEGLIGIBLE, -math.inf, inplace=True)
    return scores.softmax(-1)


register_shapes_and_gradients(prompted_window_attention_op, prompted_window_attention_backward_op)
