"""EigenCAM against its definition by numpy's SVD, and what must not change it."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stpn_tasks.analysis.eigen_cam import eigen_cam, join_levels


def activations(seed, channels=5, height=4, width=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(channels, height, width, generator=generator, dtype=torch.float64)


def by_numpy(values):
    """The definition, with numpy's SVD; also tells how far apart the first two values are."""
    matrix = values.numpy().reshape(len(values), -1).T
    matrix = matrix - matrix.mean(0)
    _, singular, vt = np.linalg.svd(matrix, full_matrices=False)
    projected = matrix @ vt[0]
    weighted = float(((matrix**2).sum(1) * projected).sum())
    positive = np.maximum(projected * np.sign(weighted), 0)
    gap = 1.0 if len(singular) == 1 else 1 - singular[1] / singular[0]
    return (positive / max(positive.max(), 1e-300)).reshape(values.shape[1:]), gap, abs(weighted)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(2, 6), st.integers(1, 6))
def test_the_map_is_the_projection_on_the_first_right_singular_vector(seed, c, h, w):
    values = activations(seed, c, h, w)
    expected, gap, weighted = by_numpy(values)
    assume(gap > 1e-3)
    assume(weighted > 1e-6)
    np.testing.assert_allclose(eigen_cam(values).numpy(), expected, atol=1e-8)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.floats(1e-12, 1e12), st.booleans())
def test_scale_and_sign_of_all_activations_do_not_matter(seed, factor, negative):
    values = activations(seed)
    _, gap, weighted = by_numpy(values)
    assume(gap > 1e-3)
    assume(weighted > 1e-6)
    scaled = values * (-factor if negative else factor)
    torch.testing.assert_close(eigen_cam(scaled), eigen_cam(values), rtol=0, atol=1e-8)


def test_a_number_added_to_a_channel_does_not_matter():
    values = activations(0)
    shifted = values + torch.arange(5.0, dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(eigen_cam(shifted), eigen_cam(values), rtol=0, atol=1e-8)


def test_what_stands_out_is_bright_whether_it_is_more_or_less_than_the_rest():
    for value in (3.0, -3.0):
        values = torch.zeros(4, 5, 7)
        values[:, 2, 3] = value
        heat = eigen_cam(values)
        assert heat[2, 3] == 1
        assert heat.sum() == 1


def test_a_map_reaches_from_0_to_1():
    heat = eigen_cam(activations(1))
    assert heat.min() == 0
    assert heat.max() == 1


@pytest.mark.parametrize("value", [0.0, 0.1, 1e20])
def test_equal_activations_have_a_map_of_zeros(value):
    assert torch.equal(eigen_cam(torch.full((3, 4, 5), value)).float(), torch.zeros(4, 5))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_refused(value):
    values = activations(0)
    values[1, 2, 3] = value
    with pytest.raises(ValueError, match="not finite"):
        eigen_cam(values)


def test_one_level_is_its_absolute_values():
    level = activations(0)[None]
    torch.testing.assert_close(join_levels([level]), level[0].abs(), rtol=0, atol=0)


def test_many_levels_are_put_side_by_side_at_the_size_of_the_first():
    fine, coarse = activations(0, 2, 8, 12)[None], -torch.ones(1, 3, 4, 6, dtype=torch.float64)
    joined = join_levels([fine, coarse])
    assert joined.shape == (5, 8, 12)
    assert torch.equal(joined[:2], fine[0].abs())
    assert torch.equal(joined[2:], torch.ones(3, 8, 12, dtype=torch.float64))


def test_the_same_level_twice_gives_the_map_of_the_level():
    level = activations(3)[None]
    twice, once = eigen_cam(join_levels([level, level])), eigen_cam(join_levels([level]))
    torch.testing.assert_close(twice, once, rtol=0, atol=1e-8)


def test_padding_has_no_say():
    level = activations(0, 3, 8, 10)[None]
    padded = torch.nn.functional.pad(level, (0, 6, 0, 8), value=100.0)
    joined = join_levels([padded], shown=(8 / 16, 10 / 16))
    assert torch.equal(joined, level[0].abs())
