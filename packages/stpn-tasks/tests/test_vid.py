import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpn_kernels.testing import load_golden, shared_path
from stpn_tasks.metrics import FrameDetections, FrameTruth, motion_iou, vid_average_precision
from stpn_tasks.metrics.frames import gather
from stpn_tasks.metrics.vid import MOTION_GROUPS, count_class, motion_groups

CLASSES = ("cat", "dog")
BOX = (10, 10, 49, 49)
SLOW, MEDIUM, FAST = 0.95, 0.8, 0.5


def truth(*rows, crowd=()):
    """Rows are x1, y1, x2, y2, label."""
    rows = np.array(rows, dtype=np.float64).reshape(-1, 5)
    is_crowd = np.isin(np.arange(len(rows)), crowd)
    return FrameTruth(rows[:, :4].astype(np.float32), rows[:, 4].astype(np.int64), is_crowd)


def found(*rows):
    """Rows are x1, y1, x2, y2, label, score."""
    rows = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return FrameDetections(
        rows[:, :4].astype(np.float32), rows[:, 5].astype(np.float32), rows[:, 4].astype(np.int64)
    )


def evaluate(objects, detections, motion=None, classes=CLASSES):
    motion = motion if motion is None else [np.array(values, np.float64) for values in motion]
    return vid_average_precision(objects, detections, classes, motion)


def ap50(objects, detections, motion):
    return {name: one.ap50 for name, one in evaluate(objects, detections, motion).items()}


def test_precision_is_the_best_at_this_recall_or_a_higher_one():
    # Right, wrong, right over three objects: 1 for the first, 2/3 for the second, 0 for the third.
    objects = [truth((*BOX, 0)), truth((*BOX, 0)), truth((*BOX, 0))]
    detections = [
        found((*BOX, 0, 0.9), (200, 200, 240, 240, 0, 0.8)),
        found((*BOX, 0, 0.7)),
        found(),
    ]
    (result,) = evaluate(objects, detections).values()
    assert result.by_class["cat"] == pytest.approx((1 + 2 / 3) / 3)
    assert math.isnan(result.by_class["dog"])
    assert result.ap50 == result.by_class["cat"]
    assert result.num_objects == {"cat": 3, "dog": 0}


def test_an_object_is_found_once_by_the_best_score_that_overlaps_it():
    twice = [found((*BOX, 0, 0.5), (*BOX, 0, 0.9))]
    both = [truth((*BOX, 0), (100, 100, 139, 139, 0))]
    assert evaluate(both, twice)["all"].ap50 == pytest.approx(1 / 2)
    late = [found((*BOX, 0, 0.9), (*BOX, 0, 0.8), (100, 100, 139, 139, 0, 0.7))]
    assert evaluate(both, late)["all"].ap50 == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize(("right", "expected"), [(9, 1), (8, 0)])
def test_a_side_is_two_pixels_longer_than_its_corners_are_apart(right, expected):
    # 22 x 22 pixels of the object hold 11 x 22 of the box that ends at 9: exactly a half.
    (result,) = evaluate([truth((0, 0, 20, 20, 0))], [found((0, 0, right, 20, 0, 1))]).values()
    assert result.ap50 == pytest.approx(expected)


def test_each_group_has_its_objects_and_what_finds_another_is_no_error():
    objects = [truth((*BOX, 0)), truth((*BOX, 0)), truth((*BOX, 0))]
    detections = [found((*BOX, 0, 0.9)), found((*BOX, 0, 0.8)), found()]
    found_by = ap50(objects, detections, [[SLOW], [MEDIUM], [FAST]])
    assert found_by == pytest.approx({"all": 2 / 3, "slow": 1, "medium": 1, "fast": 0})
    assert list(found_by) == list(MOTION_GROUPS)
    assert math.isnan(ap50(objects, detections, [[SLOW]] * 3)["fast"])


def test_a_motion_on_a_bound_is_in_both_groups():
    result = evaluate([truth((*BOX, 0))] * 2, [found()] * 2, [[0.7], [0.9]])
    number = {name: one.num_objects["cat"] for name, one in result.items()}
    assert number == {"all": 2, "slow": 1, "medium": 2, "fast": 1}


