"""Tests that run Triton kernels: on a GPU, or on the CPU in Triton's interpreter.

``nox -s interpreter`` and ``nox -s gpu`` run them. Triton decides for the interpreter or for a GPU
when a kernel is imported, so the interpreter needs a process of its own, in which no kernel can be
compiled.
"""

from pathlib import Path

import pytest
import torch

from stpn_kernels.backend import INSTALLED, INTERPRETED

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before those that want no GPU are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE) and not (INSTALLED and INTERPRETED):
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(autouse=True)
def _triton_can_run(request: pytest.FixtureRequest) -> None:
    if not INSTALLED:
        pytest.skip("Triton is not installed")
    only_gpu = request.node.get_closest_marker("gpu") is not None
    if only_gpu and not (torch.cuda.is_available() and not INTERPRETED):
        pytest.skip("needs a CUDA device, and not Triton's interpreter")
