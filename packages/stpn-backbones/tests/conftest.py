from collections.abc import Iterator

import jaxtyping
import pytest
import torch

from stpn_backbones import PromptedSwin, create_backbone, load_weights
from stpn_kernels.testing import as_tensors, load_golden

SMALL = {"embed_dim": 32, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8), "drop_path_rate": 0.2}


@pytest.fixture
def small() -> PromptedSwin:
    """A small Swin with random weights, biases included, as prompts of a fresh one do little."""
    torch.manual_seed(0)
    model = create_backbone("swin_tiny_patch4_window7_224", **SMALL).eval()
    for parameter in model.parameters():
        if parameter.ndim < 2:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture
def released() -> PromptedSwin:
    """The small Swin of the golden numbers: released names, layout and prompt merging."""
    weights = as_tensors(load_golden("swin/small_swin_weights.npz"))
    model = create_backbone("swin_tiny_patch4_window7_224", prompt_merging="released", **SMALL)
    load_weights(model, weights)
    return model.eval()


@pytest.fixture
def own_errors() -> Iterator[None]:
    """Let wrong arguments reach the code where a run checks annotations too."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
