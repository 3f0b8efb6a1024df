"""Published Mask2Former and MinVIS weights: every key of a Swin checkpoint is used or named."""

import logging
import pickle
import re
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from stpn_backbones import PromptedCvt, create_backbone
from stpn_core import TransformerPredictor, VideoEncoder
from stpn_tasks.load_report import load_table
from stpn_tasks.segmentation.detectron2_file import read_detectron2
from stpn_tasks.segmentation.head import Mask2FormerHead
from stpn_tasks.segmentation.segmenter import MinVIS
from stpn_tasks.segmentation.weights import load_mask2former_weights, own_name

SMALL = {
    "num_queries": 6,
    "dim": 32,
    "mask_dim": 16,
    "num_heads": 4,
    "encoder_layers": 2,
    "encoder_ffn_dim": 24,
    "decoder_layers": 3,
    "decoder_ffn_dim": 40,
}
LEFT_OUT = "weights of classes in the loss, an option here"


def swin_keys(dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), window=7):
    """Return the shapes of detectron2's Swin in Mask2Former, by its keys."""
    shapes = {"patch_embed.proj.weight": (dim, 3, 4, 4), "patch_embed.proj.bias": (dim,)}
    norms = {"patch_embed.norm": dim}
    for stage, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
        width = dim * 2**stage
        norms[f"norm{stage}"] = width
        for block in range(depth):
            prefix = f"layers.{stage}.blocks.{block}"
            norms |= {f"{prefix}.norm1": width, f"{prefix}.norm2": width}
            table = ((2 * window - 1) ** 2, heads)
            shapes[f"{prefix}.attn.relative_position_bias_table"] = table
            shapes[f"{prefix}.attn.relative_position_index"] = (window**2, window**2)
            for layer, rows, columns in (
                ("attn.qkv", 3 * width, width),
                ("attn.proj", width, width),
                ("mlp.fc1", 4 * width, width),
                ("mlp.fc2", width, 4 * width),
            ):
                shapes[f"{prefix}.{layer}.weight"] = (rows, columns)
                shapes[f"{prefix}.{layer}.bias"] = (rows,)
        if stage < len(depths) - 1:
            norms[f"layers.{stage}.downsample.norm"] = 4 * width
            shapes[f"layers.{stage}.downsample.reduction.weight"] = (2 * width, 4 * width)
    for name, width in norms.items():
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    return {f"backbone.{key}": shape for key, shape in shapes.items()}


def linear(name, rows, columns):
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def pixel_decoder_keys(channels, dim, mask_dim, layers, ffn, heads, points=4):
    shapes = {"mask_features.weight": (mask_dim, dim, 1, 1), "mask_features.bias": (mask_dim,)}
    for i, width in enumerate(channels[:0:-1]):
        shapes |= {f"input_proj.{i}.0.weight": (dim, width, 1, 1), f"input_proj.{i}.0.bias": (dim,)}
        shapes |= norm(f"input_proj.{i}.1", dim)
    shapes["adapter_1.weight"] = (dim, channels[0], 1, 1)
    shapes["layer_1.weight"] = (dim, dim, 3, 3)
    shapes |= norm("adapter_1.norm", dim) | norm("layer_1.norm", dim)
    shapes["transformer.level_embed"] = (3, dim)
    for i in range(layers):
        prefix = f"transformer.encoder.layers.{i}"
        places = heads * 3 * points
        shapes |= linear(f"{prefix}.self_attn.sampling_offsets", 2 * places, dim)
        shapes |= linear(f"{prefix}.self_attn.attention_weights", places, dim)
        shapes |= linear(f"{prefix}.self_attn.value_proj", dim, dim)
        shapes |= linear(f"{prefix}.self_attn.output_proj", dim, dim)
        shapes |= linear(f"{prefix}.linear1", ffn, dim) | linear(f"{prefix}.linear2", dim, ffn)
        shapes |= norm(f"{prefix}.norm1", dim) | norm(f"{prefix}.norm2", dim)
    return {f"sem_seg_head.pixel_decoder.{key}": shape for key, shape in shapes.items()}


