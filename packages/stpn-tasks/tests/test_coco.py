import contextlib
import io
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpn_tasks.metrics import (
    AveragePrecision,
    FrameDetections,
    FrameTruth,
    coco_average_precision,
    coco_average_precision_by_condition,
)

CLASSES = ("cat", "dog")


def truth(*rows, crowd=(), conditions=()):
    """Rows are x1, y1, x2, y2, label."""
    rows = np.array(rows, dtype=np.float64).reshape(-1, 5)
    is_crowd = np.isin(np.arange(len(rows)), crowd)
    boxes, labels = rows[:, :4].astype(np.float32), rows[:, 4].astype(np.int64)
    return FrameTruth(boxes, labels, is_crowd, frozenset(conditions))


def found(*rows):
    """Rows are x1, y1, x2, y2, label, score."""
    rows = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return FrameDetections(
        rows[:, :4].astype(np.float32), rows[:, 5].astype(np.float32), rows[:, 4].astype(np.int64)
    )


BOX = (10, 10, 50, 50)  # 40 x 40: medium


def test_perfect_detections_score_one_in_their_area_only():
    result = coco_average_precision([truth((*BOX, 0))], [found((*BOX, 0, 0.9))], CLASSES)
    assert (result.ap, result.ap50, result.ap75, result.ap_medium) == pytest.approx((1, 1, 1, 1))
    assert math.isnan(result.ap_small)
    assert math.isnan(result.ap_large)


def test_a_shifted_box_counts_up_to_its_overlap():
    # 40 x 40 moved by 8: intersection 32 * 40, union 48 * 40, IoU 2/3: 0.50 .. 0.65 match.
    result = coco_average_precision([truth((*BOX, 0))], [found((18, 10, 58, 50, 0, 0.9))], CLASSES)
    assert result.ap50 == pytest.approx(1)
    assert result.ap75 == 0
    assert result.ap == pytest.approx(4 / 10)


def test_precision_is_interpolated_at_101_recalls():
    # Right, wrong, right over two objects: precision 1 up to recall 0.5, then 2/3.
    objects = [truth((*BOX, 0)), truth((*BOX, 0))]
    detections = [
        found((*BOX, 0, 0.9), (200, 200, 240, 240, 0, 0.8)),
        found((*BOX, 0, 0.7)),
    ]
    expected = (51 * 1 + 50 * 2 / 3) / 101
    result = coco_average_precision(objects, detections, CLASSES)
    assert result.ap50 == pytest.approx(expected)
    assert result.curve50 == pytest.approx([1] * 51 + [2 / 3] * 50)


def test_the_curve_is_the_mean_over_classes_with_objects_and_empty_without():
    objects = [truth((*BOX, 0)), truth((*BOX, 1))]
    result = coco_average_precision(objects, [found((*BOX, 0, 0.9)), found()], CLASSES)
    assert result.curve50 == pytest.approx([0.5] * 101)
    assert sum(result.curve50) / 101 == pytest.approx(result.ap50)
    assert coco_average_precision([truth()], [found()], CLASSES).curve50 == ()


def test_the_mean_is_over_classes_with_objects():
    objects = [truth((*BOX, 0), (60, 60, 90, 90, 1))]
    only_cat = [found((*BOX, 0, 0.9))]
    assert coco_average_precision(objects, only_cat, CLASSES).ap == pytest.approx(0.5)
    assert coco_average_precision(objects, only_cat, (*CLASSES, "eel")).ap == pytest.approx(0.5)
    wrong_class = [found((*BOX, 1, 0.9))]
    assert coco_average_precision([truth((*BOX, 0))], wrong_class, CLASSES).ap == 0


@pytest.mark.parametrize(("side", "name"), [(20, "small"), (60, "medium"), (120, "large")])
def test_areas_are_those_of_the_boxes(side, name):
    box = (0, 0, side, side)
    result = coco_average_precision([truth((*box, 0))], [found((*box, 0, 1))], CLASSES)
    for area in ("small", "medium", "large"):
        value = getattr(result, f"ap_{area}")
        assert value == pytest.approx(1) if area == name else math.isnan(value)


def test_a_detection_in_a_crowd_is_no_error():
    crowd = (100, 0, 200, 100)
    inside = [found((*BOX, 0, 0.5), (110, 10, 150, 50, 0, 0.9), (120, 20, 150, 70, 0, 0.8))]
    objects = [truth((*BOX, 0), (*crowd, 0), crowd=[1])]
    assert coco_average_precision(objects, inside, CLASSES).ap50 == pytest.approx(1)
    no_crowd = [truth((*BOX, 0))]
    assert coco_average_precision(no_crowd, inside, CLASSES).ap50 == pytest.approx(1 / 3)


