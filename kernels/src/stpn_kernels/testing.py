"""What the tests of all packages share: golden arrays, portable weights and tolerances.

The golden numbers of independent implementations are found through the environment
variable ``STPN_SHARED``; a test whose array is absent skips, and says so.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stpn_kernels.backend import INTERPRETED

# Where tests of Triton kernels run, and in what: the interpreter multiplies bfloat16 wrongly.
TRITON_DEVICE = "cpu" if INTERPRETED else "cuda"
TRITON_DTYPES = [torch.float32, torch.float16, *([] if INTERPRETED else [torch.bfloat16])]
# Float32 noise between correct implementations of the golden networks (golden/swin/README).
GOLDEN_ATOL = 2e-5
GOLDEN_RTOL = 1e-4


def shared_path(relative: str) -> Path:
    """Return a file or folder of the shared test data, or skip the calling test.

    Args:
        relative: path below the folder named by ``STPN_SHARED``, such as
            ``golden/swin/ref_sampling.npz``.
    """
    import pytest

    root = os.environ.get("STPN_SHARED")
    if not root:
        pytest.skip(f"STPN_SHARED is not set: {relative} is not available")
    path = Path(root) / relative
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


def load_golden(relative: str) -> dict[str, np.ndarray]:
    """Read all arrays of a golden ``.npz`` (path below ``golden/``), or skip the calling test."""
    with np.load(shared_path(f"golden/{relative}"), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def hash_fill(name: str, shape: Sequence[int], scale: float = 1.0, shift: float = 0.0) -> Tensor:
    """Fill a float32 tensor from a counter hash of its name, the same on every machine.

    Element ``i`` (C order) is ``u * scale + shift`` with ``u`` in [-1, 1) from splitmix64 of
    ``crc32(name) * 2**32 + i``.
    """
    counter = np.arange(math.prod(shape), dtype=np.uint64)
    z = counter + np.uint64(zlib.crc32(name.encode()) << 32)
    with np.errstate(over="ignore"):
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    unit = (z >> np.uint64(11)).astype(np.float64) / 2.0**53 * 2.0 - 1.0
    return torch.from_numpy((unit * scale + shift).astype(np.float32).reshape(tuple(shape)))


def hash_fill_weight(prefix: str, key: str, shape: Sequence[int]) -> Tensor:
    """Fill one weight of the golden backbones and predictors by the rule of its key."""
    name = prefix + key
    if key.endswith("relative_position_bias_table"):
        return hash_fill(name, shape, 0.5)
    if "norm" in key and key.endswith("weight"):
        return hash_fill(name, shape, 0.3, 1.0)
    if key.endswith("bias"):
        return hash_fill(name, shape, 0.1)
    if key.endswith("query"):
        return hash_fill(name, shape)
    return hash_fill(name, shape, math.sqrt(3.0 / math.prod(shape[1:])))


def randn(
    shape: Sequence[int], generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return normal random numbers where Triton runs, the same on every device."""
    return torch.randn(*shape, generator=generator).to(TRITON_DEVICE, dtype)


def poisoned(values: Tensor) -> Tensor:
    """Copy numbers to where NaN lies on both sides in memory: what is read beside them shows."""
    margin = 256
    memory = values.new_full((values.numel() + 2 * margin,), math.nan)
    middle = memory[margin : margin + values.numel()].view(values.shape)
    return middle.copy_(values)


def poisoned_ring(values: Tensor) -> Tensor:
    """Copy tokens (B, K, N, C) to the middle of a ring buffer of NaN, of more frames and tokens."""
    B, K, N, C = values.shape
    ring = values.new_full((B, K + 2, N + 1, C), math.nan)
    return ring[:, 1 : K + 1, :N].copy_(values)


def relative_errors(actual: Sequence[Tensor], exact: Sequence[Tensor]) -> list[float]:
    """Return each tensor's error, root mean square over that of the exact one; none may be NaN."""
    assert all(torch.isfinite(tensor).all() for tensor in actual)
    return [
        float((a.double() - e).norm() / e.norm().clamp(min=1e-30))
        for a, e in zip(actual, exact, strict=True)
    ]


def as_tensors(arrays: Mapping[str, np.ndarray], prefix: str = "") -> dict[str, Tensor]:
    """Convert the arrays whose name begins with ``prefix`` to tensors, without the prefix."""
    return {
        name.removeprefix(prefix): torch.from_numpy(np.asarray(array))
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def assert_golden(actual: Tensor, golden: np.ndarray | Tensor) -> None:
    """Assert equality within the float32 noise of the golden networks."""
    expected = torch.as_tensor(np.asarray(golden), dtype=actual.dtype)
    torch.testing.assert_close(actual.detach(), expected, atol=GOLDEN_ATOL, rtol=GOLDEN_RTOL)
