import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from stpn_backbones import HubWeightsError, create_backbone, supported_backbones
from stpn_backbones.cvt import PromptedCvt
from stpn_backbones.cvt_weights import load_cvt_weights, microsoft_name
from stpn_kernels.testing import shared_path

TINY: dict[str, Any] = {"dims": (16, 32, 48), "depths": (1, 2, 3), "num_heads": (1, 2, 4)}
COUNTER = "a counter, which frozen batch norms do not have"
CLASSIFIER = "the classifier of images"


def shapes_of(file: str, model: str) -> dict[str, tuple[int, ...]]:
    lists = json.loads(shared_path(f"golden/mixformer/{file}.json").read_text())
    return {key: tuple(shape) for key, shape in lists[model].items()}


def checkpoint(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights without memory: a full-size checkpoint has 270 million."""
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def unloaded(name: str, **options: Any) -> PromptedCvt:
    with torch.device("meta"):
        return create_backbone(name, **options)


# --- The key lists of the full-size models ---------------------------------------------------


def test_the_hubs_keys_are_microsofts_one_to_one() -> None:
    hub = shapes_of("keys_cvt", "hf/cvt21")
    microsoft = shapes_of("keys_cvt", "microsoft/cvt21")
    names = {key: microsoft_name(key) for key in hub}
    assert len(names) == len(set(names.values())) == 731
    assert set(names.values()) == set(microsoft)
    for key, shape in hub.items():
        if not key.startswith("classifier."):  # of two classes in that list
            assert microsoft[names[key]] == shape
    # Without its classifier, transformers' model has no prefix.
    assert {microsoft_name(key.removeprefix("cvt.")) for key in hub} == set(microsoft)


@pytest.mark.parametrize("size", ["13", "21", "w24"])
@pytest.mark.parametrize("frozen", [True, False])
def test_every_key_of_microsofts_classifiers_is_a_weight_of_the_model(
    size: str, frozen: bool
) -> None:
    shapes = shapes_of("keys_cvt", f"microsoft/cvt{size}")
    model = unloaded(f"cvt_{size}", classification=True, frozen_batch_norm=frozen)
    report = load_cvt_weights(model, checkpoint(shapes))
    assert all(own == key for own, key in report.loaded.items())
    assert set(report.loaded) | set(report.unexpected) == set(shapes)
    assert set(report.unexpected.values()) == {CLASSIFIER, *([COUNTER] if frozen else [])}
    assert all(key.startswith("output_norms.") for key in report.new)
    assert set(report.loaded) | set(report.new) == set(model.state_dict())


def test_every_key_of_the_hub_is_a_weight_of_the_model() -> None:
    shapes = shapes_of("keys_cvt", "hf/cvt21")
    model = unloaded("cvt_21", classification=True, frozen_batch_norm=False)
    report = load_cvt_weights(model, checkpoint(shapes))
    assert report.unexpected == {"classifier.weight": CLASSIFIER, "classifier.bias": CLASSIFIER}
    assert set(report.loaded.values()) == set(shapes) - set(report.unexpected)
    assert report.loaded["norm.weight"] == "layernorm.weight"


@pytest.mark.parametrize("kind", ["mixformer_cvt", "mixformer_cvt_online"])
@pytest.mark.parametrize("size", ["baseline", "baseline_large"])
def test_the_backbone_of_a_tracker_is_found_in_its_checkpoint(kind: str, size: str) -> None:
    shapes = shapes_of("keys_mixformer", f"{kind}/{size}")
    model = (
        unloaded("cvt_w24", depths=(2, 2, 12)) if size == "baseline_large" else unloaded("cvt_21")
    )
    report = load_cvt_weights(model, checkpoint(shapes))
    assert all(key == f"backbone.{own}" for own, key in report.loaded.items())
    inside = {key for key, reason in report.unexpected.items() if reason == CLASSIFIER}
    assert inside == {"backbone.head.weight", "backbone.head.bias"}
    outside = {key for key in shapes if not key.startswith("backbone.")}
    assert outside == {k for k, reason in report.unexpected.items() if "outside" in reason}
    assert len(report.loaded) == len(shapes) - len(outside) - 2


def test_a_shorter_model_takes_the_first_blocks_if_asked() -> None:
    weights = checkpoint(shapes_of("keys_cvt", "microsoft/cvtw24"))
    model = unloaded("cvt_w24", depths=(2, 2, 12))
    with pytest.raises(ValueError, match="stage2.blocks.12.norm1.weight: only in the checkpoint"):
        load_cvt_weights(model, weights)
    report = load_cvt_weights(model, weights, truncate=True)
    beyond = [k for k, reason in report.unexpected.items() if "beyond" in reason]
    assert {int(re.match(r"stage2\.blocks\.(\d+)\.", key)[1]) for key in beyond} == set(
        range(12, 20)
    )
    assert report.unexpected["stage2.cls_token"] == "the class token, which the model does without"
    counters = [key for key in beyond if key.endswith("num_batches_tracked")]
    assert len(beyond) - len(counters) + 1 == 249  # with the class token


# --- Loading ---------------------------------------------------------------------------------


def hub_names(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name Microsoft's weights as transformers does, written down the other way round."""
    words = {"q": "query", "k": "key", "v": "value"}
    renamed = {}
    for key, value in state_dict.items():
        key = re.sub(r"^stage(\d)", r"cvt.encoder.stages.\1", key)
        key = re.sub(r"^norm\.", "layernorm.", key)
        key = key.replace("patch_embed.proj.", "embedding.convolution_embeddings.projection.")
        key = key.replace("patch_embed.norm.", "embedding.convolution_embeddings.normalization.")
        key = key.replace("mlp.fc1", "intermediate.dense").replace("mlp.fc2", "output.dense")
        key = key.replace("norm1", "layernorm_before").replace("norm2", "layernorm_after")
        key = key.replace(".blocks.", ".layers.").replace("attn.proj.", "attention.output.dense.")
        for letter, word in words.items():
            conv = f"attention.attention.convolution_projection_{word}.convolution_projection."
            key = key.replace(f"attn.conv_proj_{letter}.conv.", conv + "convolution.")
            key = key.replace(f"attn.conv_proj_{letter}.bn.", conv + "normalization.")
            key = key.replace(f"attn.proj_{letter}.", f"attention.attention.projection_{word}.")
        renamed[key] = value
    return renamed


@pytest.fixture
def source() -> PromptedCvt:
    torch.manual_seed(0)
    model = PromptedCvt(**TINY, cls_token=True, frozen_batch_norm=False)
    for value in model.state_dict().values():
        value.copy_(torch.rand(value.shape) * 9)
    return model


def published(source: PromptedCvt) -> dict[str, Tensor]:
    return {k: v for k, v in source.state_dict().items() if not k.startswith("output_norms.")}


def assert_same(model: PromptedCvt, source: PromptedCvt) -> None:
    values = source.state_dict()
    for key, value in model.state_dict().items():
        if not key.startswith("output_norms."):
            assert torch.equal(value, values[key]), key


@pytest.mark.parametrize("prefix", ["", "backbone.", "module."])
def test_weights_below_a_prefix_are_loaded(source: PromptedCvt, prefix: str) -> None:
    weights = {prefix + key: value for key, value in source.state_dict().items()}
    model = PromptedCvt(**TINY, cls_token=True, frozen_batch_norm=False)
    report = load_cvt_weights(model, weights)
    assert report.new == ()
    assert report.unexpected == {}
    assert all(map(torch.equal, model.state_dict().values(), source.state_dict().values()))


@torch.no_grad()
def test_hub_weights_give_the_same_features_by_either_batch_norm(source: PromptedCvt) -> None:
    weights = hub_names(published(source))
    assert not set(weights) & set(source.state_dict())
    for frozen in (True, False):
        model = PromptedCvt(**TINY, cls_token=True, frozen_batch_norm=frozen).eval()
        report = load_cvt_weights(model, weights)
        assert len(report.loaded) + len(report.unexpected) == len(weights)
        assert_same(model, source)


def test_counters_that_a_frozen_checkpoint_lacks_are_new(source: PromptedCvt) -> None:
    weights = {k: v for k, v in published(source).items() if "num_batches" not in k}
    model = PromptedCvt(**TINY, cls_token=True, frozen_batch_norm=False)
    report = load_cvt_weights(model, weights)
    counters = [key for key in report.new if key.endswith("num_batches_tracked")]
    assert len(counters) == 6 * 3
    assert len(report.new) - len(counters) == 4  # two output norms


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": (16, 32, 64)}, r"stage2.patch_embed.proj.weight: \(48, .*, \(64, "),
        ({"depths": (1, 2, 4)}, "stage2.blocks.3.mlp.fc2.bias: only in the model"),
        ({"depths": (1, 1, 3)}, "stage1.blocks.1.mlp.fc2.bias: only in the checkpoint"),
    ],
)
def test_weights_of_another_model_are_refused_and_nothing_is_loaded(
    source: PromptedCvt, options: dict[str, Any], message: str
) -> None:
    model = PromptedCvt(**{**TINY, **options})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_cvt_weights(model, published(source))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_classifier_needs_a_class_token(source: PromptedCvt) -> None:
    weights = {k: v for k, v in published(source).items() if k != "stage2.cls_token"}
    with pytest.raises(ValueError, match="stage2.cls_token: only in the model"):
        load_cvt_weights(PromptedCvt(**TINY, cls_token=True), weights)


def test_a_checkpoint_without_a_cvt_with_two_or_with_one_weight_twice_is_refused(
    source: PromptedCvt,
) -> None:
    model = PromptedCvt(**TINY)
    with pytest.raises(ValueError, match="found 0: .*conv1.weight"):
        load_cvt_weights(model, {"conv1.weight": torch.zeros(1)})
    both = {p + k: v for p in ("model.", "ema.") for k, v in published(source).items()}
    with pytest.raises(ValueError, match=r"found 2: model\., ema\."):
        load_cvt_weights(model, both)
    load_cvt_weights(model, both, prefix="ema.")
    assert_same(model, source)
    twice = {**published(source), "layernorm.weight": torch.zeros(48)}
    with pytest.raises(ValueError, match=r"one weight: norm.weight and layernorm.weight"):
        load_cvt_weights(model, twice)


# --- create_backbone -------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_cvt_is_created_with_the_weights_of_a_file(
    tmp_path: Path, source: PromptedCvt, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    path = tmp_path / f"cvt.{suffix}"
    weights = hub_names(published(source))
    if suffix == "pth":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    with caplog.at_level(logging.INFO, "stpn_backbones"):
        model = create_backbone("cvt_13", weights=path, classification=True, **TINY)
    assert_same(model, source)
    assert "new: output_norms.0.weight" in caplog.text


def test_sizes_are_those_of_the_paper() -> None:
    # Millions of parameters with a classifier of 1000 classes: 20, 32 and 277 (CvT, Table 3).
    for name, millions in (("cvt_13", 20.0), ("cvt_21", 31.6), ("cvt_w24", 277.2)):
        assert name in supported_backbones()
        model = unloaded(name, classification=True, frozen_batch_norm=False)
        classifier = 1000 * (model.embed_dim + 1)
        norms = sum(p.numel() for p in model.output_norms.parameters())
        total = sum(p.numel() for p in model.parameters()) + classifier - norms
        assert total / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "cvt_13.512"}, "no CvT 'cvt_13.512'; supported: cvt_13, cvt_13.384"),
        ({"name": "cvt_34"}, "no promptable backbone 'cvt_34'; supported: .*cvt_21"),
        ({"name": "cvt_13", "pretrained": True, "weights": "a"}, "choose one: .* weights='a'"),
        ({"name": "cvt_13", "prompt_merging": "released"}, "prompt_merging is an option of Swins"),
        ({"name": "cvt_13", "attention_backend": "triton"}, "attention_backend is an option of"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_backbone(**arguments)


# --- The hub ---------------------------------------------------------------------------------


@pytest.fixture
def hub_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of CvT-21's files in an empty cache of the hub, without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = tmp_path / "models--microsoft--cvt-21-384-22k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    return snapshot


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_weights_come_from_the_hubs_cache(hub_folder: Path, source: PromptedCvt, file: str) -> None:
    weights = hub_names(published(source))
    if file == "pytorch_model.bin":
        torch.save(weights, hub_folder / file)
    else:
        save_file(weights, hub_folder / file)
    assert_same(create_backbone("cvt_21.384_22k", pretrained=True, **TINY), source)


@pytest.mark.usefixtures("hub_folder")
def test_weights_that_are_not_to_be_had_are_missed_in_words() -> None:
    message = "no weights of microsoft/cvt-21-384-22k in the local cache .* weights="
    with pytest.raises(HubWeightsError, match=message) as refused:
        create_backbone("cvt_21.384_22k", pretrained=True, **TINY)
    assert isinstance(refused.value, OSError)  # as timm's are
    assert refused.value.repository == "microsoft/cvt-21-384-22k"