def predictor_keys(num_classes, queries, dim, mask_dim, layers, ffn, query_name="query_feat"):
    shapes = {f"{query_name}.weight": (queries, dim), "query_embed.weight": (queries, dim)}
    shapes["level_embed.weight"] = (3, dim)
    for i in range(layers):
        for kind, attention in (("self", "self_attn"), ("cross", "multihead_attn")):
            prefix = f"transformer_{kind}_attention_layers.{i}"
            shapes[f"{prefix}.{attention}.in_proj_weight"] = (3 * dim, dim)
            shapes[f"{prefix}.{attention}.in_proj_bias"] = (3 * dim,)
            shapes |= linear(f"{prefix}.{attention}.out_proj", dim, dim)
            shapes |= norm(f"{prefix}.norm", dim)
        prefix = f"transformer_ffn_layers.{i}"
        shapes |= linear(f"{prefix}.linear1", ffn, dim) | linear(f"{prefix}.linear2", dim, ffn)
        shapes |= norm(f"{prefix}.norm", dim)
    shapes |= norm("decoder_norm", dim) | linear("class_embed", num_classes + 1, dim)
    for i, rows in enumerate((dim, dim, mask_dim)):
        shapes |= linear(f"mask_embed.layers.{i}", rows, dim)
    return {f"sem_seg_head.predictor.{key}": shape for key, shape in shapes.items()}


def small_keys(num_classes=5, **options):
    return {
        **swin_keys(16, (1, 1, 1, 1), (1, 2, 4, 8)),
        **pixel_decoder_keys((16, 32, 64, 128), 32, 16, 2, 24, 4),
        **predictor_keys(num_classes, 6, 32, 16, 3, 40, **options),
        "criterion.empty_weight": (num_classes + 1,),
    }


