"""Pooling of the support embeddings over the support frames, for the mixer predictor."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from stpn_kernels.backend import Backend, use_triton
from stpn_kernels.checks import check_companion, check_floating, check_rank
from stpn_kernels.support_pool.op import support_pool_op
from stpn_kernels.support_pool.triton_op import support_pool_triton_op, why_not

__all__ = ["support_pool", "why_not"]


def support_pool(
    support: Float[Tensor, "B K N C"],
    weight: Float[Tensor, " C"],
    bias: Float[Tensor, " C"],
    eps: float = 1e-5,
    *,
    backend: Backend = "auto",
) -> Float[Tensor, "B N C"]:
    """Average the support embeddings over the K support frames and normalise each token.

    This is ``LayerNorm(mean over K)``, the input of the mixer predictor (paper, equations 5-7).
    Half precision inputs are computed in float32. Differentiable once; the gradient of ``support``
    is the same for every support frame and never written K times.

    Args:
        support: support embeddings (B, K, N, C), any strides, such as a view of a ring buffer.
        weight: LayerNorm weight (C,).
        bias: LayerNorm bias (C,).
        eps: added to the variance.
        backend: ``"reference"``, plain PyTorch on every device; ``"triton"``, an error where
            `why_not` has reasons; ``"auto"``, which takes what the committed measurements say is
            faster. Triton copies a ``support`` whose last dimension is not contiguous.

    Returns:
        Pooled tokens (B, N, C) in the dtype of ``support``.

    Raises:
        TypeError: a dtype is not floating point or does not fit that of ``support``.
        ValueError: a shape or device does not fit, there is no support frame (K = 0), ``backend``
            is unknown, or Triton is asked for and can't run the call.
    """
    check_floating("support", support)
    check_rank("support", support, "B K N C")
    if support.shape[1] == 0:
        raise ValueError(f"support must hold a support frame, got {tuple(support.shape)}")
    for name, parameter in (("weight", weight), ("bias", bias)):
        check_rank(name, parameter, "C")
        check_companion(name, parameter, "support", support)
        if parameter.shape[0] != support.shape[3]:
            raise ValueError(
                f"{name} must have shape (C,) = ({support.shape[3]},), got {tuple(parameter.shape)}"
            )
    triton = use_triton(backend, "support_pool", why_not(support), support)
    op = support_pool_triton_op if triton else support_pool_op
    out: Tensor = op(support, weight, bias, eps)
    return out
