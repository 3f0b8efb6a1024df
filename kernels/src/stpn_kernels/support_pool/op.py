"""`support_pool` as a torch operator; the backward recomputes the mean, so it saves only inputs."""

from typing import Any

import torch
from torch import Tensor
from torch.library import CustomOpDef  # type: ignore[attr-defined]

from stpn_kernels.precision import compute_dtype, without_autocast
from stpn_kernels.support_pool.reference import support_pool_reference


@torch.library.custom_op("stpn::support_pool", mutates_args=())
def support_pool_op(support: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Compute the forward; arguments as in `stpn_kernels.support_pool`."""
    with without_autocast(support):
        return support_pool_reference(support, weight, bias, eps)


@torch.library.custom_op("stpn::support_pool_backward", mutates_args=())
def support_pool_backward_op(
    grad_out: Tensor, support: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of one support frame (B, N, C), the weight and the bias."""
    dtype = compute_dtype(support.dtype)
    pooled = support.mean(1, dtype=dtype)  # (B, N, C)
    axes = pooled.shape[-1:]
    w, b = weight.to(dtype), bias.to(dtype)
    _, mean, rstd = torch.native_layer_norm(pooled, axes, w, b, eps)
    d_pooled, d_weight, d_bias = torch.ops.aten.native_layer_norm_backward(
        grad_out.to(dtype).contiguous(), pooled, axes, mean, rstd, w, b, [True, True, True]
    )
    d_frame = (d_pooled / support.shape[1]).to(support.dtype)
    return d_frame, d_weight.to(weight.dtype), d_bias.to(bias.dtype)


def register_shapes_and_gradients(op: CustomOpDef, backward_op: CustomOpDef) -> None:
    """Tell torch what an implementation returns, and its backward."""

    def output(support: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        B, _, N, C = support.shape
        return support.new_empty(B, N, C)

    def gradients(
        grad_out: Tensor, support: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        B, _, N, C = support.shape
        return support.new_empty(B, N, C), weight.new_empty(C), bias.new_empty(C)

    def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.eps = inputs
        ctx.save_for_backward(*tensors)

    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        support, *parameters = ctx.saved_tensors
        d_frame, *d_parameters = backward_op(grad_out, support, *parameters, ctx.eps)
        d_support = d_frame[:, None].expand(-1, support.shape[1], -1, -1)
        needed = zip((d_support, *d_parameters), ctx.needs_input_grad[:3], strict=True)
        return *(grad if need else None for grad, need in needed), None

    op.register_fake(output)
    backward_op.register_fake(gradients)
    op.register_autograd(backward, setup_context=save)


register_shapes_and_gradients(support_pool_op, support_pool_backward_op)
