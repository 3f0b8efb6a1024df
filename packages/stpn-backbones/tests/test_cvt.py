import copy
import functools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.export import Dim

from stpn_backbones.cvt import PromptedCvt
from stpn_backbones.cvt_layers import (
    ConvAttention,
    ConvEmbedding,
    ConvProjection,
    CvtBlock,
    to_maps,
)
from stpn_core import (
    AttentionPredictor,
    AveragePredictor,
    MixerPredictor,
    PromptableBackbone,
    StaticPrompts,
    TransformerPredictor,
    VideoEncoder,
)

PREDICTORS = [TransformerPredictor, MixerPredictor, AttentionPredictor, AveragePredictor]
PROMPT_CONVS = ["bypass", "image", "padded_image"]
TINY: dict[str, Any] = {"dims": (16, 32, 48), "depths": (1, 2, 2), "num_heads": (1, 2, 4)}


def tiny(**options: Any) -> PromptedCvt:
    """A small CvT with random weights and statistics: prompts of a fresh one do little."""
    torch.manual_seed(0)
    model = PromptedCvt(**{**TINY, **options}).eval()
    for name, value in model.state_dict().items():
        if value.ndim and not name.endswith("running_var"):
            value += 0.1 * torch.randn_like(value)
    return model


@functools.cache
def three_layers() -> PromptedCvt:
    return tiny(depths=(1, 1, 1))


def prompts_of(model: PromptedCvt, batch: int, num_prompts: int, *, deep: bool) -> list[Tensor]:
    dims = model.prompt_dims if deep else model.prompt_dims[:1]
    return [torch.randn(batch, num_prompts, width) for width in dims]


def assert_close(actual: list[Tensor], expected: list[Tensor], atol: float = 1e-5) -> None:
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, atol=atol, rtol=1e-4)


# --- Shapes ----------------------------------------------------------------------------------


@torch.no_grad()
@settings(max_examples=20, deadline=None)
@given(
    height=st.integers(3, 90), width=st.integers(3, 90), side=st.integers(0, 3), deep=st.booleans()
)
def test_maps_of_any_size_have_the_declared_grids(
    height: int, width: int, side: int, deep: bool
) -> None:
    model = three_layers()
    images = torch.randn(2, 3, height, width)
    maps = model(images, prompts_of(model, 2, side * side, deep=deep))
    rows, columns = (height + 1) // 4, (width + 1) // 4
    for out, channels in zip(maps, model.out_channels, strict=True):
        assert out.shape == (2, channels, rows, columns)
        rows, columns = (rows + 1) // 2, (columns + 1) // 2
    assert model.grid_size(height, width) == maps[-1].shape[-2:]
    tokens = model.embed(images)
    assert tokens.shape == (2, maps[-1][0, 0].numel(), model.embed_dim)
    if side == 0:
        assert_close([tokens], [maps[-1].flatten(2).transpose(1, 2)], atol=1e-6)


def test_strides_divide_images_of_whole_cells() -> None:
    model = tiny()
    assert isinstance(model, PromptableBackbone)
    maps = model(torch.randn(1, 3, 64, 96))
    for out, stride in zip(maps, model.strides, strict=True):
        assert out.shape[-2:] == (64 // stride, 96 // stride)
    assert model.prompt_dims == (16, 32, 32, 48, 48)


# --- Prompts between stages ------------------------------------------------------------------


@torch.no_grad()
def test_nine_prompts_pass_the_embedding_with_an_effective_padding_of_two() -> None:
    embedding = list(tiny().stages)[1].patch_embed
    prompts = torch.randn(2, 9, 16)
    maps = prompts.transpose(1, 2).reshape(2, 16, 3, 3)
    convolved = F.conv2d(maps, embedding.proj.weight, embedding.proj.bias, stride=2, padding=2)
    assert convolved.shape[2:] == (3, 3)
    expected = embedding.norm(convolved.flatten(2).transpose(1, 2))
    assert_close([embedding.embed_prompts(prompts)], [expected])


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5])
def test_the_embedding_keeps_the_number_of_prompts(side: int) -> None:
    embedding = ConvEmbedding(4, 6, kernel_size=3, stride=2, padding=1)
    assert embedding.embed_prompts(torch.randn(1, side * side, 4)).shape == (1, side * side, 6)


