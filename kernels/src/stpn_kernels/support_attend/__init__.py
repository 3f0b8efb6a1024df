"""Attention of learned queries over all tokens of the support frames."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from stpn_kernels.backend import Backend, use_triton
from stpn_kernels.checks import check_companion, check_floating, check_rank
from stpn_kernels.support_attend.op import support_attend_op
from stpn_kernels.support_attend.triton_op import support_attend_triton_op, why_not

__all__ = ["support_attend", "why_not"]


def support_attend(
    queries: Float[Tensor, "P h D"],
    tokens: Float[Tensor, "B K N D"],
    *,
    backend: Backend = "auto",
) -> Float[Tensor, "B P h D"]:
    """Attend with each query over all ``K * N`` support tokens; return the weighted token sums.

    This is the attention of the transformer predictor (paper, equation 3) with its linear maps
    moved out: ``q . (W_k x) = (W_k^T q) . x``, so callers fold the key projection and the scale
    into the queries; the key bias adds a constant per query and drops out of the softmax; the
    weights sum to one, so callers apply the value projection and its bias to the result. Exact, and
    no key or value of any support token is ever computed.

    Half precision inputs are computed in float32; Triton rounds queries to the dtype of ``tokens``,
    multiplies the two as they are, and adds up in float32. Differentiable once, by recomputation.

    Args:
        queries: scaled queries absorbed through the key projection (P, h, D), one per prompt and
            head, the same for all images.
        tokens: support tokens (B, K, N, D), any strides, such as a view of a ring buffer.
        backend: ``"reference"``, plain PyTorch on every device; ``"triton"``, an error where
            `why_not` has reasons; ``"auto"``, which takes what the committed measurements say is
            faster. Triton copies ``tokens`` whose last dimension is not contiguous.

    Returns:
        Sums of softmax weight times token (B, P, h, D) in the dtype of ``tokens``.

    Raises:
        TypeError: a dtype is not floating point or does not fit that of ``tokens``.
        ValueError: a shape or device does not fit, there is no token (K = 0 or N = 0), ``backend``
            is unknown, or Triton is asked for and can't run the call.
    """
    check_floating("tokens", tokens)
    check_rank("tokens", tokens, "B K N D")
    check_rank("queries", queries, "P h D")
    check_companion("queries", queries, "tokens", tokens)
    if tokens.shape[1] == 0 or tokens.shape[2] == 0:
        raise ValueError(f"tokens must hold a token, got {tuple(tokens.shape)}")
    if queries.shape[2] != tokens.shape[3]:
        raise ValueError(
            f"queries must have the width D = {tokens.shape[3]} of tokens,"
            f" got {tuple(queries.shape)}"
        )
    triton = use_triton(backend, "support_attend", why_not(tokens), tokens)
    op = support_attend_triton_op if triton else support_attend_op
    out: Tensor = op(queries, tokens)
    return out
