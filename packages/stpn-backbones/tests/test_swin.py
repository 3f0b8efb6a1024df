import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from stpn_backbones import PromptedSwin, create_backbone

NAME = "swin_tiny_patch4_window7_224"
TINY = {"embed_dim": 16, "depths": (2, 2, 2), "num_heads": (1, 2, 4), "window_size": 4}

TWO_STAGES = {**TINY, "depths": (2, 2), "num_heads": (1, 2)}


def assert_close(actual: list[Tensor], expected: list[Tensor], atol: float = 1e-5) -> None:
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, atol=atol, rtol=1e-5)


def deep_prompts(model: PromptedSwin, batch: int, num_prompts: int) -> list[Tensor]:
    return [torch.randn(batch, num_prompts, width) for width in model.prompt_dims]


def prompts_of(kind: str, model: PromptedSwin, batch: int) -> list[Tensor]:
    deep = deep_prompts(model, batch, 3)
    return deep if kind == "deep" else deep[:1]


# --- The plain network -----------------------------------------------------------------------


def timm_like(model: PromptedSwin, img_size: int, **options: object) -> nn.Module:
    """Build timm's own model of that image size with the same weights."""
    plain = timm.create_model(NAME, num_classes=0, img_size=img_size, **options).eval()
    weights = model.swin.state_dict()
    for key, value in plain.state_dict().items():
        if key.endswith("relative_position_bias_table"):
            # timm shrinks windows to small maps: its table has the offsets that are left.
            old, new = (round(len(t) ** 0.5) for t in (weights[key], value))
            kept = slice((old - new) // 2, (old + new) // 2)
            weights[key] = weights[key].unflatten(0, (old, old))[kept, kept].flatten(0, 1)
    plain.load_state_dict(weights)
    return plain


@torch.no_grad()
@pytest.mark.parametrize(
    ("img_size", "options"),
    [
        (224, {}),  # the last map is one window
        # Sides are powers of two: odd and padded maps are another matter in timm before 1.0.31.
        (32, TINY),  # the second map is one window; the last is smaller
        (64, TINY),
    ],
)
def test_classification_features_equal_timm(img_size: int, options: dict) -> None:
    torch.manual_seed(0)
    model = create_backbone(NAME, classification=True, **options).eval()
    for parameter in model.swin.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    plain = timm_like(model, img_size, **options)
    images = torch.randn(2, 3, img_size, img_size)
    final, stages = plain.forward_intermediates(images)
    assert_close([model.embed(images)], [final.flatten(1, 2)])
    stages = [nn.functional.layer_norm(m.permute(0, 2, 3, 1), m.shape[1:2]) for m in stages]
    assert_close(model(images)[:-1], [m.permute(0, 3, 1, 2) for m in stages[:-1]])


@torch.no_grad()
def test_the_shift_is_kept_in_one_window_unless_classifying(small: PromptedSwin) -> None:
    images = torch.randn(2, 3, 224, 224)
    detection = small(images)
    small.classification = True
    classification = small(images)
    assert_close(detection[:3], classification[:3])  # maps of 56, 28, 14: several windows
    assert not torch.allclose(detection[3], classification[3], atol=1e-3)  # a map of 7


@torch.no_grad()
def test_images_are_padded_with_zeros_to_whole_patches(small: PromptedSwin) -> None:
    images = torch.randn(2, 3, 61, 70)
    padded = nn.functional.pad(images, (0, 2, 0, 3))
    prompts = [torch.randn(2, 3, 32)]
    assert_close(small(images, prompts), small(padded, prompts), atol=0)


# --- Shapes ----------------------------------------------------------------------------------


@torch.no_grad()
@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90), num_prompts=st.integers(0, 3))
def test_maps_of_any_size_have_the_declared_strides(
    height: int, width: int, num_prompts: int
) -> None:
    model = create_backbone(NAME, **TINY).eval()
    images = torch.randn(2, 3, height, width)
    maps = model(images, [torch.randn(2, num_prompts, 16)])
    for out, channels, stride in zip(maps, model.out_channels, model.strides, strict=True):
        assert out.shape == (2, channels, -(-height // stride), -(-width // stride))
        assert out.isfinite().all()
    assert model.grid_size(height, width) == maps[-1].shape[-2:]
    tokens = model.embed(images)
    assert tokens.shape == (2, maps[-1].shape[-2] * maps[-1].shape[-1], model.embed_dim)
    if num_prompts == 0:
        assert_close([tokens], [maps[-1].flatten(2).transpose(1, 2)], atol=1e-6)


def test_attributes_tell_widths_and_strides() -> None:
    model = create_backbone(NAME)
    assert model.embed_dim == 768
    assert model.prompt_dims == (96, 96, 192, 192, *[384] * 6, 768, 768)
    assert model.out_channels == (96, 192, 384, 768)
    assert model.strides == (4, 8, 16, 32)
    assert model.grid_size(600, 1000) == (19, 32)
    assert sum(p.numel() for p in model.parameters()) == 27_520_698  # facts of the paper's Swin-T


# --- Prompts ---------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("merging", ["repeat", "released"])
@pytest.mark.parametrize("kind", ["shallow", "deep"])
def test_a_batch_equals_its_images_one_by_one(small: PromptedSwin, kind: str, merging: str) -> None:
    small.prompt_merging = merging
    images, prompts = torch.randn(2, 3, 68, 90), prompts_of(kind, small, 2)
    single = [small(images[i : i + 1], [p[i : i + 1] for p in prompts]) for i in range(2)]
    assert_close(small(images, prompts), [torch.cat(maps) for maps in zip(*single, strict=True)])


@torch.no_grad()
def test_no_prompts_equal_the_plain_network(small: PromptedSwin) -> None:
    images = torch.randn(2, 3, 68, 90)
    plain = small(images)
    assert_close(small(images, [torch.randn(2, 0, 32)]), plain)
    assert_close(small(images, deep_prompts(small, 2, 0)), plain)
    prompted = small(images, [torch.randn(2, 1, 32)])
    assert all((p - m).abs().max() > 1e-3 for p, m in zip(prompted, plain, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["shallow", "deep"])
def test_the_order_of_prompts_does_not_matter(small: PromptedSwin, kind: str) -> None:
    images, prompts = torch.randn(2, 3, 68, 90), prompts_of(kind, small, 2)
    assert_close(small(images, [p.flip(1) for p in prompts]), small(images, prompts))


@torch.no_grad()
@pytest.mark.parametrize("layer", [0, 3, 7])
def test_each_deep_prompt_is_read_from_its_layer_on(small: PromptedSwin, layer: int) -> None:
    images, prompts = torch.randn(2, 3, 68, 90), deep_prompts(small, 2, 3)
    before = small(images, prompts)
    prompts[layer] = torch.randn_like(prompts[layer])
    changed = [not torch.equal(b, a) for b, a in zip(before, small(images, prompts), strict=True)]
    assert changed == [stage >= layer // 2 for stage in range(4)]


def test_shallow_prompts_pass_merging_in_all_four_places(small: PromptedSwin) -> None:
    prompts = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])  # two images, one prompt, two channels
    repeated = small._four_places(prompts)
    assert repeated[0, 0].tolist() == [1, 2, 1, 2, 1, 2, 1, 2]
    small.prompt_merging = "released"
    # Place (row, column) of channel c takes p[(4c + 2 row + column) mod C]; columns vary slowest.
    assert small._four_places(prompts)[0, 0].tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    assert small._four_places(prompts)[1, 0].tolist() == [3, 3, 3, 3, 4, 4, 4, 4]


@pytest.mark.parametrize("kind", ["shallow", "deep"])
def test_gradients_reach_every_parameter_and_prompt(small: PromptedSwin, kind: str) -> None:
    prompts = [p.requires_grad_() for p in prompts_of(kind, small, 2)]
    sum(m.square().mean() for m in small.train()(torch.randn(2, 3, 64, 64), prompts)).backward()
    tensors = [*small.parameters(), *prompts]
    assert all(t.grad is not None and t.grad.isfinite().all() for t in tensors)
    assert all(p.grad.abs().max() > 0 for p in prompts)


def test_drop_path_drops_whole_samples_with_their_prompts() -> None:
    torch.manual_seed(0)
    model = create_backbone(NAME, **TINY, drop_path_rate=0.9999).train()
    seen = []
    last = model.swin.layers[-1].blocks[-1]
    last.norm1.register_forward_pre_hook(lambda module, args: seen.append(args[0][:, 3:]))
    model.swin.norm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(torch.randn(2, 3, 32, 32), [torch.randn(2, 3, 16)])
    assert torch.equal(seen[0], seen[1])  # both residual branches were dropped


# --- Other ways to run it --------------------------------------------------------------------


@torch.no_grad()
def test_qkv_bias_may_be_absent() -> None:
    model = create_backbone(NAME, **TINY, qkv_bias=False).eval()
    images = torch.randn(2, 3, 40, 50)
    with_bias = create_backbone(NAME, **TINY).eval()
    with_bias.load_state_dict(model.state_dict(), strict=False)
    for stage in with_bias.swin.layers:
        for block in stage.blocks:
            block.attn.qkv.bias.zero_()
    assert_close(model(images), with_bias(images))


@pytest.mark.usefixtures("own_errors")
@torch.no_grad()
def test_autocast_keeps_to_float32_maps_in_bfloat16_noise(small: PromptedSwin) -> None:
    images, prompts = torch.randn(2, 3, 64, 64), [torch.randn(2, 3, 32)]
    expected = small(images, prompts)
    with torch.autocast("cpu", torch.bfloat16):
        maps = small(images, prompts)
        small(images.bfloat16(), [prompts[0].bfloat16()])
        with pytest.raises(TypeError, match="torch.float32 as the weights, got torch.uint8"):
            small(images.byte())
    for out, exact in zip(maps, expected, strict=True):
        assert (out.float() - exact).abs().mean() < 0.05


@pytest.mark.compile
@torch.no_grad()
def test_compile_has_one_graph_and_few_recompiles() -> None:
    torch._dynamo.reset()
    model = create_backbone(NAME, **TWO_STAGES).eval()
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for height, width in [(64, 96), (100, 132), (61, 70), (80, 112), (90, 68)]:
        images, prompts = torch.randn(2, 3, height, width), [torch.randn(2, 3, 16)]
        assert_close(compiled(images, prompts), model(images, prompts))
    assert counter.frame_count <= 2  # the first size, then any size


@pytest.mark.compile
@torch.no_grad()
def test_export_keeps_batch_and_size_dynamic() -> None:
    model = create_backbone(NAME, **TWO_STAGES).eval()

    class Shallow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = model

        def forward(self, images: Tensor, prompt: Tensor) -> list[Tensor]:
            return self.backbone(images, [prompt])

    dynamic = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        Shallow(),
        (torch.randn(2, 3, 100, 132), torch.randn(2, 3, 16)),
        dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic}, {0: dynamic}),
    )
    images, prompt = torch.randn(5, 3, 61, 90), torch.randn(5, 3, 16)
    assert_close(program.module()(images, prompt), model(images, [prompt]))