def test_nothing_found_and_nothing_to_find():
    assert coco_average_precision([truth((*BOX, 0))], [found()], CLASSES).ap == 0
    for objects, detections in (
        ([truth()], [found((*BOX, 0, 0.9))]),
        ([truth()], [found()]),
        ([], []),
    ):
        assert math.isnan(coco_average_precision(objects, detections, CLASSES).ap)


def test_each_condition_counts_its_own_frames(capsys):
    objects = [
        truth((*BOX, 0), conditions={"clean", "slow"}),
        truth((*BOX, 0), conditions={"blurred", "slow"}),
        truth((*BOX, 0), conditions={"blurred"}),
        truth(conditions={"empty"}),
    ]
    detections = [found((*BOX, 0, 0.9)), found(), found((*BOX, 0, 0.8)), found((*BOX, 0, 0.7))]
    results = coco_average_precision_by_condition(objects, detections, CLASSES)
    assert list(results) == ["all", "blurred", "clean", "empty", "slow"]
    assert results["clean"].ap == pytest.approx(1)
    assert results["blurred"].ap == results["slow"].ap == pytest.approx(51 / 101)
    assert math.isnan(results["empty"].ap)
    assert results["all"].ap == pytest.approx(67 / 101)  # recalls 0 .. 0.66
    assert capsys.readouterr().out == ""


def random_frames(seed, count):
    rng = np.random.default_rng(seed)
    objects, detections = [], []
    for _ in range(count):
        n, m = rng.integers(0, 4), rng.integers(0, 7)
        corner = rng.uniform(0, 100, (n + m, 2))
        boxes = np.concatenate((corner, corner + rng.uniform(5, 120, (n + m, 2))), axis=1)
        labels = rng.integers(0, 2, n + m)
        near = rng.integers(0, n, m) if n else np.zeros(0, np.int64)
        boxes[n : n + len(near)] = boxes[near] + rng.normal(0, 3, (len(near), 4))
        boxes[:, 2:] = np.maximum(boxes[:, :2], boxes[:, 2:])
        labels[n : n + len(near)] = labels[near]
        objects.append(
            FrameTruth(
                boxes[:n].astype(np.float32),
                labels[:n],
                rng.random(n) < 0.2,
                frozenset(name for name in ("a", "b") if rng.random() < 0.5),
            )
        )
        detections.append(FrameDetections(boxes[n:].astype(np.float32), rng.random(m), labels[n:]))
    return objects, detections


def numbers(result):
    return [result.ap, result.ap50, result.ap75, result.ap_small, result.ap_medium, result.ap_large]


def reference(objects, detections):
    """Return what pycocotools says: the six numbers and the curve at IoU 0.5."""
    # Of the tools of the workspace: where the package is tested alone it is not there.
    official = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")

    def coco(frames, field, name):
        rows = [
            {
                "image_id": i,
                "category_id": int(label),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                name: float(value),
            }
            for i, frame in enumerate(frames)
            for (x1, y1, x2, y2), label, value in zip(
                frame.boxes_xyxy.astype(np.float64).tolist(),
                frame.labels,
                getattr(frame, field),
                strict=True,
            )
        ]
        made = official.COCO()
        made.dataset = {
            "images": [{"id": i} for i in range(len(frames))],
            "categories": [{"id": label} for label in range(len(CLASSES))],
            "annotations": [{"id": i, "iscrowd": 0, **row} for i, row in enumerate(rows, 1)],
        }
        made.createIndex()
        return made

    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = evaluation.COCOeval(
            coco(objects, "is_crowd", "iscrowd"), coco(detections, "scores", "score"), "bbox"
        )
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    curve = evaluator.eval["precision"][0, :, :, 0, -1]
    curve = curve[:, (curve > -1).all(axis=0)]
    six = np.where(evaluator.stats[:6] > -1, evaluator.stats[:6], math.nan)
    return six, curve.mean(axis=1) if curve.size else ()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 30), st.booleans())
