"""The arithmetic of the operators: half precision is computed in float32, autocast is kept out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype to compute in: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def without_autocast(tensor: Tensor) -> Any:
    """Return a context in which autocast does not lower the matrix products of an operator."""
    return torch.autocast(tensor.device.type, enabled=False)
