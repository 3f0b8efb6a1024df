"""Weights of MixFormer: every key of the authors' checkpoints is used or named."""

import json
import logging
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

from stpn_backbones import HubWeightsError, create_backbone, load_cvt_weights
from stpn_core import TransformerPredictor
from stpn_kernels.testing import shared_path
from stpn_tasks.tracking.build import build_network
from stpn_tasks.tracking.mixformer import create_mixformer
from stpn_tasks.tracking.recipes import stpn_22k
from stpn_tasks.tracking.weights import initialise_backbone, load_mixformer_weights, own_name

TINY = {"dims": (16, 24, 32), "depths": (1, 1, 2), "num_heads": (1, 2, 4), "head_channels": 16}
COUNTER = "a counter, which frozen batch norms do not have"
CLASSIFIER = "the classifier of images"
NORM = "an output norm, which the network does without"


def shapes_of(file, model):
    lists = json.loads(shared_path(f"golden/mixformer/{file}.json").read_text())
    return {key: tuple(shape) for key, shape in lists[model].items()}


def without_memory(shapes):
    """A large checkpoint has 200 million weights."""
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def unloaded(name, **options):
    with torch.device("meta"):
        return create_mixformer(name, **options)


def tiny(**options):
    return create_mixformer("small", **TINY, **options)


def authors_name(key):
    """Name one of our keys as the authors do; the inverse of `own_name`."""
    part, _, rest = key.partition(".")
    names = rest.split(".")
    if part == "box_head":
        side = {"top_left": "tl", "bottom_right": "br"}[names[0]]
        layer, index = divmod(int(names[1]), 3)
        inner = f"{index}." if layer < 4 else ""
        return f"box_head.conv{layer + 1}_{side}.{inner}{names[2]}"
    if part == "score_head":
        if names[0] == "token":
            return "score_branch.score_token"
        if names[0] == "token_norm":
            return f"score_branch.norm1.{names[1]}"
        if names[0] == "mlp":
            return f"score_branch.score_head.layers.{int(names[1]) // 2}.{names[2]}"
        place = {"query": "proj_q", "key": "proj_k", "value": "proj_v", "output": "proj"}
        return f"score_branch.{place.get(names[2], 'norm2')}.{names[1]}.{names[3]}"
    return key


def authors_checkpoint(network):
    weights = OrderedDict(
        (authors_name(key), value)
        for key, value in network.state_dict().items()
        if not key.startswith("predictor.")
    )
    dim = network.backbone.embed_dim
    weights["backbone.norm.weight"] = torch.ones(dim)
    weights["backbone.head.weight"] = torch.ones(1000, dim)
    return weights


@pytest.mark.parametrize(("size", "model"), [("cvt_21", "baseline"), ("cvt_w24", "baseline_large")])
@pytest.mark.parametrize("stage", ["mixformer_cvt", "mixformer_cvt_online"])
@pytest.mark.parametrize("frozen_head", [True, False])
@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
def test_every_key_of_the_released_networks_is_a_weight_of_ours(size, model, stage, frozen_head):
    shapes = shapes_of("keys_mixformer", f"{stage}/{model}")
    is_online = stage.endswith("online")
    network = unloaded(size, score=is_online, frozen_head_batch_norm=frozen_head)
    report = load_mixformer_weights(network, without_memory(shapes))
    counters = {key for key in shapes if key.endswith("num_batches_tracked")}
    assert len(counters) == (0 if is_online else 8)
    expected = {f"backbone.norm.{p}": NORM for p in ("weight", "bias")}
    expected |= {f"backbone.head.{p}": CLASSIFIER for p in ("weight", "bias")}
    if frozen_head:
        expected |= dict.fromkeys(counters, COUNTER)
    assert report.unexpected == expected
    assert set(report.loaded.values()) | set(expected) == set(shapes)
    lacks_counters = is_online and not frozen_head
    assert len(report.new) == (8 if lacks_counters else 0)
    assert set(report.loaded) | set(report.new) == set(network.state_dict())


def test_names_are_one_to_one_and_own_names_stay():
    keys = [key for key in tiny().state_dict() if key.startswith(("box_head.", "score_head."))]
    assert len(keys) > 60
    for key in keys:
        assert authors_name(key) != key
        assert own_name(authors_name(key)) == key
        assert own_name(key) == key


class Settings:
    """As the authors' trainer keeps beside the weights."""

    def __init__(self):
        self.script_name = "mixformer_cvt"


def test_a_checkpoint_of_the_trainer_is_read_from_its_entry_net(tmp_path):
    trained, network = tiny(), tiny()
    path = tmp_path / "MixFormer_ep0300.pth.tar"
    checkpoint = {
        "epoch": 300,
        "net": authors_checkpoint(trained),
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]},
        "settings": Settings(),
        "stats": OrderedDict(train=OrderedDict(loss=Settings())),
    }
    torch.save(checkpoint, path)
    report = load_mixformer_weights(network, path)
    assert report.new == ()
    assert report.loaded["box_head.top_left.0.weight"] == "box_head.conv1_tl.0.weight"
    for key, value in trained.state_dict().items():
        assert torch.equal(network.state_dict()[key], value), key


