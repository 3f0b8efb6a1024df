import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpn_tasks.tracking import crops
from stpn_tasks.tracking.crops import CropWindow, clip_box, to_input

FRAME = (24, 32)
places = st.floats(-60, 60)
sides = st.floats(0.5, 40)
boxes = st.tuples(places, places, sides, sides)


@settings(deadline=None)
@given(boxes, st.floats(0.5, 5), st.integers(2, 20))
def test_only_padding_is_black(box, factor, size):
    window = CropWindow.around(box, factor, size)
    crop = window.cut(np.full((*FRAME, 3), 200, np.uint8))
    padding = window.padding(FRAME)
    assert crop.shape == (size, size, 3)
    assert padding.shape == (size, size)
    assert (crop[~padding] == 200).all()
    rows, columns = np.ogrid[: window.side, : window.side]
    inside = (rows + window.top >= 0) & (rows + window.top < FRAME[0] - 1)
    inside = inside & (columns + window.left >= 0) & (columns + window.left < FRAME[1] - 1)
    if size == window.side:  # no pixel is mixed from two
        np.testing.assert_array_equal(padding, ~inside)
    if not inside.any():
        assert padding.all()
        assert not crop.any()


def test_pixels_keep_their_places():
    frame = np.arange(24 * 32 * 3, dtype=np.uint16).reshape(24, 32, 3).astype(np.uint8)
    window = CropWindow.around((10.0, 6.0, 4.0, 4.0), 2.0, 8)
    assert (window.left, window.top, window.side) == (8, 4, 8)
    np.testing.assert_array_equal(window.cut(frame), frame[4:12, 8:16])
    corner = CropWindow.around((-2.0, -2.0, 4.0, 4.0), 1.0, 4)
    expected = np.zeros((4, 4, 3), np.uint8)
    expected[2:, 2:] = frame[:2, :2]
    np.testing.assert_array_equal(corner.cut(frame), expected)


def test_a_square_too_large_for_memory_is_sampled_to_nearly_the_same_crop(monkeypatch):
    frame = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    for box in ((5.0, 6.0, 14.0, 9.0), (-20.0, 3.0, 30.0, 30.0), (15.0, 15.0, 20.0, 12.0)):
        window = CropWindow.around(box, 3.0, 20)
        monkeypatch.setattr(crops, "_LARGEST_SQUARE", 10**9)
        expected = window.cut(frame).astype(int)
        monkeypatch.setattr(crops, "_LARGEST_SQUARE", 1)
        # Places are rounded to 1/32 of a pixel: up to 1/64 of the range in either direction.
        assert np.abs(window.cut(frame) - expected).max() <= 10
        assert expected.max() > 100
    monkeypatch.undo()
    tracemalloc.start()
    assert CropWindow.around((0.0, 0.0, 1e5, 1e5), 5.0, 20).cut(frame).shape == (20, 20, 3)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


@given(boxes, boxes, st.floats(1, 5), st.integers(16, 64))
def test_inference_undoes_training_but_for_half_a_pixel(box, around, factor, size):
    window = CropWindow.around(around, factor, size)
    left, top, right, bottom = window.to_crop(box)
    middle = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
    back = window.to_frame(middle)
    half = 0.5 / window.scale
    np.testing.assert_allclose(back, np.subtract(box, (half, half, 0, 0)), atol=1e-9)


@given(boxes, st.integers(1, 20))
def test_a_clipped_box_lies_on_the_frame(box, margin):
    x, y, w, h = clip_box(box, FRAME, margin)
    assert x >= 0
    assert y >= 0
    assert x + w <= FRAME[1] + 1e-9
    assert y + h <= FRAME[0] + 1e-9
    assert min(w, h) >= margin


def test_a_margin_is_at_most_the_frame():
    assert clip_box((1.0, 1.0, 2.0, 2.0), (4, 40), 10) == (1.0, 0.0, 10, 4)


@pytest.mark.parametrize(
    "box",
    [(0.0, 0.0, 0.0, 5.0), (0.0, 0.0, 5.0, -1.0), (0.0, 0.0, 5.0, np.nan), (np.inf, 0.0, 5.0, 5.0)],
)
def test_a_box_without_an_area_is_refused(box):
    with pytest.raises(ValueError, match="box with an area"):
        CropWindow.around(box, 2.0, 8)


@pytest.mark.parametrize(
    "box",
    [
        (0.0, 0.0, 1e-200, 1e-200),
        (0.0, 0.0, 1e200, 1e200),
        (0.0, 0.0, 1e100, 1e100),
        (1.7e308, 0.0, 1.7e308, 1e-308),
    ],
)
def test_a_box_whose_crop_has_no_side_or_no_centre_is_refused(box):
    with pytest.raises(ValueError, match=r"a side of 1 to 16777216 pixels and a centre: .* are "):
        CropWindow.around(box, 2.0, 8)


@pytest.mark.parametrize("length", [1e-100, 0.1, 4e3, 8e6])
@pytest.mark.parametrize("place", [-1e300, -4e3, 0.0, 1e300])
@pytest.mark.parametrize("frame_size", [(1, 32), (24, 1), (1, 1), FRAME])
def test_every_other_box_has_a_crop(place, length, frame_size):
    window = CropWindow.around((place, place, length, length), 2.0, 8)
    crop = window.cut(np.full((*frame_size, 3), 200, np.uint8))
    assert crop.shape == (8, 8, 3)
    if 1 in frame_size or abs(place) > 1e4:  # the last row and column count as outside
        assert not crop.any()


def test_inputs_are_normalised():
    black, grey = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 128, np.uint8)
    images = to_input([black, grey])
    assert images.shape == (2, 3, 4, 4)
    for channel, (mean, deviation) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        assert images[0, channel].numpy() == pytest.approx(-mean / deviation, rel=1e-5)
        expected = (128 / 255 - mean) / deviation
        assert images[1, channel].numpy() == pytest.approx(expected, rel=1e-5)
