"""Which of an operator's two implementations runs: plain PyTorch on every device, or Triton."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

# Read once, as Triton does: kernels are made for the interpreter or for a GPU when imported.
INSTALLED = find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")

Backend: TypeAlias = Literal["auto", "triton", "reference"]

# Where Triton measured faster than the reference: the compute capabilities of the GPUs, by
# operator, from the committed results under results/kernels/. "auto" takes Triton there only.
MEASURED_FASTER: dict[str, frozenset[tuple[int, int]]] = {}


def use_triton(backend: Backend, operator: str, reasons: Sequence[str], tensor: Tensor) -> bool:
    """Tell whether a call runs on Triton.

    Args:
        backend: ``"triton"`` or ``"reference"`` decide; ``"auto"`` takes what the committed
            measurements say is faster on the tensor's device.
        operator: name of the operator.
        reasons: why Triton can't run the call, in words; none if it can.
        tensor: main input.

    Raises:
        ValueError: the backend is unknown, or ``"triton"`` is asked for and can't run the call.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {get_args(Backend)}, got {backend!r}")
    if backend == "triton" and reasons:
        raise ValueError(f"Triton can't run this call of {operator}: {'; '.join(reasons)}")
    if backend == "auto":
        return not reasons and tensor.is_cuda and _measured_faster(operator, tensor.device.index)
    return backend == "triton"


def why_no_triton(tensor: Tensor) -> list[str]:
    """Return what keeps Triton from any operator on this tensor: installation, device, dtype."""
    if not INSTALLED:
        return ["Triton is not installed"]
    reasons = []
    if not tensor.is_cuda and not (INTERPRETED and tensor.device.type == "cpu"):
        reasons.append(f"the tensors are on {tensor.device.type}, not on a CUDA device")
    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        reasons.append(f"{tensor.dtype} is computed by the reference only")
    return reasons


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _measured_faster(operator: str, device_index: int) -> bool:
    capability = torch.cuda.get_device_capability(device_index)
    return capability in MEASURED_FASTER.get(operator, frozenset())


def dot_precision(dtype: torch.dtype) -> str:
    """Return how float32 matrix products are taken: as PyTorch is told to for its own."""
    tf32 = dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32"
    return "tf32" if tf32 else "ieee"


def num_multiprocessors(device: torch.device) -> int:
    """Return how many multiprocessors fill a device; two in the interpreter."""
    if device.type != "cuda":
        return 2
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def on_device(tensor: Tensor) -> AbstractContextManager[Any]:
    """Return a context in which Triton launches on the tensor's device."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
