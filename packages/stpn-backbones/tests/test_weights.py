import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from stpn_backbones import (
    PromptedSwin,
    convert_swin,
    create_backbone,
    load_weights,
)

NAME = "swin_tiny_patch4_window7_224"
TINY = {"embed_dim": 16, "depths": (2, 2, 2), "num_heads": (1, 2, 4)}


@pytest.fixture
def source() -> PromptedSwin:
    model = create_backbone(NAME, **TINY)
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter)
    return model


def microsoft(source: PromptedSwin) -> dict[str, Tensor]:
    """Name the weights as Microsoft's detection code does: merging ends a stage."""
    state_dict = {}
    for key, value in source.state_dict().items():
        key = key.removeprefix("swin.").replace("output_norms.", "norm")
        key = re.sub(r"^norm\.", "norm2.", key)
        key = re.sub(r"layers\.(\d)\.down", lambda m: f"layers.{int(m[1]) - 1}.down", key)
        state_dict[key] = value
        if key.endswith("bias_table"):
            index = key.replace("bias_table", "index")
            state_dict[index] = torch.zeros(49, 49, dtype=torch.int64)
    return state_dict


def mmdet(source: PromptedSwin) -> dict[str, Tensor]:
    """Name the weights as mmdet and the released code do, channels of merging first."""
    state_dict = {}
    for key, value in microsoft(source).items():
        if "downsample" in key:
            width = value.shape[-1] // 4
            channels = torch.arange(width)
            layout = torch.empty_like(value)
            for place, (row, column) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
                part = value[..., place * width : (place + 1) * width]
                layout[..., 4 * channels + 2 * row + column] = part
            value = layout
        key = key.replace("patch_embed.proj", "patch_embed.projection")
        key = key.replace("layers.", "stages.").replace("mlp.fc1", "ffn.layers.0.0")
        state_dict[key.replace("mlp.fc2", "ffn.layers.1").replace(".attn.", ".attn.w_msa.")] = value
    return state_dict


def own(source: PromptedSwin) -> dict[str, Tensor]:
    return source.state_dict()


def assert_same(model: PromptedSwin, source: PromptedSwin) -> None:
    assert model.state_dict().keys() == source.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(value, source.state_dict()[key]), key


@pytest.mark.parametrize("names", [own, microsoft, mmdet])
@pytest.mark.parametrize("prefix", ["", "detector.backbone.", "module."])
def test_weights_of_any_names_are_loaded(source: PromptedSwin, names, prefix: str) -> None:
    state_dict = {prefix + key: value for key, value in names(source).items()}
    model = create_backbone(NAME, **TINY)
    report = load_weights(model, state_dict)
    assert_same(model, source)
    assert set(report.loaded) == set(source.state_dict())
    assert report.new == ()
    # Each key of the checkpoint is accounted for.
    assert all(key.endswith("relative_position_index") for key in report.unexpected)
    assert len(report.unexpected) + len(report.loaded) == len(state_dict)


def test_an_image_classifier_leaves_output_norms_new_and_its_head_unused() -> None:
    classifier = timm.create_model(NAME, **TINY)
    model = create_backbone(NAME, **TINY)
    report = load_weights(model, classifier.state_dict())
    assert report.new == tuple(f"output_norms.{s}.{p}" for s in (0, 1) for p in ("weight", "bias"))
    assert list(report.unexpected) == ["head.fc.weight", "head.fc.bias"]
    for key, value in model.swin.state_dict().items():
        assert torch.equal(value, classifier.state_dict()[key])
    assert torch.equal(model.output_norms[0].weight, torch.ones(16))


# What stands beside the backbone in mmdet's Mask R-CNN, and the authors' predictor.
BESIDE = (
    *(f"neck.{kind}_convs.{i}.conv" for kind in ("lateral", "fpn") for i in range(4)),
    *(f"rpn_head.rpn_{part}" for part in ("conv", "cls", "reg")),
    *(
        f"roi_head.bbox_head.{part}"
        for part in ("shared_fcs.0", "shared_fcs.1", "fc_cls", "fc_reg")
    ),
    *(f"roi_head.mask_head.convs.{i}.conv" for i in range(4)),
    "roi_head.mask_head.upsample",
    "roi_head.mask_head.conv_logits",
)


@pytest.mark.parametrize("names", [microsoft, mmdet])
def test_of_a_coco_detector_the_backbone_is_used_and_all_else_is_named(
    source: PromptedSwin, names
) -> None:
    state_dict = {f"backbone.{key}": value for key, value in names(source).items()}
    beside = {f"{layer}.{part}": torch.zeros(1) for layer in BESIDE for part in ("weight", "bias")}
    model = create_backbone(NAME, **TINY)
    report = load_weights(model, {**beside, **state_dict})
    assert_same(model, source)
    assert report.loaded.keys() == source.state_dict().keys()
    assert report.new == ()
    outside = [key for key, why in report.unexpected.items() if why == "outside the backbone"]
    assert outside == list(beside)
    used = [*report.loaded.values(), *report.unexpected]
    assert sorted(used) == sorted([*state_dict, *beside])