# --- Errors ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("own_errors")
@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.zeros(3, 32, 32), ValueError, r"\(B, 3, H, W\), got shape \(3, 32, 32\)"),
        (torch.zeros(2, 4, 32, 32), ValueError, r"\(B, 3, H, W\), got shape \(2, 4, 32, 32\)"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), TypeError, "torch.float32.*torch.uint8"),
        (torch.zeros(2, 3, 32, 32).double(), TypeError, "torch.float32.*torch.float64"),
    ],
)
def test_wrong_images_are_named(
    small: PromptedSwin, images: Tensor, error: type[Exception], message: str
) -> None:
    for run in (small, small.embed):
        with pytest.raises(error, match=message):
            run(images)


@pytest.mark.usefixtures("own_errors")
@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], r"1 tensor \(shallow\) or 8 tensors \(deep\), got 0 tensors"),
        ([torch.zeros(2, 3, 32)] * 2, "got 2 tensors"),
        (torch.zeros(2, 3, 32), "sequence of 1 tensor .* got a tensor"),
        ([torch.zeros(2, 3, 64)], r"layer 0 .* = \(2, 3, 32\), got shape \(2, 3, 64\)"),
        ([torch.zeros(1, 3, 32)], r"= \(2, 3, 32\), got shape \(1, 3, 32\)"),
        ([torch.zeros(3, 32)], r"= \(2, 'P', 32\), got shape \(3, 32\)"),
        ([torch.zeros(2, 3, 32)] * 8, r"layer 2 .* = \(2, 3, 64\), got shape \(2, 3, 32\)"),
        (
            [torch.zeros(2, 3, 32), torch.zeros(2, 4, 32), *[torch.zeros(2, 3, 64)] * 6],
            r"layer 1 .* = \(2, 3, 32\), got shape \(2, 4, 32\)",
        ),
    ],
)
def test_wrong_prompts_are_named(
    small: PromptedSwin, prompts: list[Tensor] | Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        small(torch.zeros(2, 3, 32, 32), prompts)


@pytest.mark.usefixtures("own_errors")
def test_wrong_models_are_named() -> None:
    with pytest.raises(TypeError, match="SwinTransformer, got Linear"):
        PromptedSwin(nn.Linear(1, 1))
    for options, message in [
        ({"prompt_merging": "cat"}, r"\('repeat', 'released'\), got 'cat'"),
        ({"window_size": (4, 7)}, "stage 0: windows must be square, got 4x7"),
        ({"patch_size": (4, 8)}, "patches must be square, got 4x8"),
        ({"attn_drop_rate": 0.1}, "attn_drop_rate must be 0, got 0.1"),
    ]:
        with pytest.raises(ValueError, match=message):
            create_backbone(NAME, **{**TINY, **options})
