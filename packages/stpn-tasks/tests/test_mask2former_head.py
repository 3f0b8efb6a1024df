"""The Mask2Former head: how it begins, what sizes it takes, what it computes in float32."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from stpn_tasks.segmentation.head import Mask2FormerHead
from stpn_tasks.segmentation.masked_decoder import _outside
from stpn_tasks.segmentation.positions import sine_positions

SMALL = {
    "num_queries": 6,
    "dim": 32,
    "mask_dim": 16,
    "num_heads": 4,
    "encoder_layers": 1,
    "encoder_ffn_dim": 24,
    "encoder_points": 2,
    "decoder_layers": 3,
    "decoder_ffn_dim": 40,
}
WIDTHS = (8, 12, 16, 20, 24)


def small(num_maps=4, num_classes=3, **options):
    torch.manual_seed(0)
    return Mask2FormerHead(WIDTHS[:num_maps], num_classes, **{**SMALL, **options})


def features(num_maps=4, batch=2, size=(16, 24), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, width, -(-size[0] // 2**i), -(-size[1] // 2**i), generator=generator)
        for i, width in enumerate(WIDTHS[:num_maps])
    ]


@settings(max_examples=15, deadline=None)
@given(
    num_maps=st.integers(1, 5),
    batch=st.integers(1, 2),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    queries=st.integers(1, 4),
)
def test_any_pyramid_size_and_number_of_queries(num_maps, batch, size, queries):
    head = small(num_maps, num_queries=queries, dim=64)  # 32 groups of one value have no norm
    found = head(features(num_maps, batch, size))
    assert found.logits.shape == (batch, queries, 4)
    assert found.masks.shape == (batch, queries, *size)
    assert found.embeddings.shape == (batch, queries, 64)
    assert [layer.masks.shape for layer in found.auxiliary] == [found.masks.shape] * 3
    assert all(not layer.auxiliary for layer in found.auxiliary)
    assert found.masks.isfinite().all()


@pytest.mark.parametrize(
    ("num_maps", "encoded", "remembered"), [(5, 3, 3), (4, 3, 3), (3, 2, 3), (2, 1, 2), (1, 1, 1)]
)
def test_the_coarsest_maps_are_encoded_and_three_levels_remembered(num_maps, encoded, remembered):
    head = small(num_maps)
    assert head.pixel_decoder.level_embed.shape == (encoded, 32)
    memory, mask_features = head.pixel_decoder(features(num_maps))
    assert len(memory) == remembered == len(head.decoder.level_embed.weight)
    sizes = [tuple(maps.shape[2:]) for maps in features(num_maps)[::-1]]
    assert [tuple(maps.shape[2:]) for maps in memory] == sizes[:remembered]
    assert mask_features.shape == (2, 16, 16, 24)


def test_every_map_and_weight_takes_part():
    head, maps = small(), [x.requires_grad_() for x in features()]
    found = head(maps)
    layers = [*found.auxiliary, found]
    sum(layer.masks.square().mean() + layer.logits.square().mean() for layer in layers).backward()
    assert all(x.grad.any() for x in maps)
    unmoved = [name for name, weight in head.named_parameters() if weight.grad is None]
    assert not unmoved


def test_evaluation_returns_the_last_layer_of_training():
    head, maps = small(), features()
    in_training, in_testing = head(maps), head.eval()(maps)
    assert not in_testing.auxiliary
    for name in ("logits", "masks", "embeddings"):
        assert_close(getattr(in_testing, name), getattr(in_training, name))


def test_embeddings_are_the_normed_queries_that_predict():
    head = small().eval()
    found = head(features())
    assert_close(head.decoder.class_head(found.embeddings), found.logits)
    assert_close(found.embeddings.mean(-1), torch.zeros(2, 6), atol=1e-5, rtol=0)


def test_images_of_a_batch_do_not_see_each_other():
    head, maps = small().eval(), features()
    together = head(maps)
    for image in range(2):
        alone = head([x[image : image + 1] for x in maps])
        assert_close(alone.masks[0], together.masks[image], atol=1e-5, rtol=1e-5)


def test_queries_look_inside_their_masks_and_everywhere_if_they_have_none():
    masks = torch.full((1, 3, 4, 4), -5.0)
    masks[0, 0, :2, :2] = 5.0
    masks[0, 1, 3, 3] = 0.0  # as likely as not is inside
    outside = _outside(masks, (4, 4)).unflatten(2, (4, 4))[0]
    inside = ~outside
    assert inside[0, :2, :2].all()
    assert inside[0].sum() == 4
    assert inside[1].nonzero().tolist() == [[3, 3]]
    assert inside[2].all()
    assert _outside(masks, (2, 2)).shape == (1, 3, 4)


def test_layer_i_attends_to_level_i_where_the_last_mask_is():
    head, seen = small(decoder_layers=4), []
    for layer in head.decoder.layers:
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    maps = features()
    found = head(maps)
    memory, _ = head.pixel_decoder(maps)
    for i, (inputs, before) in enumerate(zip(seen, found.auxiliary, strict=True)):
        _, positions, keys, values, blocked = inputs
        level, grid = memory[i % 3], tuple(memory[i % 3].shape[2:])
        own = head.decoder.level_embed.weight[i % 3]
        assert_close(values, level.flatten(2).transpose(1, 2) + own)
        # Keys tell where they are, values do not.
        assert_close(keys - values, sine_positions(grid, 32, keys).expand_as(keys))
        assert (positions == head.decoder.query_positions.weight).all()
        assert (blocked == _outside(before.masks, grid)).all()


@pytest.fixture(scope="module")
def original():
    """The head of the original's widths."""
    torch.manual_seed(0)
    return Mask2FormerHead((96, 192, 384, 768), 40, decoder_layers=2, encoder_layers=2)