def test_a_corner_sees_its_own_prompt_and_the_centre_sees_all() -> None:
    embedding = list(tiny().stages)[1].patch_embed
    prompts = torch.randn(1, 9, 16, requires_grad=True)
    tokens = embedding.embed_prompts(prompts)
    for place, seen in ((0, [0]), (2, [2]), (4, list(range(9))), (6, [6]), (8, [8])):
        # Not the plain sum, which the norm keeps constant.
        (grad,) = torch.autograd.grad(tokens[0, place, :5].sum(), prompts, retain_graph=True)
        assert grad.abs().sum(-1)[0].nonzero().flatten().tolist() == seen


# --- Prompts in a layer ----------------------------------------------------------------------


def by_hand(attn: ConvAttention, x: Tensor, grid: tuple[int, int], padding: int | None) -> Tensor:
    """Attend from 9 prompts and a map; ``padding`` of the prompts' keys, None to bypass."""

    def convolved(projection: ConvProjection, tokens: Tensor, sides: tuple, pad: int) -> Tensor:
        maps = tokens.transpose(1, 2).reshape(*tokens.shape[::2], *sides)
        conv, bn = projection.conv, projection.bn
        y = F.conv2d(maps, conv.weight, None, conv.stride, pad, groups=len(conv.weight))
        y = F.batch_norm(y, bn.running_mean, bn.running_var, bn.weight, bn.bias)
        return y.flatten(2).transpose(1, 2)

    prompts, patches = x[:, :9], x[:, 9:]
    heads = []
    for letter in "qkv":
        projection = getattr(attn, f"conv_proj_{letter}")
        pad = 1 if letter == "q" else padding
        own = prompts if padding is None else convolved(projection, prompts, (3, 3), pad)
        tokens = torch.cat([own, convolved(projection, patches, grid, 1)], 1)
        projected = getattr(attn, f"proj_{letter}")(tokens)
        heads.append(projected.reshape(*tokens.shape[:2], attn.num_heads, -1).transpose(1, 2))
    queries, keys, values = heads
    weights = (queries @ keys.mT * x.shape[2] ** -0.5).softmax(-1)
    return attn.proj((weights @ values).transpose(1, 2).flatten(2))


@torch.no_grad()
@pytest.mark.parametrize(
    ("prompt_conv", "padding", "prompt_keys"),
    [("bypass", None, 9), ("image", 1, 4), ("padded_image", 2, 9)],
)
def test_prompts_pass_the_convolutions_as_chosen(
    prompt_conv: str, padding: int | None, prompt_keys: int
) -> None:
    block: CvtBlock = list(tiny(prompt_conv=prompt_conv).stages)[1].blocks[1]
    x = torch.randn(2, 9 + 35, 32)
    queries, keys, values = block.attn.project(block.norm1(x), (5, 7), num_prompts=9, num_cls=0)
    assert queries.shape == (2, 2, 9 + 35, 16)
    assert keys.shape == values.shape == (2, 2, prompt_keys + 12, 16)
    x_attended = x + by_hand(block.attn, block.norm1(x), (5, 7), padding)
    expected = x_attended + block.mlp(block.norm2(x_attended))
    kept = block(x, (5, 7), num_prompts=9, num_cls=0, keep_prompts=True)
    dropped = block(x, (5, 7), num_prompts=9, num_cls=0, keep_prompts=False)
    assert_close([kept, dropped], [expected, expected[:, 9:]])


def test_convolutions_see_no_class_token() -> None:
    attn = list(tiny(cls_token=True).stages)[2].blocks[0].attn
    x = torch.randn(1, 1 + 12, 48)
    others = torch.cat([torch.randn(1, 1, 48), x[:, 1:]], dim=1)
    first = attn.project(x, (3, 4), num_prompts=0, num_cls=1)
    second = attn.project(others, (3, 4), num_prompts=0, num_cls=1)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a[:, :, 1:], b[:, :, 1:])
        assert not torch.equal(a[:, :, :1], b[:, :, :1])