def test_the_numbers_are_those_of_pycocotools(seed, count, coarse):
    objects, detections = random_frames(seed, count)
    if coarse:  # boxes, overlaps and scores that are equal
        objects = [replace(o, boxes_xyxy=np.round(o.boxes_xyxy / 8) * 8) for o in objects]
        detections = [
            replace(d, boxes_xyxy=np.round(d.boxes_xyxy / 8) * 8, scores=np.round(d.scores * 4) / 4)
            for d in detections
        ]
    six, curve = reference(objects, detections)
    mine = coco_average_precision(objects, detections, CLASSES)
    np.testing.assert_allclose(numbers(mine), six, atol=1e-12)
    np.testing.assert_allclose(mine.curve50, curve, atol=1e-12)


@pytest.mark.parametrize(("left", "expected"), [(18, 51 / 101), (-6, 1)])
def test_of_two_objects_that_are_overlapped_alike_the_last_is_taken(left, expected):
    def box(left, *rest):
        return (left, 0, left + 39, 39, 0, *rest)

    objects, detections = [truth(box(0), box(12))], [found(box(6, 0.9), box(left, 0.8))]
    result = coco_average_precision(objects, detections, CLASSES)
    assert result.ap50 == pytest.approx(expected)
    np.testing.assert_allclose(numbers(result), reference(objects, detections)[0], atol=1e-12)


def test_a_hundred_detections_of_a_frame_and_class_count_like_those_of_pycocotools():
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0, 100, (40, 2))
    boxes = np.concatenate((boxes, boxes + 40), axis=1)
    objects = [truth(*np.column_stack((boxes, np.arange(40) % 2)))] * 2
    rows = np.column_stack((np.tile(boxes, (8, 1)), np.arange(320) % 2, rng.random(320)))
    rows[:, :4] += rng.normal(0, 4, (320, 4))
    detections = [found(*rows), found(*rows[:50])]
    six, _ = reference(objects, detections)
    np.testing.assert_allclose(
        numbers(coco_average_precision(objects, detections, CLASSES)), six, atol=1e-12
    )
    fewer = found(*(row for row in rows if row[4] == 1))
    best = np.sort(fewer.scores)[-100]
    rest = fewer.scores < best
    assert rest.sum() == 60
    more = FrameDetections(fewer.boxes_xyxy, np.where(rest, 0, fewer.scores), fewer.labels)
    first, second = (coco_average_precision(objects[:1], [d], CLASSES) for d in (fewer, more))
    np.testing.assert_equal(numbers(first), numbers(second))


@settings(max_examples=10)
@given(st.integers(0, 2**31))
def test_a_split_equals_its_frames_alone(seed):
    objects, detections = random_frames(seed, 12)
    for name, result in coco_average_precision_by_condition(objects, detections, CLASSES).items():
        inside = [i for i, o in enumerate(objects) if name == "all" or name in o.conditions]
        alone = coco_average_precision(
            [objects[i] for i in inside], [detections[i] for i in inside], CLASSES
        )
        np.testing.assert_allclose(numbers(result), numbers(alone))


@settings(max_examples=10)
@given(st.integers(0, 2**31))
def test_the_order_of_frames_does_not_matter(seed):
    objects, detections = random_frames(seed, 8)
    order = np.random.default_rng(seed).permutation(8)
    shuffled = coco_average_precision(
        [objects[i] for i in order], [detections[i] for i in order], CLASSES
    )
    expected = coco_average_precision(objects, detections, CLASSES)
    np.testing.assert_allclose(numbers(shuffled), numbers(expected))


@pytest.mark.parametrize(
    ("objects", "detections", "message"),
    [
        ([truth()], [], "1 frames of objects, 0 of detections"),
        ([truth(), truth((*BOX, 2))], [found()] * 2, r"objects of frame 1: label 2 .*\[0, 2\)"),
        ([truth()], [found((*BOX, -1, 0.5))], "detections of frame 0: label -1"),
        ([truth()], [found((*BOX, 0, math.nan))], "detections of frame 0: .*not finite"),
        ([truth((1, 2, math.inf, 4, 0))], [found()], "objects of frame 0: .*not finite"),
        ([truth(conditions={"all"})], [found()], "'all'"),
    ],
)
def test_wrong_frames_are_named(objects, detections, message):
    with pytest.raises(ValueError, match=message):
        coco_average_precision(objects, detections, CLASSES)


def test_arrays_of_a_frame_agree():
    wrong = FrameDetections(np.zeros((2, 4)), np.zeros(3), np.zeros(2, np.int64))
    with pytest.raises(ValueError, match=r"detections of frame 0: boxes \(2, 4\)"):
        coco_average_precision([truth()], [wrong], CLASSES)


def test_results_are_frozen():
    result = AveragePrecision(*[0.0] * 6)
    with pytest.raises(AttributeError):
        result.ap = 1.0