def test_a_wrong_box_is_charged_to_the_group_whose_object_is_nearer():
    objects = [truth((0, 0, 39, 39, 0), (100, 0, 139, 39, 0))]
    near_the_first = found(
        (20, 20, 80, 80, 0, 0.9), (0, 0, 39, 39, 0, 0.8), (100, 0, 139, 39, 0, 0.7)
    )
    result = ap50(objects, [near_the_first], [[SLOW, FAST]])
    assert result == pytest.approx(
        {"all": 2 / 3, "slow": 1 / 2, "medium": math.nan, "fast": 1}, nan_ok=True
    )


def test_a_wrong_box_near_none_is_shared_out_by_the_objects_of_its_class():
    corners = [(0, 0, 39, 39, 0), (100, 0, 139, 39, 0), (200, 0, 239, 39, 0), (0, 200, 39, 239, 1)]
    alone = (300, 300, 320, 320, 0, 0.95)
    detections = [found(alone, *((*box, 0.9 - i / 10) for i, box in enumerate(corners)))]
    result = evaluate([truth(*corners)], detections, [[SLOW, FAST, FAST, FAST]])
    # A third of the class is slow: the box counts by the two thirds that are ignored.
    assert result["slow"].by_class["cat"] == pytest.approx(1 / (1 + 2 / 3))
    assert result["fast"].by_class["cat"] == pytest.approx(2 / (2 + 1 / 3))
    assert result["all"].by_class["cat"] == pytest.approx(3 / 4)
    assert result["fast"].by_class["dog"] == pytest.approx(1)


def test_a_wrong_box_in_an_empty_frame_is_shared_out_by_the_objects_of_the_data():
    # Three objects and one frame without any, which counts as moving most: motion IoU 0.
    objects = [truth((*BOX, 0)), truth((*BOX, 0)), truth((*BOX, 0)), truth()]
    detections = [*[found((*BOX, 0, 0.8))] * 3, found((*BOX, 0, 0.9))]
    result = evaluate(objects, detections, [[SLOW], [SLOW], [FAST], []])
    weights = {name: one.empty_weight for name, one in result.items()}
    assert weights == {"all": 0, "slow": 1 / 2, "medium": 0, "fast": 1 / 2}
    assert result["slow"].ap50 == pytest.approx(2 / (2 + 1 / 2))
    assert result["fast"].ap50 == pytest.approx(1 / (1 + 1 / 2))
    assert result["all"].ap50 == pytest.approx(3 / 4)


def box(left, *rest):
    """A box of 41 pixels a side by the count of the protocol."""
    return (left, 0, left + 39, 39, 0, *rest)


@pytest.mark.parametrize(("left", "expected"), [(18, 1), (-6, 1 / 2)])
def test_of_two_objects_that_are_overlapped_alike_the_first_is_taken(left, expected):
    objects = [truth(box(0), box(12))]
    detections = [found(box(6, 0.9), box(left, 0.8))]
    assert ap50(objects, detections, [[SLOW, SLOW]])["slow"] == pytest.approx(expected)


@pytest.mark.parametrize("motion", [[SLOW, FAST], [FAST, SLOW]])
def test_of_two_objects_that_are_overlapped_alike_the_one_that_counts_is_taken(motion):
    objects, detections = [truth(box(0), box(12))], [found(box(6, 0.9))]
    result = ap50(objects, detections, [motion])
    assert [result["slow"], result["fast"]] == pytest.approx([1, 1])


def test_of_two_ignored_objects_that_are_overlapped_alike_the_last_is_taken():
    # The second detection overlaps the second object more, but is left the third.
    objects = [truth(box(0), box(12), box(20))]
    detections = [found(box(6, 0.9), box(14, 0.8))]
    assert ap50(objects, detections, [[FAST, FAST, SLOW]])["slow"] == pytest.approx(1)


def test_crowds_are_left_out():
    objects = [truth((*BOX, 0), (100, 100, 199, 199, 0), crowd=[1])]
    detections = [found((*BOX, 0, 0.9))]
    result = evaluate(objects, detections, [[SLOW, FAST]])
    assert [result["all"].ap50, result["slow"].ap50] == pytest.approx([1, 1])
    assert math.isnan(result["fast"].ap50)