def random_weights(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def small(num_classes=5, predictor=False, **options):
    torch.manual_seed(1)
    sizes = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
    backbone = create_backbone("swin_tiny_patch4_window7_224", **sizes)
    prompts = TransformerPredictor.for_backbone(backbone, num_prompts=3) if predictor else None
    head = Mask2FormerHead(backbone.out_channels, num_classes, **{**SMALL, **options})
    return MinVIS(VideoEncoder(backbone, prompts), head)


@pytest.mark.parametrize(
    ("name", "swin", "queries", "options"),
    [
        ("swin_tiny_patch4_window7_224", {}, 100, {}),
        (
            "swin_large_patch4_window12_384",
            {"dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48), "window": 12},
            200,
            {"query_name": "static_query"},
        ),
    ],
)
@pytest.mark.parametrize("num_classes", [40, 80])
@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
def test_every_key_of_the_published_networks_is_a_weight_of_ours(
    name, swin, queries, options, num_classes
):
    dim = swin.get("dim", 96)
    channels = tuple(dim * 2**stage for stage in range(4))
    shapes = {
        **swin_keys(**swin),
        **pixel_decoder_keys(channels, 256, 256, 6, 1024, 8),
        **predictor_keys(80, queries, 256, 256, 9, 2048, **options),
        "criterion.empty_weight": (81,),
    }
    with torch.device("meta"):  # hundreds of millions of weights
        backbone = create_backbone(name)
        model = MinVIS(
            VideoEncoder(backbone, None),
            Mask2FormerHead(backbone.out_channels, num_classes, num_queries=queries),
        )
    meta = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    report = load_mask2former_weights(model, meta)
    indices = {key for key in shapes if key.endswith("relative_position_index")}
    class_head = {f"sem_seg_head.predictor.class_embed.{p}" for p in ("weight", "bias")}
    expected = dict.fromkeys(indices, "a buffer, computed anew")
    expected["criterion.empty_weight"] = LEFT_OUT
    new = set()
    if num_classes != 80:
        expected |= dict.fromkeys(class_head, "the head of 80 classes, where 40 are wanted")
        new = {f"head.decoder.class_head.{p}" for p in ("weight", "bias")}
    assert report.unexpected == expected
    assert set(report.new) == new
    assert set(report.loaded) | new == set(model.state_dict())
    assert set(report.loaded.values()) | set(expected) == set(shapes)


def theirs(key):
    """Name a key of our head as the authors do; the inverse of `own_name`."""
    part, _, rest = key.partition(".")
    if part == "pixel_decoder":
        rest = rest.replace("input_projections", "input_proj")
        rest = re.sub(r"^level_embed$", "transformer.level_embed", rest)
        rest = re.sub(r"^layers\.", "transformer.encoder.layers.", rest)
        for ours, name in (
            (r"attention\.offsets", "self_attn.sampling_offsets"),
            (r"attention\.weights", "self_attn.attention_weights"),
            (r"attention\.values", "self_attn.value_proj"),
            (r"attention\.output", "self_attn.output_proj"),
            (r"attention_norm", "norm1"),
            (r"ffn_norm", "norm2"),
            (r"ffn\.0", "linear1"),
            (r"ffn\.2", "linear2"),
            (r"^laterals\.0\.0", "adapter_1"),
            (r"^laterals\.0\.1", "adapter_1.norm"),
            (r"^outputs\.0\.0", "layer_1"),
            (r"^outputs\.0\.1", "layer_1.norm"),
        ):
            rest = re.sub(ours, name, rest)
        return f"sem_seg_head.pixel_decoder.{rest}"
    for ours, name in (
        (r"^query_features", "query_feat"),
        (r"^query_positions", "query_embed"),
        (r"^norm", "decoder_norm"),
        (r"^class_head", "class_embed"),
        (r"^mask_head\.0", "mask_embed.layers.0"),
        (r"^mask_head\.2", "mask_embed.layers.1"),
        (r"^mask_head\.4", "mask_embed.layers.2"),
        (
            r"^layers\.(\d)\.cross_attention",
            r"transformer_cross_attention_layers.\1.multihead_attn",
        ),
        (r"^layers\.(\d)\.cross_norm", r"transformer_cross_attention_layers.\1.norm"),
        (r"^layers\.(\d)\.self_attention", r"transformer_self_attention_layers.\1.self_attn"),
        (r"^layers\.(\d)\.self_norm", r"transformer_self_attention_layers.\1.norm"),
        (r"^layers\.(\d)\.ffn\.0", r"transformer_ffn_layers.\1.linear1"),
        (r"^layers\.(\d)\.ffn\.2", r"transformer_ffn_layers.\1.linear2"),
        (r"^layers\.(\d)\.ffn_norm", r"transformer_ffn_layers.\1.norm"),
    ):
        rest = re.sub(ours, name, rest)
    return f"sem_seg_head.predictor.{rest}"


def test_names_of_the_head_are_one_to_one():
    keys = list(small().head.state_dict())
    assert len(keys) > 100
    assert {own_name(theirs(key)): key for key in keys} == {key: key for key in keys}
    assert len({theirs(key) for key in keys}) == len(keys)
    assert own_name("backbone.norm0.weight") is None
    assert own_name("sem_seg_head.predictor.unheard_of.weight") is None


def test_weights_come_where_they_belong():
    state = random_weights(small_keys())
    model = small()
    load_mask2former_weights(model, state)
    own = model.head.state_dict()
    for key, value in own.items():
        assert_close(value, state[theirs(key)])
    swin = model.encoder.backbone.state_dict()
    for ours, name in (
        ("output_norms.0.weight", "norm0.weight"),
        ("swin.norm.bias", "norm3.bias"),
        ("swin.layers.1.downsample.reduction.weight", "layers.0.downsample.reduction.weight"),
        ("swin.layers.2.blocks.0.attn.qkv.weight", "layers.2.blocks.0.attn.qkv.weight"),
    ):
        assert_close(swin[ours], state[f"backbone.{name}"])


def test_what_is_new_or_not_used_is_logged(caplog):
    model = small(num_classes=3, predictor=True)
    kept = model.head.decoder.class_head.weight.clone()
    with caplog.at_level(logging.WARNING):
        report = load_mask2former_weights(model, random_weights(small_keys()))
    assert_close(model.head.decoder.class_head.weight, kept)
    prompts = {f"encoder.predictor.{key}" for key in model.encoder.predictor.state_dict()}
    class_head = {f"head.decoder.class_head.{p}" for p in ("weight", "bias")}
    assert set(report.new) == prompts | class_head
    assert "the head of 5 classes, where 3 are wanted (2)" in caplog.text
    assert "head.decoder.class_head.weight" in caplog.text
    assert "criterion.empty_weight" in caplog.text


def test_the_table_of_a_load_tells_the_parts_of_the_head():
    report = load_mask2former_weights(small(), random_weights(small_keys()))
    table = load_table(report)
    rows = dict(zip(table.columns[0].cells, table.columns[1].cells, strict=True))
    parts = ["encoder.backbone", "head.decoder", "head.pixel_decoder"]
    assert list(rows) == [*parts, "all"]
    decoder = [key for key in report.loaded if key.startswith("head.decoder.")]
    assert rows["head.decoder"] == str(len(decoder))


def unchanged(model, before):
    after = model.state_dict()
    return all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("sem_seg_head.predictor.decoder_norm.bias"), "decoder.norm.bias: only in"),
        (lambda s: s.update({"sem_seg_head.predictor.extra": torch.ones(1)}), "extra: only in"),
        (lambda s: s.update({"other.weight": torch.ones(1)}), "other.weight: only in"),
        (
            lambda s: s.update({"sem_seg_head.predictor.query_embed.weight": torch.ones(7, 32)}),
            r"query_embed.weight: \(7, 32\) in the checkpoint, \(6, 32\) in the model",
        ),
        (
            lambda s: s.update({"sem_seg_head.predictor.static_query.weight": torch.ones(6, 32)}),
            "mixes old names and new ones",
        ),
        (lambda s: s.pop("backbone.patch_embed.proj.bias"), "patch_embed.proj.bias"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_loaded(change, message):
    state, model = random_weights(small_keys()), small()
    change(state)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_mask2former_weights(model, state)
    assert unchanged(model, before)


def test_a_backbone_that_is_no_swin_is_refused():
    backbone = PromptedCvt((16, 32, 64), (1, 1, 1), (1, 2, 4))
    model = MinVIS(VideoEncoder(backbone, None), Mask2FormerHead(backbone.out_channels, 5, **SMALL))
    with pytest.raises(ValueError, match="of a Swin, not of PromptedCvt"):
        load_mask2former_weights(model, {})


class Command:
    """Runs code where it is unpickled by an ordinary unpickler."""

    def __reduce__(self):
        return (eval, ("1 + 1",))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_of_the_model_zoo_is_read(tmp_path, protocol):
    state = random_weights(small_keys(query_name="static_query"))
    path = tmp_path / "model_final.pkl"
    arrays = {key: value.numpy() for key, value in state.items()}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "them"}, protocol=protocol))
    model = small()
    report = load_mask2former_weights(model, path)
    query = "sem_seg_head.predictor.static_query.weight"
    assert report.loaded["head.decoder.query_features.weight"] == query
    assert_close(model.head.decoder.query_features.weight.detach(), state[query])


