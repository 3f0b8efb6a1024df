import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stpn_tasks.metrics.got10k import (
    THRESHOLDS,
    TrackTruth,
    clipped_iou,
    frames_per_second,
    got10k_success,
)

SIZE = (60, 100)
BOX = (10.0, 10.0, 20.0, 20.0)
HALF = (10.0, 10.0, 10.0, 20.0)  # the left half of BOX: IoU 1/2
AWAY = (70.0, 30.0, 20.0, 20.0)
NOWHERE = (math.nan,) * 4


def truth(*boxes, counted=None):
    counted = [True] * len(boxes) if counted is None else counted
    return TrackTruth(np.array(boxes), np.array(counted, np.bool_), SIZE)


def evaluate(target, *tracks):
    return got10k_success({"one": target}, {"one": [np.array(boxes) for boxes in tracks]}).overall


def iou(box, other):
    (value,) = clipped_iou(np.array([box]), np.array([other]), SIZE)
    return float(value)


def test_the_first_frame_never_counts():
    success = evaluate(truth(BOX, BOX, BOX), [AWAY, BOX, AWAY])
    assert (success.ao, success.sr50, success.sr75, success.num_frames) == (0.5, 0.5, 0.5, 2)


def test_frames_that_do_not_count_are_left_out_whatever_stands_there():
    target = truth(BOX, NOWHERE, BOX, AWAY, counted=[True, False, True, False])
    success = evaluate(target, [NOWHERE, BOX, BOX, NOWHERE])
    assert (success.ao, success.num_frames) == (1, 1)


def test_an_overlap_of_a_threshold_is_no_success():
    three_quarters = (10.0, 10.0, 15.0, 20.0)
    success = evaluate(truth(BOX, BOX, BOX, BOX), [BOX, HALF, three_quarters, BOX])
    assert success.ao == pytest.approx((0.5 + 0.75 + 1) / 3)
    assert success.sr50 == pytest.approx(2 / 3)
    assert success.sr75 == pytest.approx(1 / 3)
    assert success.curve[0] == 1
    assert success.curve[-1] == 0  # nothing is above 1


def test_the_curve_holds_both_success_rates():
    boxes = [(10, 10, 20 * share, 20) for share in np.linspace(0, 1, 50)]
    success = evaluate(truth(*[BOX] * 50), boxes)
    assert len(success.curve) == len(THRESHOLDS) == 101
    assert (THRESHOLDS[50], THRESHOLDS[75]) == (0.5, 0.75)
    assert (success.sr50, success.sr75) == (success.curve[50], success.curve[75])
    assert list(success.curve) == sorted(success.curve, reverse=True)


def test_frames_are_averaged_not_sequences_nor_repetitions():
    truths = {"long": truth(*[BOX] * 4), "short": truth(BOX, BOX)}
    tracks = {"long": [np.array([BOX] * 4)] * 2, "short": [np.array([BOX, AWAY])]}
    report = got10k_success(truths, tracks)
    assert report.overall.ao == pytest.approx(6 / 7)
    assert report.overall.num_frames == 7
    assert {name: one.ao for name, one in report.by_sequence.items()} == {"long": 1, "short": 0}
    assert report.by_sequence["long"].num_frames == 6


def test_boxes_are_clipped_by_their_corner_so_they_move_at_the_left_and_above():
    assert iou((-10, -10, 20, 20), (0, 0, 20, 20)) == 1
    assert iou((-10, -10, 20, 20), (0, 0, 10, 10)) == pytest.approx(1 / 4)
    assert iou((90, 50, 20, 20), (90, 50, 10, 10)) == 1  # cut on the right and below
    assert iou((100, 60, 5, 5), (100, 60, 7, 7)) == 0  # beside the frame: no area
    assert iou(BOX, (10, 10, -20, 20)) == 0


@given(st.lists(st.tuples(*[st.floats(-200, 200)] * 8), min_size=1, max_size=20))
def test_iou_is_symmetric_within_its_bounds_and_clipping_twice_changes_nothing(rows):
    rows = np.array(rows)
    one, other = rows[:, :4], rows[:, 4:]
    given_rows = rows.copy()
    values = clipped_iou(one, other, SIZE)
    np.testing.assert_array_equal(rows, given_rows)  # which the toolkit changes
    np.testing.assert_allclose(values, clipped_iou(other, one, SIZE), rtol=1e-12, atol=1e-15)
    assert ((values >= 0) & (values <= 1)).all()


def test_without_a_counted_frame_there_is_no_number():
    truths = {"one": truth(BOX, BOX, counted=[True, False]), "two": truth(BOX, BOX)}
    report = got10k_success(truths, {name: [np.array([BOX, BOX])] for name in truths})
    nothing = report.by_sequence["one"]
    assert nothing.num_frames == 0
    assert all(map(math.isnan, (nothing.ao, nothing.sr50, nothing.sr75, *nothing.curve)))
    assert report.overall.ao == 1


def test_speed_is_the_mean_of_the_rates():
    assert frames_per_second(np.array([[0.5, 0.25], [0.0, math.nan]])) == 3
    assert math.isnan(frames_per_second(np.zeros(3)))


@pytest.mark.parametrize(
    ("tracks", "message"),
    [
        ({}, "one: no result"),
        ({"one": []}, "one: no result"),
        ({"one": [np.array([BOX] * 3)], "two": []}, "two: no such sequence"),
        ({"one": [np.array([BOX] * 2)]}, r"one: expected results of shape \(3, 4\), got \(2, 4\)"),
        (
            {"one": [np.array([BOX, BOX, (1, 2, math.inf, 4)])]},
            r"one: the result of frame 2 is not finite: \[1.0, 2.0, inf, 4.0\]",
        ),
    ],
)
def test_results_that_do_not_fit_are_named(tracks, message):
    with pytest.raises(ValueError, match=message):
        got10k_success({"one": truth(BOX, BOX, BOX)}, tracks)


def test_targets_that_cannot_be_are_named():
    result = {"one": [np.array([BOX, BOX])]}
    with pytest.raises(ValueError, match="one: the target of frame 1 is not finite"):
        got10k_success({"one": truth(BOX, NOWHERE)}, result)
    with pytest.raises(ValueError, match=r"one: boxes \(2, 4\) and counted \(1,\)"):
        got10k_success({"one": truth(BOX, BOX, counted=[True])}, result)
    with pytest.raises(ValueError, match="no sequence to evaluate"):
        got10k_success({}, {})