def test_nothing_to_find_is_nan():
    for objects, detections, motion in (
        ([truth()], [found((*BOX, 0, 0.9))], [[]]),
        ([truth()], [found()], [[]]),
        ([], [], []),
    ):
        assert all(math.isnan(value) for value in ap50(objects, detections, motion).values())
        assert math.isnan(evaluate(objects, detections)["all"].ap50)


def random_frames(seed, count=8, coarse=False):
    """Return objects, detections and motion; coarse ones have ties of IoU and motion on bounds."""
    rng = np.random.default_rng(seed)
    objects, detections, motions = [], [], []
    for _ in range(count):
        n, m = rng.integers(0, 5), rng.integers(0, 8)
        corner = rng.uniform(0, 60, (n + m, 2))
        boxes = np.concatenate((corner, corner + rng.uniform(5, 60, (n + m, 2))), axis=1)
        labels = rng.integers(0, 2, n + m)
        near = rng.integers(0, n, m) if n else np.zeros(0, np.int64)
        boxes[n : n + len(near)] = boxes[near] + rng.normal(0, 5, (len(near), 4))
        boxes = np.round(boxes / 10) * 10 if coarse else boxes
        boxes[:, 2:] = np.maximum(boxes[:, :2], boxes[:, 2:])
        labels[n : n + len(near)] = labels[near]
        boxes = boxes.astype(np.float32)
        objects.append(FrameTruth(boxes[:n], labels[:n], np.zeros(n, np.bool_)))
        scores = rng.random(m).astype(np.float32)
        detections.append(FrameDetections(boxes[n:], scores, labels[n:]))
        motion = rng.uniform(0, 1, n)
        motions.append(rng.choice([0, 0.5, 0.7, 0.8, 0.9, 1], n) if coarse else motion)
    return objects, detections, motions


def plain_ap(objects, detections, motions, label, low, high):
    """Follow the rules box by box, as they are written in docs/protocols.md."""
    values = [v for motion in motions for v in (motion if len(motion) else [0])]
    share = np.mean([low <= v <= high for v in values]) if values else 0
    rows, num_objects = [], 0
    for truth_, found_, motion in zip(objects, detections, motions, strict=True):
        own, mine = truth_.labels == label, found_.labels == label
        boxes, out = truth_.boxes_xyxy[own], ~((motion[own] >= low) & (motion[own] <= high))
        num_objects += (~out).sum()
        order = np.argsort(-found_.scores[mine], kind="stable")
        scores, candidates = found_.scores[mine][order], found_.boxes_xyxy[mine][order]
        if len(boxes):
            rows += zip(scores, *plain_match(candidates, boxes, out), strict=True)
        else:
            rows += [(score, False, 0 if share == 1 else share) for score in scores]
    if num_objects == 0:
        return math.nan
    right = wrong = 0
    curve = []
    for _, matched, weight in sorted(rows, key=lambda row: -row[0]):
        if weight == 1:
            continue
        right, wrong = right + matched, wrong + (not matched) * (weight or 1)
        curve.append((right, right / (right + wrong)))
    steps = range(1, num_objects + 1)
    return sum(max((p for r, p in curve if r >= n), default=0) for n in steps) / num_objects


def plain_match(candidates, boxes, out):
    """Return which detections of a frame, best first, are matched, and how far each is ignored."""
    taken = np.zeros(len(boxes), np.bool_)
    matched, ignore = [], []
    for box in candidates:
        iou, best = plain_iou(box, boxes), None
        for k in np.flatnonzero(~taken & (iou >= 0.5)):
            equal_but_out = best is not None and iou[k] == iou[best] and out[best]
            if best is None or iou[k] > iou[best] or equal_but_out:
                best = k
        of_out, of_counted = iou[out].max(initial=-1), iou[~out].max(initial=-1)
        matched.append(best is not None)
        if best is not None:
            taken[best] = True
            ignore.append(float(out[best]))
        else:
            ignore.append(out.mean() if of_out == of_counted else float(of_out > of_counted))
    return matched, ignore


