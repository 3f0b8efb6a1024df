"""`support_attend` as a torch operator; the backward recomputes the weights, saving only inputs."""

from typing import Any

import torch
from torch import Tensor
from torch.library import CustomOpDef  # type: ignore[attr-defined]
from torch.utils.flop_counter import register_flop_formula

from stpn_kernels.precision import compute_dtype, without_autocast
from stpn_kernels.support_attend.reference import support_attend_reference


@torch.library.custom_op("stpn::support_attend", mutates_args=())
def support_attend_op(queries: Tensor, tokens: Tensor) -> Tensor:
    """Compute the forward; arguments as in `stpn_kernels.support_attend`."""
    with without_autocast(tokens):
        return support_attend_reference(queries, tokens).contiguous()


@torch.library.custom_op("stpn::support_attend_backward", mutates_args=())
def support_attend_backward_op(
    grad_out: Tensor, queries: Tensor, tokens: Tensor, need_tokens: bool
) -> tuple[Tensor, Tensor]:
    """Compute the gradients of ``queries`` and of ``tokens`` (an empty tensor if not needed)."""
    dtype = compute_dtype(tokens.dtype)
    with without_autocast(tokens):
        q = queries.flatten(0, 1).to(dtype)  # (P * h, D)
        keys = tokens.flatten(1, 2).to(dtype)  # (B, K * N, D)
        d_sums = grad_out.flatten(1, 2).to(dtype)  # (B, P * h, D)
        p = (q @ keys.mT).softmax(-1)  # (B, P * h, K * N)
        # One fused pass for p * (dp - rowsum(p * dp)).
        ds = torch.ops.aten._softmax_backward_data(d_sums @ keys.mT, p, -1, dtype)
        d_queries = (ds @ keys).sum(0).view(queries.shape).to(queries.dtype)
        if not need_tokens:
            return d_queries, tokens.new_empty(0)
        d_tokens = p.mT @ d_sums + ds.mT @ q
        return d_queries, d_tokens.view(tokens.shape).to(tokens.dtype)


def register_shapes_and_gradients(op: CustomOpDef, backward_op: CustomOpDef) -> None:
    """Tell torch what an implementation returns, its backward, and how many operations it takes."""

    def output(queries: Tensor, tokens: Tensor) -> Tensor:
        return tokens.new_empty(tokens.shape[0], *queries.shape)

    def gradients(
        grad_out: Tensor, queries: Tensor, tokens: Tensor, need_tokens: bool
    ) -> tuple[Tensor, Tensor]:
        d_tokens = tokens.new_empty(tokens.shape if need_tokens else 0)
        return queries.new_empty(queries.shape), d_tokens

    def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        need_queries, need_tokens = ctx.needs_input_grad
        d_queries, d_tokens = backward_op(grad_out, *ctx.saved_tensors, need_tokens)
        return d_queries if need_queries else None, d_tokens if need_tokens else None

    op.register_fake(output)
    backward_op.register_fake(gradients)
    op.register_autograd(backward, setup_context=save)
    register_flop_formula(op._opoverload.overloadpacket)(_forward_flops)
    register_flop_formula(backward_op._opoverload.overloadpacket)(_backward_flops)


def _forward_flops(
    queries: tuple[int, ...], tokens: tuple[int, ...], *args: Any, **kwargs: Any
) -> int:
    """Count the two products: query-token, weight-token."""
    return 2 * _product_flops(queries, tokens)


def _backward_flops(
    grad_out: tuple[int, ...],
    queries: tuple[int, ...],
    tokens: tuple[int, ...],
    need_tokens: bool,
    *args: Any,
    **kwargs: Any,
) -> int:
    """Count the products: three for the queries, two more for the tokens."""
    return (5 if need_tokens else 3) * _product_flops(queries, tokens)


def _product_flops(queries: tuple[int, ...], tokens: tuple[int, ...]) -> int:
    P, h, D = queries
    B, K, N, _ = tokens
    return 2 * B * P * h * K * N * D


register_shapes_and_gradients(support_attend_op, support_attend_backward_op)
