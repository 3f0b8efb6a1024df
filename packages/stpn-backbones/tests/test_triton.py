"""The whole backbone on Triton: on a GPU, or on the CPU in Triton's interpreter."""

import pytest
import torch
from torch import Tensor

from stpn_backbones import PromptedSwin
from stpn_kernels.backend import INSTALLED, INTERPRETED

pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
DEVICE = "cpu" if INTERPRETED else "cuda"


@pytest.fixture(autouse=True)
def _triton_can_run() -> None:
    if not INSTALLED or not (INTERPRETED or torch.cuda.is_available()):
        pytest.skip("needs Triton, and a CUDA device or TRITON_INTERPRET=1")


def maps_and_gradients(
    model: PromptedSwin, images: Tensor, prompts: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    maps = model(images, prompts)
    wanted = [*prompts, *(p for p in model.parameters() if p.requires_grad)]
    return maps, list(torch.autograd.grad(sum(m.square().mean() for m in maps), wanted))


@pytest.mark.parametrize("deep", [False, True])
def test_features_and_gradients_are_those_of_the_reference(small, deep):
    model = small.to(DEVICE)
    images = torch.randn(1, 3, 60, 90, device=DEVICE)
    dims = model.prompt_dims if deep else model.prompt_dims[:1]
    prompts = [torch.randn(1, 7, width, device=DEVICE, requires_grad=True) for width in dims]
    results = []
    for backend in ("reference", "triton"):
        model.attention_backend = backend
        results.append(maps_and_gradients(model, images, prompts))
    (maps, gradients), (triton_maps, triton_gradients) = results
    for expected, actual in zip(maps, triton_maps, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=2e-5)
    for expected, actual in zip(gradients, triton_gradients, strict=True):
        assert (actual - expected).norm() <= 1e-4 * expected.norm() + 1e-7