def plain_iou(box, others):
    one = np.float32(1)
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:]) + one
    sides = np.maximum(high - low + one, 0)
    shared = sides[:, 0] * sides[:, 1]
    mine, their = ((b[..., 2:] + one) - b[..., :2] + one for b in (box, others))
    return shared / (mine[0] * mine[1] + their[:, 0] * their[:, 1] - shared)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_the_rules_are_followed(seed, coarse):
    objects, detections, motions = random_frames(seed, coarse=coarse)
    result = evaluate(objects, detections, motions)
    for group, (low, high) in MOTION_GROUPS.items():
        expected = {
            name: plain_ap(objects, detections, motions, label, low, high)
            for label, name in enumerate(CLASSES)
        }
        assert result[group].by_class == pytest.approx(expected, nan_ok=True), group
    alone = evaluate(objects, detections)
    assert list(alone) == ["all"]
    assert alone["all"].by_class == pytest.approx(result["all"].by_class, nan_ok=True)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_the_order_of_frames_does_not_matter(seed):
    frames = random_frames(seed)
    order = np.random.default_rng(seed).permutation(len(frames[0]))
    shuffled = ap50(*([part[i] for i in order] for part in frames))
    assert shuffled == pytest.approx(ap50(*frames), nan_ok=True)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_a_further_wrong_box_never_helps_and_a_right_one_never_harms(seed):
    objects, detections, motions = random_frames(seed)
    before = evaluate(objects, detections, motions)
    lost = FrameDetections(
        np.array([[900, 900, 950, 950]], np.float32), np.ones(1, np.float32), np.zeros(1, int)
    )
    wrong = evaluate([*objects, truth()], [*detections, lost], [*motions, []])
    new = found((*BOX, 0, 1))
    right = evaluate([*objects, truth((*BOX, 0))], [*detections, new], [*motions, [SLOW]])
    without = evaluate([*objects, truth((*BOX, 0))], [*detections, found()], [*motions, [SLOW]])
    if not math.isnan(before["all"].by_class["cat"]):
        assert wrong["all"].by_class["cat"] <= before["all"].by_class["cat"]
    for group in ("all", "slow"):
        assert right[group].by_class["cat"] >= without[group].by_class["cat"]


@pytest.mark.parametrize(
    ("objects", "detections", "motion", "message"),
    [
        ([truth()], [], None, "1 frames of objects, 0 of detections"),
        ([truth((*BOX, 2))], [found()], None, r"objects of frame 0: label 2 .*\[0, 2\)"),
        ([truth()], [found((*BOX, 0, math.nan))], None, "detections of frame 0: .*not finite"),
        ([truth((9, 0, 8, 5, 0))], [found()], None, r"frame 0: the box \[9.0.* ends before"),
        ([truth()] * 2, [found()] * 2, [[]], "2 frames of objects, 1 of motion IoU"),
        ([truth(), truth()], [found()] * 2, [[], [0.5]], r"frame 1 has shape \(1,\) for 0 obj"),
        ([truth(), truth((*BOX, 0))], [found()] * 2, [[], [1.5]], r"frame 1: 1.5 is not in \[0, 1"),
        ([truth((*BOX, 0))], [found()], [[math.nan]], "motion IoU of frame 0: nan"),
    ],
)
def test_wrong_frames_are_named(objects, detections, motion, message):
    with pytest.raises(ValueError, match=message):
        evaluate(objects, detections, motion)


