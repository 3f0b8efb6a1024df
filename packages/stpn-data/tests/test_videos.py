import numpy as np
import pytest

from stpn_data import FrameObjects


def objects(**changes):
    arrays = {
        "boxes_xyxy": np.zeros((2, 4), np.float32),
        "labels": np.zeros(2, np.int64),
        "track_ids": np.arange(2),
        "is_crowd": np.zeros(2, np.bool_),
        "masks": np.zeros((2, 5, 6), np.bool_),
    }
    return FrameObjects(**(arrays | changes))


def test_objects_of_one_frame_are_counted():
    assert len(objects()) == 2
    assert len(objects(masks=None)) == 2


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("boxes_xyxy", np.zeros((2, 4))),
        ("boxes_xyxy", np.zeros((2, 5), np.float32)),
        ("labels", np.zeros(3, np.int64)),
        ("labels", np.zeros(2, np.int32)),
        ("track_ids", np.zeros((2, 1), np.int64)),
        ("is_crowd", np.zeros(2, np.int64)),
        ("masks", np.zeros((1, 5, 6), np.bool_)),
        ("masks", np.zeros((2, 5), np.bool_)),
        ("masks", np.zeros((2, 5, 6), np.uint8)),
    ],
)
def test_an_array_that_does_not_fit_is_named(name, array):
    with pytest.raises(ValueError, match=name):
        objects(**{name: array})
