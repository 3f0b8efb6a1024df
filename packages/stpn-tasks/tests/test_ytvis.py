"""YouTube-VIS average precision: the official evaluator's numbers, and what has to hold of them."""

import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from stpn_kernels.testing import load_golden, shared_path
from stpn_tasks.metrics import (
    VideoObject,
    VideoPrediction,
    VideoTruth,
    frame_average_precision,
    predictions_of_frames,
    without_classes,
    ytvis_average_precision,
    ytvis_by_condition,
    ytvis_curves,
)
from stpn_tasks.metrics.ytvis_variants import ANY_CATEGORY
from stpn_tasks.segmentation.results_file import read_results
from stpn_tasks.segmentation.truth_file import read_truth

CATEGORIES = {3: "cat", 8: "dog"}
SIZE = (9, 11)
CASES = ["case_0", "case_1", "case_2", "case_4", "case_6"]
TWELVE = [
    *("AP", "AP50", "AP75", "APs", "APm", "APl"),
    *("AR1", "AR10", "AR100", "ARs", "ARm", "ARl"),
]


def rle(mask):
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))


def box(top, left, height=4, width=4):
    mask = np.zeros(SIZE, np.uint8)
    mask[top : top + height, left : left + width] = 1
    return rle(mask)


def video(*objects, length=2, name="v", conditions=()):
    return VideoTruth(name, SIZE, length, objects, frozenset(conditions))


def random_videos(seed, count, distinct_scores=True):
    """Videos with objects, and predictions that are moved objects or anything."""
    rng = np.random.default_rng(seed)

    def masks(length):
        shifts = rng.integers(0, 5, (length, 2))
        return [None if rng.random() < 0.2 else box(*shift) for shift in shifts]

    videos, predictions = [], []
    for number in range(count):
        length = int(rng.integers(1, 4))
        objects = [
            VideoObject(
                int(rng.choice(list(CATEGORIES))),
                masks(length),
                bool(rng.random() < 0.2),
                list(rng.choice([None, 100.0, 128.0**2, 40_000.0, 90_000.0], length)),
            )
            for _ in range(rng.integers(0, 4))
        ]
        found = [thing.masks for thing in objects if rng.random() < 0.7]
        found += [masks(length) for _ in range(rng.integers(0, 4))]
        conditions = {str(name) for name in ("dark", "fast") if rng.random() < 0.5}
        videos.append(video(*objects, length=length, name=str(number), conditions=conditions))
        scores = rng.random(len(found)) if distinct_scores else rng.integers(0, 3, len(found)) / 2
        predictions.append(
            [
                VideoPrediction(int(rng.choice(list(CATEGORIES))), float(score), one)
                for score, one in zip(scores, found, strict=True)
            ]
        )
    return videos, predictions


def official(values):
    """Undefined numbers are -1 in the official code."""
    return np.nan_to_num(np.array(values, np.float64), nan=-1)


