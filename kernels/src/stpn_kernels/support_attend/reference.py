"""The meaning of `support_attend` in plain PyTorch."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from stpn_kernels.precision import compute_dtype


def support_attend_reference(
    queries: Float[Tensor, "P h D"], tokens: Float[Tensor, "B K N D"]
) -> Float[Tensor, "B P h D"]:
    """Compute `stpn_kernels.support_attend`, differentiable by autograd; checks nothing."""
    dtype = compute_dtype(tokens.dtype)
    keys = tokens.flatten(1, 2).to(dtype)  # (B, K * N, D)
    scores = torch.einsum("phd,btd->bpht", queries.to(dtype), keys)
    return torch.einsum("bpht,btd->bphd", scores.softmax(-1), keys).to(tokens.dtype)
