"""Converted checkpoints give the detections of the released code, from pixels to boxes."""

from dataclasses import replace

import pytest
import torch

from stpn_kernels.testing import as_tensors, assert_golden, hash_fill, load_golden
from stpn_tasks.detection.checkpoint import load_detector, save_detector
from stpn_tasks.detection.released import convert_file, convert_released
from stpn_tasks.recipes import HeadRecipe, SelsaRecipe, swin_tiny_released

SIZE = (100, 132)
CLASSES = ("a", "b", "c", "d", "e")


@pytest.fixture(scope="module")
def small_recipe(released_layout):
    base = swin_tiny_released()
    return replace(
        base,
        backbone=replace(base.backbone, **released_layout.SMALL),
        head=HeadRecipe(fpn_channels=64, fc_dim=128),
    )


def numbers(arrays):
    return as_tensors({name: array for name, array in arrays.items() if array.dtype.kind != "U"})


def test_the_constructed_checkpoint_is_that_of_the_golden_runs(released_layout):
    state_dict = released_layout.released()
    swin = as_tensors(load_golden("swin/small_swin_weights.npz"), "")
    predictor = as_tensors(load_golden("swin/pipeline_small_100x132.npz"), "att.")
    manifest = load_golden("detector/det_S_weights_manifest.npz")
    head = {
        str(key).removeprefix("det.S9."): sum_
        for key, sum_ in zip(manifest["keys"], manifest["sums"], strict=True)
    }
    keys = [f"detector.backbone.{key}" for key in swin] + [f"detector.{key}" for key in head]
    keys += [f"prompt_predictor.{key}" for key in predictor]
    assert sorted(state_dict) == sorted(keys)
    for prefix, stored in (("detector.backbone.", swin), ("prompt_predictor.", predictor)):
        for key, value in stored.items():
            if value.is_floating_point():
                assert torch.equal(state_dict[prefix + key], value), key
    for key, total in head.items():
        assert state_dict[f"detector.{key}"].double().sum().item() == pytest.approx(total, rel=1e-9)


def test_official_key_lists_and_shapes(released_layout):
    layout = released_layout
    swin = load_golden("swin/swint_128x160.npz")
    head = load_golden("detector/det_F_weights_manifest.npz")
    predictor = as_tensors(load_golden("swin/predictor_swint_k2.npz"))
    for arrays, prefix, shapes in (
        (swin, "", layout.backbone_shapes(**layout.FULL)),
        (head, "det.F1.", layout.head_shapes(layout.widths(layout.FULL), **layout.FULL_HEAD)),
    ):
        stored = {
            str(key).removeprefix(prefix): str(shape)
            for key, shape in zip(arrays["keys"], arrays["shapes"], strict=True)
        }
        assert {key: str(list(shape)) for key, shape in shapes.items()} == stored
    for kind, short in (("attention", "att."), ("average", "avg.")):
        shapes = layout.predictor_shapes(kind, 5, 96, 768)
        stored = {
            key.removeprefix(short): tuple(value.shape)
            for key, value in predictor.items()
            if key.startswith(short) and not key.startswith("avg.topk")
        }
        assert shapes == stored


def assert_detections(found, expected):
    """Compare with rows x1, y1, x2, y2, score, label, best first within a class."""
    by_class = found.labels.argsort(stable=True)
    assert torch.equal(found.labels[by_class], expected[:, 5].long())
    torch.testing.assert_close(found.boxes_xyxy[by_class], expected[:, :4], atol=5e-3, rtol=0)
    torch.testing.assert_close(found.scores[by_class], expected[:, 4], atol=5e-5, rtol=0)


@torch.no_grad()
def test_a_converted_file_gives_the_golden_detections(released_layout, small_recipe, tmp_path):
    clip = as_tensors(load_golden("swin/pipeline_small_100x132.npz"))
    golden = as_tensors(load_golden("detector/stpn_e2e_small.npz"))
    path = released_layout.mmcv_file(tmp_path / "epoch_9_model.pth", released_layout.released())
    convert_file(path, tmp_path / "model.safetensors", small_recipe, CLASSES)
    saved = load_detector(tmp_path / "model.safetensors")
    assert (saved.recipe, saved.classes) == (small_recipe, CLASSES)
    encoder = saved.detector.encoder
    prompts = encoder.prompts(clip["ref_img"][None])  # once per video, as released
    torch.testing.assert_close(prompts[0][0], golden["prompt"], atol=1e-5, rtol=0)
    scale = golden["scale_factor"][[1, 0]].tolist()
    second = hash_fill("img.e2e.small.f1", (1, 3, *SIZE), 1.7320508)
    for number, frame in enumerate((clip["img"], second)):
        features = encoder.backbone(frame, prompts)
        (found,) = saved.detector.detect(features, [SIZE], [tuple(scale)])
        assert_detections(found, golden[f"frame{number}_dets"])