def test_own_weights_come_back_from_a_file(tmp_path):
    trained, network = (tiny(predictor=TransformerPredictor, prompt_gate=-3.0) for _ in range(2))
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    report = load_mixformer_weights(network, tmp_path / "model.safetensors")
    assert (report.new, report.unexpected) == ((), {})
    assert all(
        torch.equal(value, network.state_dict()[key]) for key, value in trained.state_dict().items()
    )
    plain = tiny(score=False)
    report = load_mixformer_weights(plain, trained.state_dict())
    assert set(report.unexpected.values()) == {
        "the score_head, which the network does without",
        "the predictor, which the network does without",
    }


def test_the_second_stage_announces_its_score_head_and_stpn_its_predictor(caplog):
    first_stage = authors_checkpoint(tiny(score=False))
    network = tiny(predictor=TransformerPredictor, prompt_gate=-3.0)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for announced, missing in (((), "score_head"), (("score_head",), "predictor")):
        with pytest.raises(ValueError, match=rf'has no {missing}.*new=\("{missing}",\)'):
            load_mixformer_weights(network, first_stage, new=announced)
        assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    with caplog.at_level(logging.WARNING):
        report = load_mixformer_weights(network, first_stage, new=("score_head", "predictor"))
    assert {key.partition(".")[0] for key in report.new} == {
        *("score_head", "predictor", "prompt_gates")
    }
    assert ": prompt_gates, score_head.token, score_head.token_norm.weight" in caplog.text
    assert "not used, the classifier of images (1): backbone.head.weight" in caplog.text
    with pytest.raises(ValueError, match="has a score_head, which was expected to be new"):
        load_mixformer_weights(network, authors_checkpoint(tiny()), new=("score_head", "predictor"))
    with pytest.raises(ValueError, match="can be new to a checkpoint, not {'backbone'}"):
        load_mixformer_weights(network, first_stage, new=("backbone",))


def test_a_checkpoint_of_another_network_is_named_and_nothing_is_loaded(tmp_path):
    network = tiny()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    checkpoint = authors_checkpoint(tiny())
    checkpoint["box_head.conv5_tl.weight"] = torch.zeros(1, 3, 1, 1)
    checkpoint["score_branch.extra.weight"] = torch.zeros(1)
    del checkpoint["backbone.stage0.patch_embed.proj.bias"]
    torch.save({"net": checkpoint}, tmp_path / "other.pth.tar")
    with pytest.raises(ValueError, match=r"(?s)other\.pth\.tar: .*3 keys do not fit") as refusal:
        load_mixformer_weights(network, tmp_path / "other.pth.tar")
    for problem in (
        "box_head.conv5_tl.weight: (1, 3, 1, 1) in the checkpoint, (1, 2, 1, 1) in the model",
        "score_branch.extra.weight: only in the checkpoint",
        "backbone.stage0.patch_embed.proj.bias: only in the model",
    ):
        assert problem in str(refusal.value)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("size", "cvt", "num_loaded"), [("cvt_21", "cvt21", 663), ("cvt_w24", "cvtw24", 508)]
)
def test_a_trained_cvt_becomes_the_backbone(size, cvt, num_loaded):
    shapes = shapes_of("keys_cvt", f"microsoft/{cvt}")
    network = unloaded(size)
    report = load_cvt_weights(network.backbone, without_memory(shapes), truncate=True)
    assert set(report.loaded) == set(network.backbone.state_dict())
    assert len(report.loaded) == num_loaded
    assert report.new == ()
    reasons = set(report.unexpected.values())
    assert "the class token, which the model does without" in reasons
    assert ("a block beyond the model's depth" in reasons) == (size == "cvt_w24")
    if size == "cvt_w24":
        beyond = [k for k, why in report.unexpected.items() if "depth" in why]
        assert {key.split(".")[2] for key in beyond} == {str(i) for i in range(12, 20)}


def test_a_file_of_a_cvt_initialises_the_backbone(tmp_path, caplog):
    cvt = create_backbone(
        "cvt_13",
        dims=TINY["dims"],
        depths=(1, 1, 3),
        num_heads=TINY["num_heads"],
        classification=True,
    )
    save_file(cvt.state_dict(), tmp_path / "cvt.safetensors")
    network = tiny()
    with caplog.at_level(logging.WARNING):
        initialise_backbone(network, tmp_path / "cvt.safetensors")
    weights = cvt.state_dict()
    for key, value in network.backbone.state_dict().items():
        assert torch.equal(value, weights[key]), key
    assert "the class token, which the model does without (1): stage2.cls_token" in caplog.text
    with pytest.raises(ValueError, match="backbone 'cvt_22'"):
        initialise_backbone(network, "cvt_22")


def test_weights_that_the_hub_does_not_give_are_asked_for_as_the_option_is_called(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubWeightsError) as refused:
        build_network(stpn_22k(), score=False)
    message = str(refused.value)
    assert message.startswith("no weights of microsoft/cvt-21-384-22k in the local cache")
    assert "give the file as --network.cvt FILE instead of cvt_21.384_22k: " in message
    assert "weights=" not in message
