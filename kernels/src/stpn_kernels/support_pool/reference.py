"""The meaning of `support_pool` in plain PyTorch."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stpn_kernels.precision import compute_dtype


def support_pool_reference(
    support: Float[Tensor, "B K N C"],
    weight: Float[Tensor, " C"],
    bias: Float[Tensor, " C"],
    eps: float = 1e-5,
) -> Float[Tensor, "B N C"]:
    """Compute `stpn_kernels.support_pool`, differentiable by autograd; nothing is checked here."""
    dtype = compute_dtype(support.dtype)
    pooled = support.mean(1, dtype=dtype)  # (B, N, C)
    pooled = F.layer_norm(pooled, pooled.shape[-1:], weight.to(dtype), bias.to(dtype), eps)
    return pooled.to(support.dtype)
