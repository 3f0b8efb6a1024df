import pytest
import torch

from stpn_core.testing import TinyBackbone


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return TinyBackbone().eval()