@pytest.mark.parametrize(
    "name",
    [
        *("a_single_class", "b_multi_class", "c_empty_frames"),
        *("d_ties_and_thresholds", "e_slow_only", "f_real_vid"),
    ],
)
def test_golden_numbers_of_the_official_evaluation(name):
    values = json.loads(shared_path(f"golden/vid_eval/{name}.json").read_text())
    frames = [frame for video in values["videos"] for frame in video["frames"]]
    rows = [np.array(frame["gt"]).reshape(-1, 6) for frame in frames]
    boxes = [np.array(frame["det"]).reshape(-1, 6) for frame in frames]
    classes = [str(label) for label in range(1, 31)]
    result = vid_average_precision(
        [truth(*np.column_stack((r[:, :4], r[:, 4] - 1))) for r in rows],
        [found(*np.column_stack((b[:, :4], b[:, 5] - 1, b[:, 4]))) for b in boxes],
        classes,
        [np.array(frame["motion_iou"]) for frame in frames],
    )
    assert result.keys() == values["metrics"].keys()
    for group, expected in values["metrics"].items():
        mine = result[group]
        by_class = {c: math.nan if ap is None else ap for c, ap in expected["ap"].items()}
        by_class = {c: by_class.get(c, math.nan) for c in classes}
        assert mine.by_class == pytest.approx(by_class, abs=1e-9, nan_ok=True)
        mean = math.nan if expected["map"] is None else expected["map"]
        assert mine.ap50 == pytest.approx(mean, abs=1e-9, nan_ok=True)
        assert mine.empty_weight == pytest.approx(expected["empty_weight"], abs=1e-12)
        assert {c: n for c, n in mine.num_objects.items() if n} == {
            c: n for c, n in expected["n_pos"].items() if n
        }


@pytest.mark.parametrize(
    "name", ["a_single_class", "b_multi_class", "c_empty_frames", "e_slow_only"]
)
def test_golden_motion_comes_from_the_tracks(name):
    values = json.loads(shared_path(f"golden/vid_eval/{name}.json").read_text())
    for video in values["videos"]:
        rows = [(i, *row) for i, frame in enumerate(video["frames"]) for row in frame["gt"]]
        rows = np.array(rows).reshape(-1, 7)
        expected = [value for frame in video["frames"] for value in frame["motion_iou"]]
        mine = motion_iou(rows[:, 1:5], rows[:, 0].astype(int), rows[:, 6].astype(int))
        np.testing.assert_allclose(mine, expected, atol=1e-12)


def test_classes_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two classes have the same name"):
        evaluate([truth()], [found()], classes=("cat", "cat"))


def test_golden_curves_of_sixty_frames():
    golden = load_golden("vid_eval/vid_eval_60frames.npz")
    counts, labels = golden["gt_count"], golden["gt_labels"] - 1
    ends = np.cumsum(counts)[:-1]
    objects = [
        FrameTruth(b, c, np.zeros(len(c), np.bool_))
        for b, c in zip(np.split(golden["gt_boxes"], ends), np.split(labels, ends), strict=True)
    ]
    ends = np.cumsum(golden["pred_count"])[:-1]
    parts = (golden["pred_boxes"], golden["pred_scores"], golden["pred_labels"] - 1)
    detections = [
        FrameDetections(*one) for one in zip(*(np.split(part, ends) for part in parts), strict=True)
    ]
    # A frame without objects has one placeholder in the official table.
    motion = np.split(golden["motion_iou"], np.cumsum(golden["motion_count"])[:-1])
    motion = [m[:n] for m, n in zip(motion, counts, strict=True)]
    classes = ("1", "2", "3", "4")
    result = vid_average_precision(objects, detections, classes, motion)
    flat, of_all = gather(objects, detections, classes)
    groups = motion_groups(flat, len(objects), np.concatenate(motion))
    for i, (low, high) in enumerate(golden["motion_ranges"]):
        (name,) = [n for n, bounds in MOTION_GROUPS.items() if bounds == (low, high)]
        by_class = list(result[name].by_class.values())
        np.testing.assert_allclose(by_class, golden[f"ap_per_class_{i}"][1:], atol=1e-9)
        assert result[name].ap50 == pytest.approx(float(golden[f"map_{i}"]), abs=1e-9)
        assert result[name].empty_weight == pytest.approx(float(golden[f"empty_weight_{i}"]))
        eleven = [
            eleven_points(count_class(flat, of_all, label, groups)[name]) for label in range(4)
        ]
        assert np.nanmean(eleven) == pytest.approx(float(golden[f"map07_{i}"]), abs=1e-9)


def eleven_points(counts):
    """Sum the curve up as VOC 2007 did, which the golden numbers have as well."""
    if counts.num_objects == 0:
        return math.nan
    precision, recall = counts.precision_recall()
    reached = [precision[recall >= t].max(initial=0) for t in np.arange(0.0, 1.1, 0.1)]
    return sum(reached) / 11
