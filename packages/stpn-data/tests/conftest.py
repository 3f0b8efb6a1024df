"""Golden files are found by a helper of stpn-kernels, without which those tests skip."""

import pytest


@pytest.fixture(scope="session")
def shared_path():
    return pytest.importorskip("stpn_kernels.testing").shared_path


@pytest.fixture(scope="session")
def load_golden():
    return pytest.importorskip("stpn_kernels.testing").load_golden
