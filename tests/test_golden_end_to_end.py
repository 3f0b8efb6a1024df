"""The released video detector, from pixels to detections, through all packages."""

import math

import pytest
import torch
from torch import Tensor

from stpn_backbones import create_backbone, load_weights
from stpn_core import AttentionPredictor, VideoEncoder, convert_released_predictor
from stpn_kernels.testing import as_tensors, hash_fill, load_golden
from stpn_tasks.detection import FasterRCNN, convert_released_detector

SIZE, SCALE = (100, 132), 1.25
WEIGHT_SCALES = {"rpn_cls": 0.8, "rpn_reg": 0.4, "fc_cls": 3.0, "fc_reg": 1.5}
RELEASED_LAYERS = (
    *(f"neck.{kind}_convs.{level}.conv" for kind in ("lateral", "fpn") for level in range(4)),
    *(f"rpn_head.rpn_{part}" for part in ("conv", "cls", "reg")),
    *(f"roi_head.bbox_head.shared_fcs.{layer}" for layer in range(2)),
    *(f"roi_head.bbox_head.fc_{part}" for part in ("cls", "reg")),
)


def golden_head() -> FasterRCNN:
    """The small detector of the golden runs, filled by the released names of its weights."""
    head = FasterRCNN((32, 64, 128, 256), 5, fpn_channels=64, fc_dim=128).eval()
    expected, filled = head.state_dict(), {}
    for layer in RELEASED_LAYERS:
        for part in ("weight", "bias"):
            key = f"{layer}.{part}"
            (ours,) = convert_released_detector({key: torch.empty(0)})
            shape, scale = expected[ours].shape, 0.1
            if part == "weight":
                multiplier = WEIGHT_SCALES.get(layer.rpartition(".")[2], 1.0)
                scale = multiplier * math.sqrt(3 / math.prod(shape[1:]))
            filled[key] = hash_fill(f"det.S9.{key}", shape, scale)
    head.load_state_dict(convert_released_detector(filled))
    return head


@pytest.fixture(scope="module")
def clip() -> dict[str, Tensor]:
    return as_tensors(load_golden("swin/pipeline_small_100x132.npz"))


@pytest.fixture(scope="module")
def encoder(clip) -> VideoEncoder:
    backbone = create_backbone(
        "swin_tiny_patch4_window7_224",
        embed_dim=32,
        depths=(2, 2, 2, 2),
        num_heads=(1, 2, 4, 8),
        prompt_merging="released",
    )
    load_weights(backbone, as_tensors(load_golden("swin/small_swin_weights.npz")))
    predictor = AttentionPredictor.for_backbone(backbone, num_prompts=5)
    weights = {key.removeprefix("att."): clip[key] for key in clip if key.startswith("att.")}
    predictor.load_state_dict(convert_released_predictor(weights))
    return VideoEncoder(backbone, predictor).eval()


@torch.no_grad()
def test_prompts_and_detections_are_those_of_the_released_code(encoder, clip):
    golden = as_tensors(load_golden("detector/stpn_e2e_small.npz"))
    head = golden_head()
    second = hash_fill("img.e2e.small.f1", (1, 3, *SIZE), 1.7320508)
    prompts = encoder.prompts(clip["ref_img"][None])  # once per video, as released
    torch.testing.assert_close(prompts[0][0], golden["prompt"], atol=1e-5, rtol=0)
    for number, frame in enumerate((clip["img"], second)):
        features = encoder.backbone(frame, prompts)
        (found,) = head.detect(features, [SIZE], [(SCALE, SCALE)])
        by_class = found.labels.argsort(stable=True)  # best first within a class
        expected = golden[f"frame{number}_dets"]
        assert torch.equal(found.labels[by_class], expected[:, 5].long())
        torch.testing.assert_close(found.boxes_xyxy[by_class], expected[:, :4], atol=5e-3, rtol=0)
        torch.testing.assert_close(found.scores[by_class], expected[:, 4], atol=5e-5, rtol=0)


@torch.no_grad()
def test_the_encoder_gives_the_features_of_its_parts(encoder, clip):
    together = encoder(clip["img"], clip["ref_img"][None])
    apart = encoder.backbone(clip["img"], encoder.prompts(clip["ref_img"][None]))
    for ours, expected in zip(together, apart, strict=True):
        torch.testing.assert_close(ours, expected)
