"""Tests that run Triton kernels on the CPU, in Triton's interpreter: ``nox -s interpreter``.

Triton decides for the interpreter or for a GPU when a kernel is imported, so these need a process
of their own, in which no kernel can be compiled.
"""

from pathlib import Path

import pytest

from stpn_kernels.backend import INSTALLED, INTERPRETED

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = "needs TRITON_INTERPRET=1, as nox -s interpreter sets it, and Triton"
    for item in items:
        if item.path.is_relative_to(HERE) and not (INSTALLED and INTERPRETED):
            item.add_marker(pytest.mark.skip(reason=reason))
