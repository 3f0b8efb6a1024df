"""Checkpoints of the authors' layout become detectors: every key is used or named."""

from collections import OrderedDict
from dataclasses import replace

import pytest
import torch

from stpn_tasks.detection.released import convert_backbone, convert_file, convert_released
from stpn_tasks.load_report import load_lines, load_table
from stpn_tasks.recipes import (
    HeadRecipe,
    swin_tiny_released,
    swin_tiny_released_baseline,
)

CLASSES = ("a", "b", "c", "d", "e")
QUERY = "prompt_predictor.query"
SCORES = "detector.roi_head.bbox_head.fc_cls"


@pytest.fixture(scope="module")
def recipe(released_layout):
    """The released recipe, small."""
    base = swin_tiny_released()
    return replace(
        base,
        backbone=replace(base.backbone, **released_layout.SMALL),
        head=HeadRecipe(fpn_channels=64, fc_dim=128),
    )


@pytest.fixture(scope="module")
def checkpoint(released_layout):
    return released_layout.released()


def changed(recipe, **prompts):
    return replace(recipe, prompts=replace(recipe.prompts, **prompts))


def assert_all_is_told(report, state_dict, detector):
    """Each key of the checkpoint is loaded or left out, each of the detector loaded."""
    assert sorted([*report.loaded.values(), *report.unexpected]) == sorted(state_dict)
    assert set(report.loaded) == set(detector.state_dict())
    assert report.new == ()
    assert set(report.unexpected.values()) == {"a buffer, computed anew"}
    assert all(key.endswith("relative_position_index") for key in report.unexpected)


@pytest.mark.parametrize("outer", ["", "module."])
def test_every_key_is_used_or_named(recipe, checkpoint, outer):
    state_dict = OrderedDict((outer + key, value) for key, value in checkpoint.items())
    detector, report = convert_released(state_dict, recipe, CLASSES)
    assert_all_is_told(report, state_dict, detector)
    own = detector.state_dict()
    for name, key in report.loaded.items():
        if "downsample" in key:  # its channels change places
            assert torch.equal(own[name].sort(-1).values, state_dict[key].sort(-1).values), key
        else:
            assert torch.equal(own[name], state_dict[key]), key
    assert not detector.training


@pytest.mark.parametrize("predictor", ["none", "average"])
@pytest.mark.parametrize("detector", ["faster-rcnn", "selsa"])
def test_other_predictors_and_selsa_are_converted(released_layout, recipe, predictor, detector):
    state_dict = released_layout.released(predictor=predictor, selsa=detector == "selsa")
    other = replace(changed(recipe, predictor=predictor), detector=detector)
    built, report = convert_released(state_dict, other, CLASSES)
    assert_all_is_told(report, state_dict, built)
    if detector == "selsa":
        key = report.loaded["head.roi_head.aggregators.1.output.bias"]
        assert key == "detector.roi_head.bbox_head.aggregator.1.fc.bias"


def test_the_official_sizes_are_the_released_recipe(released_layout):
    state_dict = released_layout.released(released_layout.FULL, released_layout.FULL_HEAD)
    assert len(state_dict) == 230
    floats = [value for value in state_dict.values() if value.is_floating_point()]
    assert sum(value.numel() for value in floats) == 45_006_624
    detector, report = convert_released(
        state_dict, swin_tiny_released(), tuple(map(str, range(30)))
    )
    assert_all_is_told(report, state_dict, detector)
    assert len(report.loaded) == 218
    assert len(report.unexpected) == 12


def without(state_dict, key):
    return {k: value for k, value in state_dict.items() if k != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": 9}, r"query is \(9, 32\): 9 prompts; .* prompts.num_prompts is 5"),
        ({"classes": 3}, r"fc_cls.weight is \(4, 128\): 3 classes .* 5 names are given"),
        ({"deep": True}, "encoder.predictor.projection.* only in the model"),
        ({"predictor": "none"}, "has the predictor 'attention' .* is 'none'"),
        ({"detector": "selsa"}, "detector is 'faster-rcnn' by its keys .* recipe's is 'selsa'"),
        ({"prompt_merging": "repeat"}, "prompt_merging must be 'released', got 'repeat'"),
        ({"embed_dim": 64}, r"projection.weight: \(32, 3, 4, 4\) .*, \(64, 3, 4, 4\) in the model"),
    ],
    ids=str,
)
def test_what_the_recipe_says_otherwise_is_named(checkpoint, recipe, change, message):
    state_dict = dict(checkpoint)
    if "query" in change:
        state_dict[QUERY] = torch.zeros(change["query"], 32)
    elif "classes" in change:
        state_dict[f"{SCORES}.weight"] = torch.zeros(change["classes"] + 1, 128)
    elif change.keys() & {"deep", "predictor"}:
        recipe = changed(recipe, **change)
    elif "detector" in change:
        recipe = replace(recipe, **change)
    else:
        recipe = replace(recipe, backbone=replace(recipe.backbone, **change))
    with pytest.raises(ValueError, match=message):
        convert_released(state_dict, recipe, CLASSES)


