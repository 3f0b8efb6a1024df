import pickle
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
    read_state_dict,
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
    assert report.unexpected == ("head.fc.weight", "head.fc.bias")
    for key, value in model.swin.state_dict().items():
        assert torch.equal(value, classifier.state_dict()[key])
    assert torch.equal(model.output_norms[0].weight, torch.ones(16))


def test_the_rest_of_a_detector_is_named(source: PromptedSwin) -> None:
    state_dict = {f"detector.backbone.{key}": value for key, value in mmdet(source).items()}
    state_dict["prompt_predictor.query"] = torch.zeros(5, 16)
    report = load_weights(create_backbone(NAME, **TINY), state_dict)
    assert "prompt_predictor.query" in report.unexpected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embed_dim": 32}, r"patch_embed.proj.weight: \(16, 3, 4, 4\) .*, \(32, 3, 4, 4\) in"),
        ({"depths": (2, 2, 4)}, "swin.layers.2.blocks.3.mlp.fc2.bias: only in the model"),
        ({"depths": (2, 1, 2)}, "swin.layers.1.blocks.1.mlp.fc2.bias: only in the checkpoint"),
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


def test_files_without_a_state_dict_or_with_code_are_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="list.pth: expected a state dict"):
        read_state_dict(tmp_path / "list.pth")
    torch.save({"a": Path("a")}, tmp_path / "code.pth")
    with pytest.raises(pickle.UnpicklingError):
        read_state_dict(tmp_path / "code.pth")


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
