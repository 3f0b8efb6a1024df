import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpn_tasks.draw import COLOURS, draw_boxes, enlarge

GREY = np.full((60, 80, 3), 128, np.uint8)
CLASSES = ("cat", "dog")


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def test_a_box_is_drawn_in_the_colour_of_its_class_and_the_image_stays_as_it_was():
    image = GREY.copy()
    drawn = draw_boxes(image, boxes((10, 30, 50, 55)), np.array([1]), CLASSES)
    assert (image == GREY).all()
    assert drawn.shape == GREY.shape
    assert drawn.dtype == np.uint8
    for y, x in ((55, 30), (40, 10), (40, 50)):  # bottom, left and right edge
        assert tuple(drawn[y, x]) == COLOURS[1]
    assert (drawn[35:50, 15:45] == 128).all()  # not filled
    assert (drawn[57:] == 128).all()


def test_the_name_stands_above_the_box_inside_the_image():
    above = draw_boxes(GREY, boxes((10, 30, 50, 55)), np.array([0]), CLASSES)
    assert (above[20:30] != 128).any()
    top = draw_boxes(
        GREY, boxes((70, 0, 79, 59)), np.array([0]), CLASSES, np.array([0.5], np.float32)
    )
    assert (top[2:8, 30:70] != 128).any()  # moved left, so that all of it is seen


def test_names_are_as_high_as_asked_and_lines_as_bold():
    canvas = np.full((200, 400, 3), 128, np.uint8)
    heights = []
    for height in (12, 36):
        drawn = draw_boxes(
            canvas, boxes((20, 90, 380, 180)), np.array([0]), CLASSES, letters=height
        )
        white = (drawn == 255).all(-1).any(1)
        heights.append(int(white.sum()))
        assert (drawn[150, :60] == COLOURS[0]).all(-1).sum() >= height // 8
    assert heights[1] == pytest.approx(3 * heights[0], abs=4)


def test_names_are_black_on_light_colours_and_white_on_dark_ones():
    names = [str(index) for index in range(10)]
    canvas = np.full((60, 80, 3), 128, np.uint8)
    for label, expected in ((0, 255), (8, 0)):  # red and yellow
        drawn = draw_boxes(canvas, boxes((10, 30, 70, 55)), np.array([label]), names, letters=12)
        assert (drawn == expected).all(-1).any()
        assert not (drawn == 255 - expected).all(-1).any()


def tops(*rows):
    """Where the name of each box begins: the first of several rows filled with its colour."""
    canvas = np.full((120, 160, 3), 128, np.uint8)
    names = ["xxxx"] * len(COLOURS)
    drawn = draw_boxes(canvas, boxes(*rows), np.arange(len(rows)), names, letters=10)
    filled = [(drawn == colour).all(-1).sum(1) > 6 for colour in COLOURS[: len(rows)]]
    return [next(y for y in range(120) if rows_[y : y + 5].all()) for rows_ in filled]


def test_a_name_gives_way_to_the_names_before_it():
    (alone,) = tops((20, 60, 60, 100))
    assert alone < 50  # above its box
    assert tops((20, 60, 60, 100), (90, 60, 130, 100)) == [alone, alone]
    assert tops((20, 60, 60, 100), (22, 62, 62, 90)) == [alone, pytest.approx(91, abs=2)]  # below
    inside = tops((20, 60, 60, 118), (22, 62, 62, 117))  # below would be outside the image
    assert inside == [alone, pytest.approx(63, abs=2)]


def test_boxes_lie_over_the_names():
    drawn = draw_boxes(
        np.full((80, 80, 3), 128, np.uint8),
        boxes((20, 30, 26, 36), (10, 38, 70, 70)),
        np.array([0, 1]),
        CLASSES,
        letters=12,
    )
    assert tuple(drawn[36, 23]) == COLOURS[0]  # under the name of the second box


def test_scores_are_written():
    one, other = (
        draw_boxes(
            GREY, boxes((10, 30, 50, 55)), np.array([0]), CLASSES, np.array([score], np.float32)
        )
        for score in (0.11, 0.88)
    )
    assert (one != other).any()


def test_no_boxes_leave_the_image():
    assert (draw_boxes(GREY, boxes(), np.zeros(0, np.int64), CLASSES) == GREY).all()


def test_boxes_without_labels_are_refused():
    with pytest.raises(ValueError, match="zip"):
        draw_boxes(GREY, boxes((1, 2, 3, 4)), np.zeros(0, np.int64), CLASSES)


@settings(deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(-200, 200, width=32)] * 4), max_size=4),
    st.integers(0, 30),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
)
def test_any_box_on_any_image_can_be_drawn(rows, label, size):
    image = np.zeros((*size, 3), np.uint8)
    labels = np.full(len(rows), label)
    names = [f"class {i}" for i in range(31)]
    assert draw_boxes(image, boxes(*rows), labels, names).shape == image.shape


def test_enlarging_repeats_pixels():
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    large = enlarge(image, 3)
    assert large.shape == (6, 9, 3)
    assert (large[::3, ::3] == image).all()
    assert (large[2::3, 1::3] == image).all()