# --- The network with prompts ----------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("prompt_conv", PROMPT_CONVS)
def test_a_batch_equals_its_images_one_by_one(prompt_conv: str, deep: bool) -> None:
    model = tiny(prompt_conv=prompt_conv)
    images = torch.randn(2, 3, 61, 90)
    prompts = prompts_of(model, 2, 9, deep=deep)
    together = model(images, prompts)
    for i in range(2):
        alone = model(images[i : i + 1], [p[i : i + 1] for p in prompts])
        assert_close([m[i : i + 1] for m in together], alone)
    assert not torch.allclose(together[2], model(images)[2], atol=1e-2)


@pytest.mark.parametrize("cls_token", [False, True])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("prompt_conv", PROMPT_CONVS)
def test_gradient_reaches_every_prompt_of_every_layer(
    prompt_conv: str, deep: bool, cls_token: bool
) -> None:
    model = tiny(prompt_conv=prompt_conv, cls_token=cls_token)
    prompts = [p.requires_grad_() for p in prompts_of(model, 2, 9, deep=deep)]
    maps = model(torch.randn(2, 3, 48, 48), prompts)
    for gradient in torch.autograd.grad(maps[-1].square().sum(), prompts):
        assert (gradient.abs().sum(-1) > 1e-6).all()


def test_the_gradient_of_prompts_is_that_of_finite_differences() -> None:
    model = tiny(dims=(8, 8), depths=(1, 1), num_heads=(1, 2)).double()
    images = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    prompts = torch.randn(1, 9, 8, dtype=torch.float64, requires_grad=True)
    run = lambda p: model(images, [p])[-1].square().mean()  # noqa: E731
    assert torch.autograd.gradcheck(run, (prompts,), fast_mode=True)


@torch.no_grad()
def test_deep_prompts_take_the_place_of_those_before() -> None:
    model = tiny(dims=(16,), depths=(2,), num_heads=(2,))
    block = list(model.stages)[0].blocks[1]
    seen: list[Tensor] = []
    block.norm1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    images, prompts = torch.randn(2, 3, 32, 32), prompts_of(model, 2, 5, deep=True)
    model(images, prompts)
    assert seen[0].shape == (2, 5 + 64, 16)
    assert torch.equal(seen[0][:, :5], prompts[1])


@torch.no_grad()
def test_the_class_token_is_there_for_classification_alone() -> None:
    images = torch.randn(2, 3, 64, 64)
    dense, classifier = tiny(), tiny(cls_token=True)
    assert "stage2.cls_token" not in dense.state_dict()
    assert [tuple(m.shape) for m in classifier(images)] == [tuple(m.shape) for m in dense(images)]
    assert_close([dense.classify_features(images)], [dense.embed(images).mean(1)])
    before = classifier.embed(images)
    features = classifier.classify_features(images)
    assert features.shape == (2, 48)
    classifier.stage2.cls_token += torch.randn(48)
    assert not torch.allclose(classifier.classify_features(images), features, atol=1e-2)
    assert not torch.allclose(classifier.embed(images), before, atol=1e-4)  # patches see it


# --- Training --------------------------------------------------------------------------------


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items() if ".bn.running" in k}


def test_frozen_batch_norms_keep_their_statistics_and_trained_ones_do_not() -> None:
    for frozen in (True, False):
        model = tiny(frozen_batch_norm=frozen).train()
        before = statistics(model)
        assert len(before) == 5 * 3 * 2
        model(torch.randn(2, 3, 32, 32))
        assert all(torch.equal(v, before[k]) == frozen for k, v in statistics(model).items())
        trained = {k for k, _ in model.named_parameters() if ".bn." in k}
        assert bool(trained) != frozen


def test_drop_path_grows_over_the_last_stage_alone() -> None:
    model = tiny(depths=(1, 2, 3), drop_path_rate=0.3)
    rates = [[b.drop_path.drop_prob for b in stage.blocks] for stage in model.stages]
    assert rates[:2] == [[0], [0, 0]]
    assert rates[2] == pytest.approx([0, 0.15, 0.3])


def test_half_precision_under_autocast_keeps_the_features() -> None:
    model = tiny()
    images, prompts = torch.randn(2, 3, 64, 64), prompts_of(model, 2, 9, deep=False)
    with torch.autocast("cpu", torch.bfloat16):
        maps = model(images, prompts)
    for half, full in zip(maps, model(images, prompts), strict=True):
        assert (half.float() - full).norm() < 0.05 * full.norm()


