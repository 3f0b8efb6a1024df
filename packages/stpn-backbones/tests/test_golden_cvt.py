"""Microsoft's CvT and the backbone of MixFormer, number by number."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stpn_backbones.cvt import PromptedCvt
from stpn_backbones.cvt_weights import load_cvt_weights
from stpn_kernels.testing import as_tensors, load_golden

# The float32 noise between correct implementations (golden/mixformer/README).
FEATURES, LOGITS = 1e-4, 1e-5


def golden_cvt(name: str, *, frozen: bool = True) -> tuple[PromptedCvt, dict[str, np.ndarray]]:
    golden = load_golden(f"mixformer/{name}.npz")
    meta = json.loads(str(golden["meta_json"]))
    model = PromptedCvt(
        meta["dims"],
        meta["depths"],
        meta["heads"],
        cls_token=meta["cls_token"],
        frozen_batch_norm=frozen,
    ).eval()
    report = load_cvt_weights(model, as_tensors(golden, "sd/"))
    assert [key for key in report.new if not key.startswith("output_norms.")] == []
    assert set(report.unexpected.values()) <= {
        "the classifier of images",
        "a counter, which frozen batch norms do not have",
    }
    return model, golden


def stage_sequences(model: PromptedCvt) -> list[Tensor]:
    """Collect what the output norms read: the golden stages are not normalised."""
    seen: list[Tensor] = []
    for norm in (*model.output_norms, model.norm):
        norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    return seen


def assert_near(actual: Tensor, expected: np.ndarray, tolerance: float) -> None:
    torch.testing.assert_close(actual, torch.from_numpy(expected), atol=tolerance, rtol=tolerance)


@torch.no_grad()
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("name", ["cvt_small_cls", "cvt_small_nocls_rect"])
def test_stages_and_logits_equal_microsofts_code(name: str, frozen: bool) -> None:
    model, golden = golden_cvt(name, frozen=frozen)
    image = torch.from_numpy(golden["image"])
    sequences = stage_sequences(model)
    maps = model(image)
    compared = {"image", "meta_json"}
    for stage, x in enumerate(sequences):
        expected = golden[f"stage{stage}.out"]
        tokens = x[:, x.shape[1] - maps[stage].shape[2] * maps[stage].shape[3] :]
        assert_near(tokens.transpose(1, 2).reshape(expected.shape), expected, FEATURES)
        compared.add(f"stage{stage}.out")
    if model.num_cls:
        assert_near(sequences[-1][:, :1], golden["stage2.cls"], FEATURES)
        compared.add("stage2.cls")
    features = model.classify_features(image)
    assert_near(features, golden["features"], FEATURES)
    head = as_tensors(golden, "sd/head.")
    assert_near(F.linear(features, head["weight"], head["bias"]), golden["logits"], LOGITS)
    compared |= {"features", "logits"}
    assert compared == {key for key in golden if not key.startswith("sd/")}


@torch.no_grad()
def test_images_are_embedded_as_by_the_trackers_backbone() -> None:
    golden = load_golden("mixformer/mixformer_small_a.npz")
    model = PromptedCvt((16, 32, 64), (1, 1, 2), (1, 2, 4)).eval()
    load_cvt_weights(model, as_tensors(golden, "sd/"))
    maps = torch.from_numpy(golden["search"])
    for index, stage in enumerate(model.stages):
        tokens, grid = stage.patch_embed(maps)
        expected = golden[f"stage{index}.patch_embed.search"]
        assert_near(tokens.transpose(1, 2).reshape(expected.shape), expected, FEATURES)
        maps = torch.from_numpy(golden[f"stage{index}.search"])
        assert maps.shape[2:] == grid


@torch.no_grad()
@pytest.mark.parametrize("name", ["mixformer_small_a", "mixformer_small_b_bn"])
def test_the_parts_of_a_block_make_the_trackers_mixed_attention(name: str) -> None:
    golden = load_golden(f"mixformer/{name}.npz")
    meta = json.loads(str(golden["meta_json"]))
    model = PromptedCvt(meta["dims"], meta["depths"], meta["heads"]).eval()
    load_cvt_weights(model, as_tensors(golden, "sd/"))
    block = list(model.stages)[2].blocks[0]
    x = torch.from_numpy(golden["stage2.block0.tokens_in"])
    grids = [
        golden[f"stage2.{part}"].shape[2:] for part in ("template", "online_template", "search")
    ]
    parts = block.norm1(x).split([rows * columns for rows, columns in grids], dim=1)
    projected = [
        block.attn.project(part, tuple(grid), num_prompts=0, num_cls=0)
        for part, grid in zip(parts, grids, strict=True)
    ]
    queries, keys, values = (torch.cat(each, dim=2) for each in zip(*projected, strict=True))
    attended = block.attn.attend(
        queries,
        keys,
        values,
        num_template_queries=sum(p[0].shape[2] for p in projected[:2]),
        num_template_keys=sum(p[1].shape[2] for p in projected[:2]),
    )
    assert_near(attended, golden["stage2.block0.attn_out"], FEATURES)
    assert_near(block.finish(x, attended), golden["stage2.block0.out"], FEATURES)
