"""The video encoder as one graph, forward and backward."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from stpn_core import (
    AttentionPredictor,
    AveragePredictor,
    MixerPredictor,
    TransformerPredictor,
    VideoEncoder,
)

pytestmark = pytest.mark.compile


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch._dynamo.reset()
    # The tiny backbone's layers have a fast path that torch 2.11 cannot trace.
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


def maps_and_gradients(run, encoder, *inputs):
    encoder.backbone.plain_passes = 0  # a count that grows would be a new constant of each graph
    maps = run(*inputs)
    weights = [p for p in encoder.parameters() if p.requires_grad]
    loss = sum(features.square().mean() for features in maps)
    return [*maps, *torch.autograd.grad(loss, weights)]


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    "kind", [TransformerPredictor, MixerPredictor, AttentionPredictor, AveragePredictor]
)
def test_compiled_encoder_and_its_gradients_equal_eager(backbone, kind, deep):
    encoder = VideoEncoder(backbone, kind.for_backbone(backbone, 3, deep=deep)).eval()
    compiled = torch.compile(encoder, fullgraph=True, backend="aot_eager")
    inputs = torch.randn(2, 3, 16, 24), torch.randn(2, 4, 3, 24, 16)
    actual = maps_and_gradients(compiled, encoder, *inputs)
    torch.testing.assert_close(actual, maps_and_gradients(encoder, encoder, *inputs))


@pytest.mark.parametrize("kind", [TransformerPredictor, MixerPredictor])
def test_one_recompilation_serves_every_size(backbone, kind):
    encoder = VideoEncoder(backbone, kind.for_backbone(backbone, 3)).eval()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(encoder, fullgraph=True, backend=counter)
    for height, width in ((64, 96), (104, 136), (64, 72), (80, 112), (96, 72)):
        inputs = torch.randn(2, 3, height, width), torch.randn(2, 4, 3, height, width)
        actual = maps_and_gradients(compiled, encoder, *inputs)
        torch.testing.assert_close(actual, maps_and_gradients(encoder, encoder, *inputs))
    assert counter.frame_count <= 2  # the first size, then any size