def test_a_checkpoint_of_the_trainer_is_read(tmp_path):
    state, path = random_weights(small_keys()), tmp_path / "model_final.pth"
    content = {"model": OrderedDict(state), "optimizer": {"state": {}}, "iteration": 5999}
    torch.save(content, path)
    assert read_detectron2(path).keys() == state.keys()


def damaged(content):
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (damaged(pickle.dumps({"model": {"a": Command()}})), "asks to run builtins.eval"),
        (damaged(pickle.dumps({"model": {"a": np.zeros(3)}})[:-20]), "is not a whole pickle"),
        (damaged(b"version https://git-lfs"), "is not a whole pickle"),
        (damaged(pickle.dumps({"weights": {}})), "expected an entry 'model'"),
        (damaged(pickle.dumps([1])), "expected an entry 'model'"),
        (damaged(pickle.dumps({"model": {"a": "b"}})), "a is expected to be an array .* got str"),
        (damaged(pickle.dumps({"model": {"a": np.array([{}])}})), "array .* got object"),
        (lambda path: None, "is not a file"),
    ],
)
def test_files_that_hold_no_weights_are_named_and_run_nothing(tmp_path, write, message):
    path = tmp_path / "weights.pkl"
    write(path)
    with pytest.raises(ValueError, match=rf"weights\.pkl.*{message}"):
        read_detectron2(path)


def test_the_file_is_named_where_weights_do_not_fit(tmp_path):
    path = tmp_path / "other.pkl"
    path.write_bytes(pickle.dumps({"model": {"backbone.stem.conv1.weight": np.zeros(3)}}))
    with pytest.raises(ValueError, match=r"other\.pkl: the checkpoint is of another model"):
        load_mask2former_weights(small(), path)