# --- With predictors -------------------------------------------------------------------------


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("kind", PREDICTORS)
def test_every_predictor_learns_through_the_network(kind: type, deep: bool) -> None:
    model = tiny()
    encoder = VideoEncoder(model, kind.for_backbone(model, 9, deep=deep))
    frame, support = torch.randn(2, 3, 61, 90), torch.randn(2, 3, 3, 64, 96)
    maps = encoder(frame, support)
    sum(m.square().sum() for m in maps).backward()
    weights = [p for p in encoder.predictor.parameters() if p.requires_grad]
    assert weights
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in weights)
    with torch.no_grad():
        assert_close([m[1:] for m in maps], encoder(frame[1:], support[1:]))


@torch.no_grad()
def test_static_prompts_and_one_pass_for_features_and_embeddings_fit_too() -> None:
    model = tiny()
    static = VideoEncoder(model, StaticPrompts.for_backbone(model, 9))
    frame = torch.randn(2, 3, 64, 64)
    assert not torch.allclose(static(frame, None)[2], model(frame)[2], atol=1e-4)
    encoder = VideoEncoder(model, TransformerPredictor.for_backbone(model, 9))
    embeddings, features = encoder.embed_with_features(frame)
    assert_close([embeddings, *features], [encoder.embed(frame), *model(frame)])


class LatestTwo:
    """The two frames before the current one; frame 0 for the first."""

    past, future = 2, 0

    def __call__(self, frame: int, length: int | None) -> list[int]:
        return [max(frame - 2, 0), max(frame - 1, 0)]

    def embeds(self, frame: int) -> bool:
        return True


@torch.no_grad()
def test_a_stream_gives_what_the_encoder_gives() -> None:
    model = tiny()
    encoder = VideoEncoder(model, TransformerPredictor.for_backbone(model, 9)).eval()
    frames = torch.randn(4, 3, 48, 64)
    stream = encoder.stream(LatestTwo())
    outputs = [output for t in range(4) for output in stream.push(frames[t : t + 1])]
    assert len(outputs) == 4
    for t, output in enumerate(outputs):
        support = frames[LatestTwo()(t, None)][None]
        assert_close(output.features, encoder(frames[t : t + 1], support))


# --- Compile and export ----------------------------------------------------------------------


def two_stages() -> PromptedCvt:
    return tiny(dims=(16, 16), depths=(1, 1), num_heads=(1, 2))


def maps_and_gradients(run: nn.Module, model: nn.Module, *inputs: Any) -> list[Tensor]:
    maps = run(*inputs)
    loss = sum(m.square().mean() for m in maps)
    return [*maps, *torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])]


@pytest.mark.compile
def test_compiled_cvt_and_its_gradients_equal_eager() -> None:
    torch._dynamo.reset()
    model = two_stages()
    images, prompts = torch.randn(2, 3, 61, 90), prompts_of(model, 2, 9, deep=False)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    actual = maps_and_gradients(compiled, model, images, prompts)
    torch.testing.assert_close(actual, maps_and_gradients(model, model, images, prompts))


@pytest.mark.slow
@pytest.mark.compile
def test_two_recompilations_serve_every_size_and_batch() -> None:
    torch._dynamo.reset()
    model = two_stages()
    encoder = VideoEncoder(model, TransformerPredictor.for_backbone(model, 9)).eval()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(encoder, fullgraph=True, backend=counter)
    for batch, height, width in ((1, 32, 48), (1, 61, 70), (1, 90, 68), (2, 40, 56), (4, 52, 45)):
        inputs = torch.randn(batch, 3, height, width), torch.randn(batch, 2, 3, height, width)
        actual = maps_and_gradients(compiled, encoder, *inputs)
        torch.testing.assert_close(actual, maps_and_gradients(encoder, encoder, *inputs))
    assert counter.frame_count <= 3  # the first size, any size, any batch


ANY_IMAGES = {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}