def test_microsofts_image_classifier_is_read_without_masks_and_head(source: PromptedSwin) -> None:
    state_dict = microsoft(source)
    for stage in (0, 1):
        for part in ("weight", "bias"):
            del state_dict[f"norm{stage}.{part}"]
    for part in ("weight", "bias"):
        state_dict[f"norm.{part}"] = state_dict.pop(f"norm2.{part}")
        state_dict[f"head.{part}"] = torch.zeros(1)
    state_dict["layers.0.blocks.1.attn_mask"] = torch.zeros(1)
    model = create_backbone(NAME, **TINY)
    report = load_weights(model, state_dict)
    assert report.new == tuple(f"output_norms.{s}.{p}" for s in (0, 1) for p in ("weight", "bias"))
    assert sorted([*report.loaded.values(), *report.unexpected]) == sorted(state_dict)
    assert report.unexpected["head.bias"] == "the classifier of images"
    assert report.unexpected["layers.0.blocks.1.attn_mask"] == "a buffer, computed anew"
    for key, value in source.state_dict().items():
        if key not in report.new:
            assert torch.equal(model.state_dict()[key], value), key


def test_the_report_tells_where_each_weight_came_from(source: PromptedSwin) -> None:
    state_dict = {f"backbone.{key}": value for key, value in mmdet(source).items()}
    report = load_weights(create_backbone(NAME, **TINY), state_dict)
    assert report.loaded["swin.layers.1.downsample.reduction.weight"] == (
        "backbone.stages.0.downsample.reduction.weight"
    )
    assert report.loaded["swin.norm.bias"] == "backbone.norm2.bias"


def test_two_keys_of_one_weight_are_named(source: PromptedSwin) -> None:
    state_dict = microsoft(source)
    state_dict["stages.0.blocks.0.norm1.bias"] = torch.zeros(16)
    with pytest.raises(
        ValueError, match=r"layers.0.blocks.0.norm1.bias and stages.0.blocks.0.norm1.bias"
    ):
        load_weights(create_backbone(NAME, **TINY), state_dict)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embed_dim": 32}, r"projection.weight: \(16, 3, 4, 4\) .*, \(32, 3, 4, 4\) in"),
        ({"depths": (2, 2, 4)}, "swin.layers.2.blocks.3.mlp.fc2.bias: only in the model"),
        ({"depths": (2, 1, 2)}, "\nstages.1.blocks.1.ffn.layers.1.bias: only in the checkpoint"),
        ({"window_size": 5}, r"relative_position_bias_table: \(169, 1\) .*, \(81, 1\) in"),
    ],
)
def test_weights_of_another_model_are_refused_and_nothing_is_loaded(
    source: PromptedSwin, options: dict, message: str
) -> None:
    model = create_backbone(NAME, **{**TINY, **options})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_weights(model, mmdet(source))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_checkpoint_without_a_swin_or_with_two_is_refused(source: PromptedSwin) -> None:
    model = create_backbone(NAME, **TINY)
    with pytest.raises(ValueError, match="found 0: .*conv1.weight"):
        load_weights(model, {"conv1.weight": torch.zeros(1)})
    both = {prefix + k: v for prefix in ("model.", "ema.") for k, v in own(source).items()}
    with pytest.raises(ValueError, match=r"found 2: model\., ema\."):
        load_weights(model, both)
    assert len(load_weights(model, both, prefix="ema.").unexpected) == len(own(source))
    assert_same(model, source)


@pytest.mark.parametrize("entry", [None, "state_dict", "model"])
def test_files_are_read(tmp_path: Path, source: PromptedSwin, entry: str | None) -> None:
    state_dict = source.state_dict()
    torch.save(
        {entry: state_dict, "meta": {"epoch": 9}} if entry else state_dict, tmp_path / "a.pth"
    )
    save_file(state_dict, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        model = create_backbone(NAME, **TINY)
        load_weights(model, tmp_path / name)
        assert_same(model, source)


def test_merging_channels_of_mmdet_are_regrouped_by_place() -> None:
    # Two channels, places (row, column); the number says channel, row, column.
    mmdet_order = torch.tensor([0.0, 1, 10, 11, 100, 101, 110, 111])
    converted = convert_swin(
        {
            "patch_embed.projection.weight": torch.zeros(1),
            "stages.0.downsample.norm.weight": mmdet_order,
            "stages.1.blocks.0.norm1.weight": torch.zeros(1),
        }
    )
    expected = [0, 100, 10, 110, 1, 101, 11, 111]
    assert converted["swin.layers.1.downsample.norm.weight"].tolist() == expected
