"""The prompted Swin and its encoder as one graph, forward and backward (test_swin: forward)."""

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from stpn_backbones import PromptedSwin, create_backbone
from stpn_core import TransformerPredictor, VideoEncoder

pytestmark = pytest.mark.compile

TWO_LAYERS = {"embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2), "window_size": 7}


@pytest.fixture
def backbone() -> PromptedSwin:
    torch.manual_seed(0)
    torch._dynamo.reset()
    return create_backbone("swin_tiny_patch4_window7_224", **TWO_LAYERS).eval()


def maps_and_gradients(run: nn.Module, model: nn.Module, *inputs: object) -> list[Tensor]:
    maps = run(*inputs)
    weights = [p for p in model.parameters() if p.requires_grad]
    loss = sum(features.square().mean() for features in maps)
    return [*maps, *torch.autograd.grad(loss, weights)]


@pytest.mark.parametrize("num_prompts", [None, 3])
def test_compiled_swin_and_its_gradients_equal_eager(
    backbone: PromptedSwin, num_prompts: int | None
) -> None:
    images = torch.randn(2, 3, 61, 90)
    prompts = None if num_prompts is None else [torch.randn(2, num_prompts, 16)]
    compiled = torch.compile(backbone, fullgraph=True, backend="aot_eager")
    actual = maps_and_gradients(compiled, backbone, images, prompts)
    torch.testing.assert_close(actual, maps_and_gradients(backbone, backbone, images, prompts))


def test_two_recompilations_serve_every_size_and_batch(backbone: PromptedSwin) -> None:
    encoder = VideoEncoder(backbone, TransformerPredictor.for_backbone(backbone, 3)).eval()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(encoder, fullgraph=True, backend=counter)
    sizes = ((64, 96), (100, 132), (61, 70), (80, 112), (90, 68))
    for batch, (height, width) in zip((1, 1, 1, 1, 1, 2, 4), sizes + sizes, strict=False):
        inputs = torch.randn(batch, 3, height, width), torch.randn(batch, 4, 3, height, width)
        actual = maps_and_gradients(compiled, encoder, *inputs)
        torch.testing.assert_close(actual, maps_and_gradients(encoder, encoder, *inputs))
    assert counter.frame_count <= 3  # the first size, any size, any batch


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_same_seed_gives_the_same_numbers(compile: bool) -> None:
    def train() -> list[Tensor]:
        torch.manual_seed(0)
        torch._dynamo.reset()
        backbone = create_backbone("swin_tiny_patch4_window7_224", drop_path_rate=0.2, **TWO_LAYERS)
        encoder = VideoEncoder(backbone, TransformerPredictor.for_backbone(backbone, 3)).train()
        run = torch.compile(encoder, fullgraph=True) if compile else encoder
        optimizer = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad])
        for _ in range(2):
            maps = run(torch.randn(2, 3, 45, 60), torch.randn(2, 2, 3, 45, 60))
            sum(features.square().mean() for features in maps).backward()
            optimizer.step()
            optimizer.zero_grad()
        return [p.detach() for p in encoder.parameters()]

    assert all(map(torch.equal, train(), train()))
