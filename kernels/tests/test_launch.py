"""The operators launch their kernels as Triton wants it, up to the point where a GPU is needed.

A stand-in for the driver says that an H100 is there, and every launch stops after compiling. What
comes out is not looked at; Triton's interpreter, which computes it, checks no launch.
"""

from __future__ import annotations

import importlib

import pytest
import torch

from stpn_kernels import prompted_window_attention, support_attend, support_pool
from stpn_kernels.backend import INSTALLED, INTERPRETED

if not INSTALLED or INTERPRETED:
    pytest.skip("needs Triton, and not its interpreter", allow_module_level=True)

from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

pytestmark = pytest.mark.compile
OPERATORS = ("prompted_window_attention", "support_attend", "support_pool")


class H100:
    """What Triton asks a driver before it launches."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@pytest.fixture(autouse=True)
def _launches_stop_after_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let operators take CPU tensors to Triton."""
    run = JITFunction.run
    monkeypatch.setattr(driver, "_active", H100())
    monkeypatch.setattr(JITFunction, "run", lambda *args, **kw: run(*args, **kw | {"warmup": True}))
    for operator in OPERATORS:
        module = importlib.import_module(f"stpn_kernels.{operator}.triton_op")
        monkeypatch.setattr(module, "why_no_triton", lambda tensor: [])


def kernels_of(operator: str) -> dict[str, JITFunction]:
    """Return the kernels that are launched, with nothing compiled."""
    module = importlib.import_module(f"stpn_kernels.{operator}.kernel")
    kernels = {name: k for name, k in vars(module).items() if name.endswith("_kernel")}
    for kernel in kernels.values():
        kernel.device_caches.clear()
    return kernels


def compilations(kernel: JITFunction) -> int:
    return sum(len(cache[0]) for cache in kernel.device_caches.values())


def leaf(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype, requires_grad=True)


def test_window_attention_compiles_once_for_all_sizes():
    kernels = kernels_of("prompted_window_attention")
    for images, height, width, heads in ((1, 150, 250, 3), (2, 7, 7, 1), (3, 16, 16, 4)):
        out = prompted_window_attention(
            leaf(images, 7 + height * width, 3, heads, 32),
            leaf(3, heads, 32, dtype=torch.float32),
            leaf(169, heads, dtype=torch.float32),
            height=height,
            width=width,
            window_size=7,
            shift=3,
            num_prompts=7,
            backend="triton",
        )
        out.sum().backward()
    assert {name: compilations(kernel) for name, kernel in kernels.items()} == dict.fromkeys(
        kernels, 1
    )


def test_support_attention_compiles_once_for_all_sizes():
    kernels = kernels_of("support_attend")
    for images, frames, tokens in ((1, 14, 608), (2, 1, 1), (3, 16, 16)):
        out = support_attend(
            leaf(7, 8, 96, dtype=torch.float32),
            leaf(images, frames, tokens, 96),
            backend="triton",
        )
        out.sum().backward()
    assert {name: compilations(k) for name, k in kernels.items()} == dict.fromkeys(kernels, 1)


def test_support_pooling_compiles_once_per_height_of_its_tiles():
    kernels = kernels_of("support_pool")
    for images, frames, tokens in ((1, 14, 608), (2, 1, 1), (3, 16, 16)):
        out = support_pool(
            leaf(images, frames, tokens, 768),
            leaf(768, dtype=torch.float32),
            leaf(768, dtype=torch.float32),
            backend="triton",
        )
        out.sum().backward()
    assert all(compilations(kernel) <= 2 for kernel in kernels.values())