@pytest.mark.compile
@torch.no_grad()
def test_an_exported_cvt_is_exact_at_other_sizes() -> None:
    model = two_stages()
    example = torch.randn(2, 3, 96, 128), prompts_of(model, 2, 9, deep=False)
    shapes = (ANY_IMAGES, [{0: Dim.AUTO}])
    exported = torch.export.export(model, example, dynamic_shapes=shapes).module()
    for batch, height, width in ((1, 64, 96), (3, 61, 70), (4, 125, 20)):
        case = torch.randn(batch, 3, height, width), prompts_of(model, batch, 9, deep=False)
        torch.testing.assert_close(exported(*case), model(*case), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.compile
@torch.no_grad()
@pytest.mark.parametrize("deep", [False, True])
def test_an_exported_encoder_is_exact_at_other_sizes_and_numbers_of_support_frames(
    deep: bool,
) -> None:
    model = two_stages()
    encoder = VideoEncoder(model, TransformerPredictor.for_backbone(model, 9, deep=deep)).eval()
    example = torch.randn(2, 3, 96, 128), torch.randn(2, 4, 3, 96, 128)
    shapes = (ANY_IMAGES, {0: Dim.AUTO, 1: Dim.AUTO, 3: Dim.AUTO, 4: Dim.AUTO})
    exported = torch.export.export(encoder, example, dynamic_shapes=shapes).module()
    for (batch, height, width), K in zip(((1, 64, 96), (3, 61, 70)), (1, 5), strict=True):
        case = torch.randn(batch, 3, height, width), torch.randn(batch, K, 3, 64, 96)
        torch.testing.assert_close(exported(*case), encoder(*case), rtol=0, atol=0)


# --- Errors ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("own_errors")
@pytest.mark.parametrize(
    ("images", "prompts", "message"),
    [
        (torch.zeros(3, 32, 32), None, r"images must be \(B, 3, H, W\), got shape \(3, 32, 32\)"),
        (torch.zeros(2, 1, 32, 32), None, r"got shape \(2, 1, 32, 32\)"),
        (torch.zeros(2, 3, 32, 32), torch.zeros(2, 9, 16), "1 tensor .* or 5 tensors .* a tensor"),
        (torch.zeros(2, 3, 32, 32), [torch.zeros(2, 9, 16)] * 2, "got 2 tensors"),
        (torch.zeros(2, 3, 32, 32), [torch.zeros(1, 9, 16)], r"layer 0 must be .*\(2, 9, 16\)"),
        (torch.zeros(2, 3, 32, 32), [torch.zeros(2, 9, 16)] * 5, r"layer 1 .*\(2, 9, 32\)"),
        (torch.zeros(2, 3, 32, 32), [torch.zeros(2, 7, 16)], "a square, such as 9 .* got 7"),
    ],
)
def test_wrong_images_and_prompts_are_named(images: Tensor, prompts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny()(images, prompts)


def test_images_of_another_dtype_are_refused() -> None:
    with pytest.raises(TypeError, match="images must be torch.float32 .* got torch.float64"):
        tiny()(torch.zeros(1, 3, 32, 32, dtype=torch.float64))


@pytest.mark.usefixtures("own_errors")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": (1, 2)}, r"one positive number per stage, got \(16, 32, 48\), \(1, 2\)"),
        ({"depths": (1, 2, 0)}, "one positive number per stage"),
        ({"num_heads": (1, 2, 5)}, "num_heads must divide the width 48, got 5"),
        ({"prompt_conv": "pad"}, "prompt_conv must be one of .* got 'pad'"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PromptedCvt(**{**TINY, **options})


def test_a_copy_is_a_network_of_its_own() -> None:
    model = tiny()
    other = copy.deepcopy(model)
    images = torch.randn(1, 3, 32, 32)
    assert_close(other(images), model(images), atol=0)
    with torch.no_grad():
        other.stage0.patch_embed.proj.weight.zero_()
    assert not torch.allclose(other(images)[0], model(images)[0], atol=1e-3)


@pytest.mark.parametrize("num_images", [1, 3])
def test_tokens_pass_convolutions_without_copies_of_another_layout(num_images: int) -> None:
    tokens = torch.randn(num_images, 9 + 48, 64)[:, 9:]  # after prompts
    maps = to_maps(tokens, (6, 8))
    assert maps.data_ptr() == tokens.data_ptr()
    assert_close(maps, tokens.transpose(1, 2).reshape(num_images, 64, 6, 8), atol=0)
    for stride in (1, 2):
        convolved = ConvProjection(64, stride=stride, frozen_batch_norm=True)(tokens, (6, 8))
        assert convolved.is_contiguous()  # so that prompts join, and linear layers read, it fast
