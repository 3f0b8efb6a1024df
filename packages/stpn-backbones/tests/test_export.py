"""Exported backbones and encoders: any size, the same numbers, in a process of their own."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from stpn_backbones import PromptedSwin, create_backbone
from stpn_core import (
    AttentionPredictor,
    AveragePredictor,
    MixerPredictor,
    TransformerPredictor,
    VideoEncoder,
)

pytestmark = pytest.mark.compile

TWO_LAYERS = {"embed_dim": 16, "depths": (1, 2), "num_heads": (1, 2), "window_size": 7}
ANY_IMAGES = {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}
ANY_SUPPORT = {0: Dim.AUTO, 1: Dim.AUTO, 3: Dim.AUTO, 4: Dim.AUTO}
OTHER_SIZES = ((1, 64, 96), (3, 61, 70), (4, 225, 100), (1, 20, 90))


@pytest.fixture
def backbone() -> PromptedSwin:
    torch.manual_seed(0)
    return create_backbone("swin_tiny_patch4_window7_224", **TWO_LAYERS).eval()


def attentions(exported: torch.export.ExportedProgram) -> int:
    operator = torch.ops.stpn.prompted_window_attention.default
    return sum(node.target == operator for node in exported.graph.nodes)


@pytest.mark.parametrize("num_prompts", [None, 5])
@torch.no_grad()
def test_an_exported_backbone_is_exact_at_other_sizes(
    backbone: PromptedSwin, num_prompts: int | None
) -> None:
    def inputs(batch: int, height: int, width: int) -> tuple:
        images = torch.randn(batch, 3, height, width)
        return (images,) if num_prompts is None else (images, [torch.randn(batch, num_prompts, 16)])

    shapes = (ANY_IMAGES,) if num_prompts is None else (ANY_IMAGES, [{0: Dim.AUTO}])
    exported = torch.export.export(backbone, inputs(2, 96, 128), dynamic_shapes=shapes)
    assert attentions(exported) == 3  # one per layer, not traced into
    for size in OTHER_SIZES:
        case = inputs(*size)
        torch.testing.assert_close(exported.module()(*case), backbone(*case), rtol=0, atol=0)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    "kind", [TransformerPredictor, MixerPredictor, AttentionPredictor, AveragePredictor]
)
@torch.no_grad()
def test_an_exported_encoder_is_exact_at_other_sizes_and_numbers_of_support_frames(
    backbone: PromptedSwin, kind: type, deep: bool
) -> None:
    encoder = VideoEncoder(backbone, kind.for_backbone(backbone, 3, deep=deep)).eval()
    example = torch.randn(2, 3, 96, 128), torch.randn(2, 4, 3, 96, 128)
    exported = torch.export.export(encoder, example, dynamic_shapes=(ANY_IMAGES, ANY_SUPPORT))
    assert attentions(exported) == 6  # of the support frames, of the current ones
    for (batch, height, width), K in zip(OTHER_SIZES, (1, 2, 5, 14), strict=True):
        case = torch.randn(batch, 3, height, width), torch.randn(batch, K, 3, 64, 96)
        torch.testing.assert_close(exported.module()(*case), encoder(*case), rtol=0, atol=0)


LOAD = """
import sys
import torch
{imports}
folder = sys.argv[1]
program = torch.export.load(folder + "/encoder.pt2").module()
torch.save(program(*torch.load(folder + "/inputs.pt")), folder + "/maps.pt")
assert not {{"stpn_core", "stpn_backbones", "timm"}} & sys.modules.keys()
"""


def load_and_run(folder: Path, imports: str) -> subprocess.CompletedProcess[str]:
    code = LOAD.format(imports=imports)
    return subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False
    )


@torch.no_grad()
def test_a_saved_program_runs_in_a_fresh_process_that_knows_the_operators_alone(
    backbone: PromptedSwin, tmp_path: Path
) -> None:
    encoder = VideoEncoder(backbone, TransformerPredictor.for_backbone(backbone, 3)).eval()
    example = torch.randn(2, 3, 96, 128), torch.randn(2, 4, 3, 96, 128)
    exported = torch.export.export(encoder, example, dynamic_shapes=(ANY_IMAGES, ANY_SUPPORT))
    torch.export.save(exported, tmp_path / "encoder.pt2")
    inputs = torch.randn(3, 3, 61, 90), torch.randn(3, 2, 3, 64, 64)
    torch.save(inputs, tmp_path / "inputs.pt")

    done = load_and_run(tmp_path, "import stpn_kernels")
    assert done.returncode == 0, done.stderr
    maps: list[Tensor] = torch.load(tmp_path / "maps.pt")
    torch.testing.assert_close(maps, encoder(*inputs), rtol=0, atol=0)

    without = load_and_run(tmp_path, "")
    assert without.returncode != 0
    assert "stpn" in without.stderr


@torch.no_grad()
def test_the_halves_of_a_stream_can_be_exported_one_by_one(backbone: PromptedSwin) -> None:
    class Embed(nn.Module):
        def __init__(self, encoder: VideoEncoder) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, images: Tensor) -> Tensor:
            return self.encoder.embed(images)

    encoder = VideoEncoder(backbone, MixerPredictor.for_backbone(backbone, 3)).eval()
    images = torch.randn(2, 3, 96, 128)
    exported = torch.export.export(Embed(encoder), (images,), dynamic_shapes=(ANY_IMAGES,))
    case = torch.randn(1, 3, 61, 70)
    torch.testing.assert_close(exported.module()(case), encoder.embed(case), rtol=0, atol=0)
