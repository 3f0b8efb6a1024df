"""Precise RoI pooling is an exact integral, differentiable in map and box."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from stpn_tasks.tracking.precise_roi_pool import precise_roi_pool

SAMPLES = 24  # per bin and side


def numerically(plane, box, size):
    """Average bilinear samples of a plane, zero outside, over each bin."""
    rows, columns = plane.shape
    x0, y0, x1, y1 = box
    fractions = (np.arange(size * SAMPLES) + 0.5) / (size * SAMPLES)
    y = (y0 + (y1 - y0) * fractions)[:, None]
    x = (x0 + (x1 - x0) * fractions)[None, :]
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    total = np.zeros((len(fractions), len(fractions)))
    for row in (top, top + 1):
        for column in (left, left + 1):
            inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
            node = plane[row.clip(0, rows - 1), column.clip(0, columns - 1)] * inside
            total += node * (1 - abs(y - row)) * (1 - abs(x - column))
    return total.reshape(size, SAMPLES, size, SAMPLES).mean((1, 3))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    size=st.integers(1, 4),
    start=st.tuples(st.floats(-3, 6), st.floats(-3, 6)),
    sides=st.tuples(st.floats(0.01, 5), st.floats(0.01, 5)),
    seed=st.integers(0, 999),
)
def test_equals_numerical_integration(rows, columns, size, start, sides, seed):
    plane = np.random.default_rng(seed).standard_normal((rows, columns))
    box = (*start, start[0] + sides[0], start[1] + sides[1])
    pooled = precise_roi_pool(
        torch.from_numpy(plane)[None, None], torch.tensor([box], dtype=torch.float64), size
    )
    # Midpoints err by a fraction of the squared step, most at the kinks of the interpolation.
    step = max(sides) / (size * SAMPLES)
    np.testing.assert_allclose(
        pooled[0, 0].numpy(), numerically(plane, box, size), atol=8 * step**2
    )


def test_gradients_of_map_and_box():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 2, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor(
        [[0.3, -0.7, 4.6, 2.2], [1.1, 0.4, 2.9, 3.7]], dtype=torch.float64, requires_grad=True
    )
    assert torch.autograd.gradcheck(lambda m, b: precise_roi_pool(m, b, 3), (maps, boxes))


@pytest.mark.parametrize("box", [[2.0, 1.0, 2.0, 3.0], [3.0, 1.0, 1.0, 2.0], [0.0, 2.0, 2.0, 1.0]])
def test_boxes_without_area_give_zeros_and_finite_gradients(box):
    maps = torch.ones(1, 1, 4, 4, requires_grad=True)
    boxes = torch.tensor([box], requires_grad=True)
    pooled = precise_roi_pool(maps, boxes, 2)
    assert torch.equal(pooled, torch.zeros(1, 1, 2, 2))
    pooled.sum().backward()
    assert torch.isfinite(maps.grad).all()
    assert torch.isfinite(boxes.grad).all()


def test_a_constant_map_is_pooled_to_its_constant():
    maps = torch.full((1, 3, 6, 6), 2.5)
    boxes = torch.tensor([[0.5, 1.0, 4.9, 3.0]])
    assert_close(precise_roi_pool(maps, boxes, 4), torch.full((1, 3, 4, 4), 2.5))


@pytest.mark.parametrize("width", [1.0, 0.1, 1e-3, 1e-5, 2e-6])
def test_narrow_boxes_are_as_precise_as_wide_ones(width):
    generator = torch.Generator().manual_seed(0)
    corners = 18 * torch.rand(200, 2, generator=generator)
    corners[:50] = corners[:50].round()  # edges on nodes
    boxes = torch.cat([corners, corners + width], dim=1)
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]
    assert len(boxes) > 100
    ones = torch.ones(1, 1, 20, 20).expand(len(boxes), -1, -1, -1)
    assert_close(
        precise_roi_pool(ones, boxes, 4), torch.ones(len(boxes), 1, 4, 4), atol=1e-6, rtol=0
    )
    maps = torch.randn(len(boxes), 2, 20, 20, generator=generator)
    expected = precise_roi_pool(maps.double(), boxes.double(), 4)
    assert_close(precise_roi_pool(maps, boxes, 4).double(), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_formulas_for_narrow_and_for_wide_bins_meet(size):
    generator = torch.Generator().manual_seed(0)
    plane = torch.randn(1, 1, 6, 6, generator=generator, dtype=torch.float64)
    for start in (0.0, 0.3, 1.5, -0.5):
        pooled = [
            precise_roi_pool(plane, torch.tensor([[start, start, end, end]]).double(), size)
            for end in (start + size * (1 - 1e-10), start + size * (1 + 1e-10))
        ]
        assert_close(*pooled, atol=1e-8, rtol=0)


@pytest.mark.parametrize(
    ("middle", "width"),
    [(0.0, 1e-2), (0.0, 1e-20), (1.0, 1e-2), (1.0, 1e-4), (2.0, 1e-4), (2.3, 1e-2), (2.3, 1e-4)],
)
def test_a_narrow_box_moves_by_the_slopes_around_it(middle, width):
    """At a node, by the mean of the slopes of both sides."""
    plane = torch.tensor([1.0, 3.0, -2.0, 5.0]).expand(1, 1, 4, 4)
    slopes = {0.0: (1 + 2) / 2, 1.0: (2 - 5) / 2, 2.0: (-5 + 7) / 2, 2.3: 7.0}
    place = torch.tensor(middle, requires_grad=True)
    half = torch.tensor(width / 2)
    ones = torch.ones(())
    box = torch.stack([place - half, ones, place + half, 2 * ones])[None]
    precise_roi_pool(plane, box, 1).sum().backward()
    assert_close(place.grad, torch.tensor(slopes[middle]), atol=1e-3, rtol=0)


def test_the_narrowest_boxes_have_finite_gradients():
    for width in (1e-30, 1e-37, 1e-38, 1e-40, 1e-44):
        boxes = torch.tensor([[0.0, 0.0, width, 2.0]], requires_grad=True)
        precise_roi_pool(torch.ones(1, 1, 4, 4), boxes, 4).sum().backward()
        assert torch.isfinite(boxes.grad).all()


def test_each_box_reads_its_own_map():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 2, 5, 5, generator=generator)
    boxes = torch.tensor([[0.0, 0.0, 3.0, 2.0], [1.0, 1.5, 4.0, 4.0]])
    together = precise_roi_pool(maps, boxes, 4)
    for i in range(2):
        assert_close(precise_roi_pool(maps[i : i + 1], boxes[i : i + 1], 4)[0], together[i])