@pytest.mark.parametrize("case", CASES)
def test_numbers_and_curves_are_those_of_the_official_evaluator(case):
    arrays = load_golden(f"ytvis/{case}/arrays.npz")
    folder = shared_path(f"golden/ytvis/{case}")
    expected = json.loads((folder.parent / "metrics.json").read_text())[case]
    truth = read_truth(folder / "gt.json")
    predictions = read_results(folder / "results.json", truth)
    assert list(truth.videos) == arrays["video_ids"].tolist()
    assert list(truth.categories) == arrays["cat_ids"].tolist()
    objects = [thing for one in truth.videos.values() for thing in one.objects]
    assert len(truth.videos) == expected["n_videos"]
    assert len(objects) == expected["n_gt"]
    assert sum(thing.is_crowd for thing in objects) == expected["n_crowd"]
    assert sum(map(len, predictions)) == expected["n_det"]

    curves = ytvis_curves(list(truth.videos.values()), predictions, truth.categories)["all"]
    np.testing.assert_allclose(official(curves.precision), arrays["precision"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(official(curves.recall), arrays["recall"], rtol=0, atol=1e-9)
    summary = curves.summary()
    twelve = [expected[name] for name in TWELVE]
    np.testing.assert_allclose(official(summary.twelve()), twelve, rtol=0, atol=1e-9)
    by_category = {truth.categories[int(k)]: v for k, v in expected["per_category_AP"].items()}
    assert summary.by_category.keys() == by_category.keys()
    for name, value in by_category.items():
        wanted = math.nan if value is None else value
        assert summary.by_category[name] == pytest.approx(wanted, abs=1e-9, nan_ok=True)


def test_two_objects_and_three_predictions_by_hand():
    objects = [VideoObject(3, [box(0, 0), box(0, 1)]), VideoObject(3, [box(5, 5), None])]
    found = [
        VideoPrediction(3, 0.9, [box(0, 0), box(0, 1)]),  # the first, IoU 1
        VideoPrediction(3, 0.8, [box(5, 0), None]),  # nothing
        VideoPrediction(3, 0.7, [box(5, 5), box(0, 7, 1, 4)]),  # the second, IoU 16 / 20
    ]
    result = ytvis_average_precision([video(*objects)], [found], CATEGORIES)
    at_80, above = (51 + 50 * 2 / 3) / 101, 51 / 101
    assert result.ap50 == pytest.approx(at_80)
    assert result.ap == pytest.approx((7 * at_80 + 3 * above) / 10)
    assert (result.ar1, result.ar10) == pytest.approx((0.5, 0.85))
    assert result.by_category["cat"] == result.ap
    assert math.isnan(result.by_category["dog"])


def test_of_two_objects_that_are_overlapped_alike_the_last_is_taken():
    objects = [VideoObject(3, [box(0, 0)]), VideoObject(3, [box(0, 2)])]
    # The first prediction lies between both (IoU 12 / 20); the second is on one of them.
    for left, expected in ((0, 1), (2, 51 / 101)):
        found = [VideoPrediction(3, 0.9, [box(0, 1)]), VideoPrediction(3, 0.8, [box(0, left)])]
        result = ytvis_average_precision([video(*objects, length=1)], [found], CATEGORIES)
        assert result.ap50 == pytest.approx(expected)


def test_an_area_between_two_sizes_is_of_both_and_frames_without_the_object_do_not_count():
    masks = [box(0, 0), None, None]
    found = [VideoPrediction(3, 0.9, masks)]
    for area, sizes in ((128.0**2, ("small", "medium")), (256.0**2, ("medium", "large"))):
        for areas in ([area, None, None], [area, 0.0, None]):
            videos = [video(VideoObject(3, masks, areas=areas), length=3)]
            result = ytvis_average_precision(videos, [found], CATEGORIES)
            there = {
                size
                for size in ("small", "medium", "large")
                if not math.isnan(getattr(result, f"ap_{size}"))
            }
            assert there == set(sizes)


def test_a_crowd_is_found_again_and_again_and_a_prediction_of_another_size_is_no_error():
    crowd = VideoObject(3, [box(5, 5)], is_crowd=True)
    large = VideoObject(3, [box(0, 0)], areas=[300.0**2])
    found = [VideoPrediction(3, 0.9, [box(5, 5)])] * 3
    found += [VideoPrediction(3, 0.8, [box(5, 0)]), VideoPrediction(3, 0.7, [box(0, 0)])]
    result = ytvis_average_precision([video(crowd, large, length=1)], [found], CATEGORIES)
    assert result.ap50 == pytest.approx(0.5)
    assert result.ap_large == pytest.approx(1)


def test_an_object_is_taken_before_a_crowd_that_is_overlapped_more():
    objects = [VideoObject(3, [box(0, 0)]), VideoObject(3, [box(0, 1)], is_crowd=True)]
    found = [VideoPrediction(3, 0.9, [box(0, 1)]), VideoPrediction(3, 0.8, [box(0, 0)])]
    result = ytvis_average_precision([video(*objects, length=1)], [found], CATEGORIES)
    assert result.ar100 == pytest.approx(1)  # not found twice


@pytest.mark.parametrize(("wrong", "ap50"), [(99, 1 / 100), (100, 0)])
def test_a_hundred_predictions_of_a_video_and_category_count(wrong, ap50):
    found = [VideoPrediction(3, 0.9, [box(5, 5)])] * wrong
    found.insert(1, VideoPrediction(3, 0.1, [box(0, 0)]))
    result = ytvis_average_precision(
        [video(VideoObject(3, [box(0, 0)]), length=1)], [found], CATEGORIES
    )
    assert result.ap50 == pytest.approx(ap50)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_the_order_of_videos_and_predictions_does_not_matter_where_scores_differ(seed):
    videos, predictions = random_videos(seed, 6)
    rng = np.random.default_rng(seed)
    order = rng.permutation(6)
    shuffled = [[predictions[i][j] for j in rng.permutation(len(predictions[i]))] for i in order]
    expected = ytvis_average_precision(videos, predictions, CATEGORIES)
    result = ytvis_average_precision([videos[i] for i in order], shuffled, CATEGORIES)
    np.testing.assert_array_equal(result.twelve(), expected.twelve())


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_perfect_predictions_have_an_average_precision_of_1(seed):
    videos, _ = random_videos(seed, 5)
    videos = [
        replace(
            one,
            objects=[
                replace(thing, is_crowd=False, areas=None)
                for thing in one.objects
                if any(thing.masks)
            ],
        )
        for one in videos
    ]
    found = [[VideoPrediction(t.category, 0.5, t.masks) for t in one.objects] for one in videos]
    result = ytvis_average_precision(videos, found, CATEGORIES)
    assert all(v == pytest.approx(1) or math.isnan(v) for v in (result.ap, result.ap_small))
    assert math.isnan(result.ap) == (not any(one.objects for one in videos))


def test_videos_of_more_frames_than_pycocotools_counts_at_once():
    masks = [box(0, frame % 5) for frame in range(600)]
    half = [box(0, frame % 5, 2) for frame in range(600)]
    found = [VideoPrediction(3, 0.9, half)]
    result = ytvis_average_precision(
        [video(VideoObject(3, masks), length=600)], [found], CATEGORIES
    )
    assert result.ap == pytest.approx(0.1)  # IoU 0.50


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_a_split_equals_its_videos_alone(seed, distinct):
    videos, predictions = random_videos(seed, 6, distinct)
    results = ytvis_by_condition(videos, predictions, CATEGORIES)
    assert results.keys() == {"all"}.union(*(one.conditions for one in videos))
    for name, result in results.items():
        inside = [i for i, one in enumerate(videos) if name == "all" or name in one.conditions]
        alone = ytvis_average_precision(
            [videos[i] for i in inside], [predictions[i] for i in inside], CATEGORIES
        )
        np.testing.assert_array_equal(result.twelve(), alone.twelve())


def test_without_predictions_numbers_are_0_and_without_objects_undefined():
    objects = [VideoObject(3, [box(0, 0), None])]
    result = ytvis_average_precision([video(*objects), video()], [[], []], CATEGORIES)
    assert (result.ap, result.ap_small, result.ar1, result.ar100) == (0, 0, 0, 0)
    assert math.isnan(result.ap_large)
    assert math.isnan(result.by_category["dog"])
    nothing = ytvis_average_precision([video()], [[]], CATEGORIES)
    assert all(map(math.isnan, nothing.twelve()))
    assert all(map(math.isnan, ytvis_average_precision([], [], CATEGORIES).twelve()))


def test_what_was_given_stays_as_it_was():
    runs = {"size": list(SIZE), "counts": [0, 20, 79]}
    videos = [video(VideoObject(3, [runs, box(0, 0)], areas=[20.0, 16.0]))]
    predictions = [[VideoPrediction(3, 0.5, [box(0, 0), copy.deepcopy(runs)])]]
    before = copy.deepcopy((videos, predictions))
    ytvis_average_precision(videos, predictions, CATEGORIES)
    without_classes(videos, predictions)
    frame_average_precision(videos, [predictions_of_frames(predictions[0], 2)], CATEGORIES)
    assert (videos, predictions) == before


def test_frames_count_alone_and_are_split_by_their_conditions():
    objects = [
        VideoObject(3, [box(0, 0), box(0, 1), None]),
        VideoObject(3, [None, None, box(5, 5)]),
    ]
    # One track takes the first object, then the second: wrong as a video, right in every frame.
    found = [VideoPrediction(3, 0.9, [box(0, 0), None, box(5, 5)])]
    videos = [video(*objects, length=3)]
    conditions = [[frozenset({"clean"}), frozenset({"dark"}), frozenset({"clean"})]]
    result = frame_average_precision(
        videos, [predictions_of_frames(found, 3)], CATEGORIES, conditions
    )
    assert result["clean"].ap == pytest.approx(1)
    assert result["dark"].ap == 0
    assert result["all"].ar10 == pytest.approx(2 / 3)
    as_video = ytvis_average_precision(videos, [found], CATEGORIES)
    assert as_video.ar10 == pytest.approx(1 / 2 / 10)  # IoU 1/3 and 1/2: one of two, at 0.50


def test_without_classes_a_query_counts_once_with_its_best_score():
    masks = [box(0, 0), box(0, 1)]
    videos = [video(VideoObject(3, masks), VideoObject(8, [box(5, 5), None]))]
    found = [
        VideoPrediction(8, 0.9, masks),
        VideoPrediction(3, 0.8, copy.deepcopy(masks)),
        VideoPrediction(3, 0.7, [box(5, 5), None]),
    ]
    assert ytvis_average_precision(videos, [found], CATEGORIES).ap < 0.8
    truths, predictions = without_classes(videos, [found])
    assert [one.score for one in predictions[0]] == [0.9, 0.7]
    assert ytvis_average_precision(truths, predictions, ANY_CATEGORY).ap == pytest.approx(1)


@pytest.mark.parametrize(
    ("objects", "found", "message"),
    [
        ([VideoObject(3, [None])], [], "object 0 of video v: 1 masks for 2 frames"),
        ([VideoObject(4, [None] * 2)], [], "video v: no category has the id 4"),
        ([VideoObject(3, [None] * 2, areas=[1.0])], [], "video v: .*1 areas for 2 frames"),
        ([], [VideoPrediction(3, math.nan, [None] * 2)], "prediction 0 of video v: the score"),
        (
            [],
            [VideoPrediction(3, 1.0, [None, {"size": [11, 9], "counts": "0"}])],
            r"prediction 0 of video v, frame 1: the mask's size is \[11, 9\], not \[9, 11\]",
        ),
        (
            [],
            [VideoPrediction(3, 1.0, [{"size": [9, 11], "counts": [3, 4]}, None])],
            "frame 0: the mask's runs have 7 pixels, not 99",
        ),
        (
            [],
            [VideoPrediction(3, 1.0, [{"size": [9, 11], "counts": [-1, 100]}, None])],
            "frame 0: the mask's counts are no text and no list",
        ),
    ],
)
def test_what_is_wrong_is_named(objects, found, message):
    with pytest.raises(ValueError, match=message):
        ytvis_average_precision([video(*objects)], [found], CATEGORIES)


def test_arguments_that_disagree_are_refused():
    with pytest.raises(ValueError, match="1 videos with objects, 0 with predictions"):
        ytvis_average_precision([video()], [], CATEGORIES)
    with pytest.raises(ValueError, match="same name"):
        ytvis_average_precision([], [], {1: "cat", 2: "cat"})
    with pytest.raises(ValueError, match="'all'"):
        ytvis_average_precision([video(conditions={"all"})], [[]], CATEGORIES)
    with pytest.raises(ValueError, match="predictions for 1 frames of 2"):
        frame_average_precision([video()], [[[]]], CATEGORIES)
    with pytest.raises(ValueError, match="1 conditions for 2 frames"):
        frame_average_precision([video()], [[[], []]], CATEGORIES, [[frozenset()]])
