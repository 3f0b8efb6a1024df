"""Deformable attention against its definition, place by place."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from stpn_tasks.segmentation.deformable_attention import DeformableAttention, gather_from_levels
from stpn_tasks.segmentation.positions import cell_centres, sine_positions


def bilinear(value, x, y):
    """Interpolate a map (H, W, d), 0 outside; x and y in cells from the outer edge."""
    height, width, _ = value.shape
    x, y = x - 0.5, y - 0.5
    left, top = math.floor(x.item()), math.floor(y.item())
    result = torch.zeros_like(value[0, 0])
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < height and 0 <= column < width:
                share = (1 - (x - column).abs()) * (1 - (y - row).abs())
                result = result + share * value[row, column]
    return result


def slowly(values, places, weights, grids):
    batch, queries, heads, _, points = weights.shape
    out = torch.zeros(batch, queries, heads, values.shape[3], dtype=values.dtype)
    starts = [sum(h * w for h, w in grids[:i]) for i in range(len(grids))]
    for b, m, h in ((b, m, h) for b in range(batch) for m in range(queries) for h in range(heads)):
        for level, (start, (height, width)) in enumerate(zip(starts, grids, strict=True)):
            flat = values[b, start : start + height * width, h]
            for p in range(points):
                x, y = places[b, m, h, level, p] * torch.tensor([width, height])
                found = bilinear(flat.unflatten(0, (height, width)), x, y)
                out[b, m, h] += weights[b, m, h, level, p] * found
    return out.flatten(2)


def random_inputs(batch, queries, heads, width, grids, points, seed=0):
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    num_tokens = sum(height * width_ for height, width_ in grids)
    values = torch.randn(batch, num_tokens, heads, width, **options)
    # Some places lie outside the map.
    places = torch.rand(batch, queries, heads, len(grids), points, 2, **options) * 1.4 - 0.2
    weights = torch.rand(batch, queries, heads, len(grids), points, **options)
    return values, places, weights


@settings(max_examples=20, deadline=None)
@given(
    batch=st.integers(1, 2),
    queries=st.integers(1, 3),
    heads=st.integers(1, 3),
    points=st.integers(1, 3),
    grids=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=3),
    seed=st.integers(0, 1000),
)
def test_equals_a_loop_over_every_place(batch, queries, heads, points, grids, seed):
    inputs = random_inputs(batch, queries, heads, 2, grids, points, seed)
    gathered = gather_from_levels(*inputs, grids)
    assert gathered.shape == (batch, queries, heads * 2)
    assert_close(gathered, slowly(*inputs, grids))


def test_gradients_equal_differences_and_those_of_the_loop():
    grids = [(2, 3), (4, 2)]
    inputs = [x.requires_grad_() for x in random_inputs(2, 3, 2, 2, grids, 2)]
    assert torch.autograd.gradcheck(lambda *x: gather_from_levels(*x, grids), inputs)
    generator = torch.Generator().manual_seed(1)
    upstream = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    expected = torch.autograd.grad(slowly(*inputs, grids), inputs, upstream)
    assert_close(
        torch.autograd.grad(gather_from_levels(*inputs, grids), inputs, upstream), expected
    )


def test_heads_begin_by_looking_in_directions_of_their_own():
    attention = DeformableAttention(64, 3, num_heads=8, num_points=4)
    offsets = attention.offsets.bias.view(8, 3, 4, 2)
    assert_close(offsets[0, 0], torch.tensor([[1.0, 0], [2, 0], [3, 0], [4, 0]]), atol=1e-6, rtol=0)
    assert_close(offsets[3, 2, 1], torch.tensor([-2.0, 2.0]))
    assert_close(offsets.abs().amax(-1), torch.arange(1.0, 5).expand(8, 3, 4))
    assert offsets.std().item() == pytest.approx(2.378, abs=1e-3)
    for zero in (attention.offsets.weight, attention.weights.weight, attention.weights.bias):
        assert not zero.any()
    for layer in (attention.values, attention.output):
        assert not layer.bias.any()
        assert layer.weight.abs().max().item() == pytest.approx((6 / 128) ** 0.5, rel=0.01)


def test_a_constant_map_is_returned_as_it_is_seen_inside():
    attention = DeformableAttention(32, 1, num_heads=4, num_points=2)
    with torch.no_grad():
        attention.offsets.bias.zero_()
    tokens = torch.ones(1, 6, 32)
    out = attention(tokens, tokens, cell_centres((2, 3), tokens), [(2, 3)])
    assert_close(out, attention.output(attention.values(tokens)))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="divide the width 32, got 5"):
        DeformableAttention(32, 1, num_heads=5)


def test_positions_tell_rows_and_columns_apart():
    like = torch.zeros((), dtype=torch.float64)
    positions = sine_positions((3, 5), 8, like).unflatten(0, (3, 5))
    assert positions.dtype == torch.float64
    assert (positions[:, :1, :4] == positions[:, :, :4]).all()
    assert (positions[:1, :, 4:] == positions[:, :, 4:]).all()
    # Channel pairs are sine and cosine of the place, which is 2 pi at the last row.
    angle = torch.tensor(2 * math.pi * 2 / (3 + 1e-6), dtype=torch.float64)
    slower = angle / 10000**0.5
    expected = torch.stack((angle.sin(), angle.cos(), slower.sin(), slower.cos()))
    assert_close(positions[1, 0, :4], expected)
    assert len(positions.flatten(0, 1).round(decimals=6).unique(dim=0)) == 15


def test_centres_are_x_and_y_in_shares_of_the_map():
    centres = cell_centres((2, 4), torch.zeros(()))
    assert_close(centres[0], torch.tensor([0.125, 0.25]))
    assert_close(centres[-1], torch.tensor([0.875, 0.75]))
    assert_close(centres[1] - centres[0], torch.tensor([0.25, 0.0]))