@torch.no_grad()
def test_the_official_sizes_give_the_golden_detections(released_layout):
    layout = released_layout
    golden = as_tensors(load_golden("detector/frcnn_F_128x160.npz"))
    swin = load_golden("swin/swint_128x160.npz")
    state_dict = layout.released(
        layout.FULL, layout.FULL_HEAD, prefixes=("swint.", "det.F1.", "e2e.att.")
    )
    classes = tuple(map(str, range(30)))
    detector, _ = convert_released(state_dict, swin_tiny_released(), classes)
    image, prompt = torch.from_numpy(swin["img"]), torch.from_numpy(swin["prompt"])
    features = detector.encoder.backbone(image, [prompt[None]])
    for stage, feature in enumerate(features):
        assert_golden(feature, swin[f"prompt_out{stage}"])
    (found,) = detector.detect(features, [(128, 160)], [(1.0, 1.0)])
    assert torch.equal(found.labels, golden["det_labels_0"].long())
    stored = golden["det_bboxes_0"]
    torch.testing.assert_close(found.boxes_xyxy, stored[:, :4], atol=5e-3, rtol=0)
    torch.testing.assert_close(found.scores, stored[:, 4], atol=5e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "short"), [("attention", "att"), ("average", "avg")])
def test_converted_predictors_give_the_golden_prompts(released_layout, small_recipe, kind, short):
    golden = as_tensors(load_golden("swin/predictor_tiny_k14.npz"))
    state_dict = released_layout.released(predictor=kind)
    for key in state_dict:
        if key.startswith("prompt_predictor."):
            state_dict[key] = golden[f"{short}.{key.removeprefix('prompt_predictor.')}"]
    recipe = replace(small_recipe, prompts=replace(small_recipe.prompts, predictor=kind))
    detector, _ = convert_released(state_dict, recipe, CLASSES)
    tokens = golden["ref_x"].flatten(2).transpose(1, 2)[None]  # (1, K, N, C)
    (prompts,) = detector.encoder.predictor(tokens, golden["ref_x"].shape[2:])
    assert_golden(prompts[0], golden[f"{short}_out"])


@torch.no_grad()
def test_a_converted_selsa_gives_the_golden_detections(released_layout, small_recipe, tmp_path):
    golden = numbers(load_golden("detector/selsa_roi_head_test.npz"))
    current = as_tensors(load_golden("swin/small_case_b_100x132.npz"))
    support = as_tensors(load_golden("swin/small_batch2_100x132.npz"))
    state_dict = released_layout.released(
        selsa=True, predictor="none", prefixes=("small.", "det.Q3.", "")
    )
    recipe = replace(
        small_recipe,
        prompts=replace(small_recipe.prompts, predictor="none"),
        detector="selsa",
        selsa=SelsaRecipe(num_heads=8),
    )
    detector, _ = convert_released(state_dict, recipe, CLASSES)
    save_detector(tmp_path / "model.safetensors", detector, recipe, CLASSES)
    detector = load_detector(tmp_path / "model.safetensors").detector
    backbone, sizes = detector.encoder.backbone, [SIZE, (93, 117)]
    references = detector.head.references(backbone(support["img"]), sizes)
    features = backbone(current["img"], [current["prompt"][None]])
    scale = golden["scale_factor"][[1, 0]].tolist()
    (found,) = detector.head.detect(features, [SIZE], [tuple(scale)], [references])
    assert torch.equal(found.labels, golden["det_labels"].long())
    stored = golden["det_bboxes"]
    torch.testing.assert_close(found.boxes_xyxy, stored[:, :4], atol=5e-3, rtol=0)
    torch.testing.assert_close(found.scores, stored[:, 4], atol=5e-5, rtol=0)
