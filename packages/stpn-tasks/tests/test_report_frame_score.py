import numpy as np
import pytest

from stpn_tasks.metrics import FrameDetections, FrameTruth
from stpn_tasks.report.frame_score import FrameScore, score_frame

LEFT, RIGHT, FAR = (0, 0, 10, 10), (20, 0, 30, 10), (50, 50, 60, 60)


def truth(*objects, crowds=()):
    boxes = [box for box, _ in (*objects, *crowds)]
    labels = [label for _, label in (*objects, *crowds)]
    is_crowd = [False] * len(objects) + [True] * len(crowds)
    return FrameTruth(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        np.array(is_crowd, bool),
    )


def found(*boxes):
    return FrameDetections(
        np.array([box for box, _, _ in boxes], np.float32).reshape(-1, 4),
        np.array([score for _, _, score in boxes], np.float32),
        np.array([label for _, label, _ in boxes], np.int64),
    )


def test_f1_is_twice_the_found_over_objects_and_boxes():
    score = score_frame(truth((LEFT, 0), (RIGHT, 1)), found((LEFT, 0, 0.9), (FAR, 1, 0.8)))
    assert score == FrameScore(num_objects=2, num_found=1, num_wrong=1)
    assert score.f1 == 2 * 1 / (2 + 2)
    assert str(score) == "1/2 found, 1 wrong"


@pytest.mark.parametrize(
    ("boxes", "num_found", "num_wrong"),
    [
        ([(LEFT, 1, 0.9)], 0, 1),  # of another class
        ([(LEFT, 0, 0.29)], 0, 0),  # not counted
        ([(LEFT, 0, 0.3)], 1, 0),
        ([(LEFT, 0, 0.9), (LEFT, 0, 0.8)], 1, 1),  # found twice
        ([((0, 0, 10, 19.9), 0, 0.9)], 1, 0),  # IoU 10 / 19.9
        ([((0, 0, 10, 20.1), 0, 0.9)], 0, 1),
        ([((5, 5, 5, 5), 0, 0.9)], 0, 1),  # without area
    ],
)
def test_a_box_is_right_by_class_score_and_overlap_once(boxes, num_found, num_wrong):
    score = score_frame(truth((LEFT, 0)), found(*boxes))
    assert (score.num_found, score.num_wrong) == (num_found, num_wrong)


def test_the_better_box_goes_first_and_takes_the_object_it_overlaps_most():
    low = (0, 0, 10, 6)  # IoU 0.6 with LEFT
    only_left = (0, 2, 10, 10)  # IoU 0.8 with LEFT, 0.4 with low
    either = (0, 0, 10, 9)  # IoU 0.9 with LEFT, 0.67 with low
    objects = truth((LEFT, 0), (low, 0))
    assert score_frame(objects, found((low, 0, 0.9), (only_left, 0, 0.8))).num_wrong == 0
    assert score_frame(objects, found((either, 0, 0.4), (only_left, 0, 0.9))).num_wrong == 0
    assert score_frame(objects, found((either, 0, 0.9), (only_left, 0, 0.4))).num_wrong == 1


def test_a_frame_without_objects_and_boxes_is_right():
    assert score_frame(truth(), found()).f1 == 1
    assert score_frame(truth(), found((LEFT, 0, 0.9))).f1 == 0
    assert score_frame(truth((LEFT, 0)), found()).f1 == 0


def test_a_crowd_is_neither_to_find_nor_to_punish():
    crowd = truth((LEFT, 0), crowds=[((20, 0, 60, 60), 0)])
    assert score_frame(crowd, found((LEFT, 0, 0.9), (RIGHT, 0, 0.8))) == FrameScore(1, 1, 0)
    assert score_frame(crowd, found((RIGHT, 1, 0.8))) == FrameScore(1, 0, 1)  # of another class
    half_out = (11, 0, 29, 10)  # nine of its eighteen columns are in the crowd
    assert score_frame(crowd, found((half_out, 0, 0.8))).num_wrong == 0
    assert score_frame(crowd, found(((10, 0, 29, 10), 0, 0.8))).num_wrong == 1