@pytest.mark.parametrize(
    "key",
    [
        "detector.backbone.norm0.weight",
        "detector.backbone.stages.1.blocks.0.attn.w_msa.qkv.bias",
        "detector.neck.fpn_convs.3.conv.bias",
        "detector.rpn_head.rpn_reg.weight",
        f"{SCORES}.bias",
        "prompt_predictor.ref_fc.bias",
    ],
)
def test_a_missing_key_and_a_wrong_shape_are_named(checkpoint, recipe, key):
    _, report = convert_released(checkpoint, recipe, CLASSES)
    (own,) = (name for name, source in report.loaded.items() if source == key)
    own = own.removeprefix("encoder.backbone.")
    with pytest.raises(ValueError, match=f"1 keys do not fit:\n.*{own}: only in the model"):
        convert_released(without(checkpoint, key), recipe, CLASSES)
    wrong = {**checkpoint, key: torch.zeros(7)}
    with pytest.raises(ValueError, match=rf"{key}: \(7,\) in the checkpoint, \(.*\) in the model"):
        convert_released(wrong, recipe, CLASSES)


@pytest.mark.parametrize(
    "key",
    [
        "detector.roi_head.mask_head.conv_logits.bias",
        "prompt_predictor.norm.weight",
        "prompt_predictor.fc.weight_orig",
        "ema_detector.neck.bias",
        "detector.backbone.stages.4.blocks.0.norm1.weight",
    ],
)
def test_an_unknown_key_is_named(checkpoint, recipe, key):
    with pytest.raises(ValueError, match=key):
        convert_released({**checkpoint, key: torch.zeros(1)}, recipe, CLASSES)


@pytest.mark.parametrize("microsoft", [False, True])
def test_of_a_single_frame_detector_the_backbone_is_taken(released_layout, recipe, microsoft):
    state_dict = released_layout.mask_rcnn(microsoft=microsoft)
    backbone, report = convert_backbone(state_dict, recipe)
    assert sorted([*report.loaded.values(), *report.unexpected]) == sorted(state_dict)
    assert set(report.loaded) == set(backbone.state_dict())
    assert report.new == ()
    outside = {key for key, why in report.unexpected.items() if why == "outside the backbone"}
    assert outside == {key for key in state_dict if not key.startswith("backbone.")}
    assert "roi_head.mask_head.conv_logits.bias" in outside
    with pytest.raises(ValueError, match="of a single-frame checkpoint is read by"):
        convert_released(state_dict, recipe, CLASSES)


def test_the_report_counts_parts_and_names_the_rest(checkpoint, recipe, released_layout):
    _, report = convert_released(checkpoint, recipe, CLASSES)
    table = load_table(report)
    parts, loaded, new = (list(column.cells) for column in table.columns)
    expected = {
        "encoder.backbone": len(released_layout.backbone_shapes(**released_layout.SMALL)) - 8,
        "encoder.predictor": 11,
        "head.fpn": 16,
        "head.roi_head": 8,
        "head.rpn": 6,
    }
    expected["all"] = sum(expected.values())
    assert dict(zip(parts, map(int, loaded), strict=True)) == expected
    assert set(new) == {"0"}
    (line,) = load_lines(report)
    assert line.startswith("not used, a buffer, computed anew (8): detector.backbone.stages.0.")


def test_a_file_that_does_not_fit_is_named_and_nothing_is_written(
    released_layout, checkpoint, recipe, tmp_path
):
    path = released_layout.mmcv_file(tmp_path / "epoch_9.pth", without(checkpoint, QUERY))
    output = tmp_path / "out" / "model.safetensors"
    with pytest.raises(
        ValueError, match=r"epoch_9.pth: the checkpoint has the predictor 'average'"
    ):
        convert_file(path, output, recipe, CLASSES)
    assert not output.exists()
    with pytest.raises(ValueError, match=r"must be named \*.safetensors, got .*model.pth"):
        convert_file(path, output.with_suffix(".pth"), recipe, CLASSES)


def test_the_released_baseline_differs_in_its_prompts_alone():
    recipe, baseline = swin_tiny_released(), swin_tiny_released_baseline()
    assert recipe.backbone.weights is not None
    assert baseline.prompts.predictor == "none"
    assert replace(baseline, prompts=recipe.prompts) == recipe
