"""The meaning of `asymmetric_attention` in plain PyTorch: one attention with a mask."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def asymmetric_attention_reference(
    queries: Float[Tensor, "B h Q d"],
    keys: Float[Tensor, "B h N d"],
    values: Float[Tensor, "B h N e"],
    *,
    num_template_queries: int,
    num_template_keys: int,
    scale: float | None = None,
) -> Float[Tensor, "B h Q e"]:
    """Compute `stpn_kernels.asymmetric_attention`; nothing is checked here."""
    scores = queries @ keys.mT * (queries.shape[-1] ** -0.5 if scale is None else scale)
    is_template = torch.arange(queries.shape[2], device=queries.device) < num_template_queries
    is_search = torch.arange(keys.shape[2], device=keys.device) >= num_template_keys
    hidden = is_template[:, None] & is_search
    return scores.masked_fill(hidden, -torch.inf).softmax(-1) @ values