def assert_uniform(weight, limit):
    """Check that weights nearly reach the limits of an even distribution."""
    assert weight.abs().max().item() == pytest.approx(limit, rel=0.01)
    assert weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.05)


def xavier(weight):
    return (6 / (weight.shape[0] + weight[0].numel())) ** 0.5


def test_weights_of_the_pixel_decoder_begin_as_in_the_original(original):
    pixels = original.pixel_decoder
    for projection in pixels.input_projections:
        assert_uniform(projection[0].weight, xavier(projection[0].weight))
        assert not projection[0].bias.any()
    for convolution in (pixels.laterals[0][0], pixels.outputs[0][0], pixels.mask_features):
        assert_uniform(convolution.weight, (3 / convolution.weight[0].numel()) ** 0.5)
    assert pixels.laterals[0][0].bias is None
    assert pixels.outputs[0][0].bias is None
    assert not pixels.mask_features.bias.any()
    for layer in pixels.layers:
        for linear in (layer.ffn[0], layer.ffn[2], layer.attention.values, layer.attention.output):
            assert_uniform(linear.weight, xavier(linear.weight))
        assert not layer.attention.offsets.weight.any()
        assert layer.attention.offsets.bias.std().item() == pytest.approx(2.378, abs=1e-3)


def test_weights_of_the_masked_decoder_begin_as_in_the_original(original):
    decoder = original.decoder
    for layer in decoder.layers:
        for attention in (layer.cross_attention, layer.self_attention):
            assert_uniform(attention.in_proj_weight, xavier(attention.in_proj_weight))
            assert_uniform(attention.out_proj.weight, xavier(attention.out_proj.weight))
            assert not attention.in_proj_bias.any()
            assert not attention.out_proj.bias.any()
        for linear in (layer.ffn[0], layer.ffn[2]):
            assert_uniform(linear.weight, xavier(linear.weight))
    for linear in (decoder.class_head, decoder.mask_head[0], decoder.mask_head[4]):
        assert_uniform(linear.weight, linear.in_features**-0.5)


def test_queries_and_levels_begin_normal(original):
    pixels, decoder = original.pixel_decoder, original.decoder
    embeddings = (decoder.level_embed, decoder.query_features, decoder.query_positions)
    # Which no weight decay touches, as it is told by the kind of module.
    assert all(isinstance(embedding, nn.Embedding) for embedding in embeddings)
    for weight in (pixels.level_embed, *(embedding.weight for embedding in embeddings)):
        assert weight.std().item() == pytest.approx(1.0, abs=0.1)
        assert weight.mean().item() == pytest.approx(0.0, abs=0.1)


def test_the_original_sizes_are_the_defaults():
    with torch.device("meta"):
        head = Mask2FormerHead((96, 192, 384, 768), 40)
    count = sum(weight.numel() for weight in head.parameters())
    assert count == 19_890_665
    assert len(head.pixel_decoder.layers) == 6
    assert len(head.decoder.layers) == 9


def test_autocast_leaves_the_pixel_decoder_in_float32():
    head, maps = small(), features()
    plain = head.pixel_decoder(maps)
    with torch.autocast("cpu", torch.bfloat16):
        memory, mask_features = head.pixel_decoder([x.bfloat16() for x in maps])
        rounded = head.pixel_decoder(maps)
        found = head(maps)
    assert {x.dtype for x in (*memory, mask_features)} == {torch.float32}
    assert_close(rounded[1], plain[1], atol=0, rtol=0)
    assert [torch.equal(a, b) for a, b in zip(rounded[0], plain[0], strict=True)] == [True] * 3
    assert found.masks.dtype == torch.bfloat16
    assert found.logits.dtype == torch.bfloat16
    in_float = head(maps)
    first, expected = found.auxiliary[0], in_float.auxiliary[0]
    assert_close(first.masks.float(), expected.masks, atol=0.05, rtol=0.05)


@pytest.mark.without_shape_checks
def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="multiple of 32, got 48"):
        small(dim=48)
    with pytest.raises(ValueError, match="divide the width 32, got 5"):
        small(num_heads=5)
    with pytest.raises(ValueError, match="at least one map"):
        Mask2FormerHead((), 3)
    with pytest.raises(ValueError, match=r"\(8, 12, 16, 20\) channels, got \(8, 12, 16\)"):
        small()(features(3))


def test_it_computes_in_double_precision_too():
    head = small().double()
    found = head([x.double() for x in features()])
    assert found.masks.dtype == torch.float64
