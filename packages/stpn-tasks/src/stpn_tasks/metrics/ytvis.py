"""Average precision of YouTube-VIS, of all videos and of the videos of each condition.

The numbers are those of the official evaluator, youtubevos/cocoapi, which golden files hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from stpn_tasks.metrics.coco import RECALLS, THRESHOLDS
from stpn_tasks.metrics.ytvis_matching import AREAS, MAX_DETECTIONS, accumulate, match_video
from stpn_tasks.metrics.ytvis_tracks import VideoPrediction, VideoTruth

ALL_VIDEOS = "all"
_AT_75 = 5


@dataclass(frozen=True)
class YtvisPrecision:
    """Hold the twelve numbers of the protocol, each in [0, 1], or NaN without an object.

    Without any prediction every number is 0 where there are objects: the official evaluator cannot
    read an empty list, and this is what it says of predictions that have a score of 0 and no pixel.

    Attributes:
        ap: mean over IoU thresholds 0.50, 0.55, ..., 0.95 and over the categories with objects.
        ap50: at IoU 0.50.
        ap75: at IoU 0.75.
        ap_small: of objects of at most 128² pixels, the mean over the frames where they are seen.
        ap_medium: of objects from 128² to 256² pixels.
        ap_large: of objects of at least 256² pixels.
        ar1: average recall, the mean over thresholds and categories of the recall reached by the
            best prediction of each video and category.
        ar10: of the ten best.
        ar100: of the hundred best.
        ar_small: of the hundred best, of small objects.
        ar_medium: of medium objects.
        ar_large: of large objects.
        by_category: AP of each category, by its name; NaN without an object.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    by_category: Mapping[str, float]

    def twelve(self) -> tuple[float, ...]:
        """Return the twelve numbers in the official order."""
        return tuple(getattr(self, field.name) for field in fields(self)[:12])


@dataclass(frozen=True)
class YtvisCurves:
    """Hold what the twelve numbers are means of; NaN for a category without objects.

    Attributes:
        precision: (10, 101, K, 4, 3): IoU threshold, recall 0, 0.01, ..., 1, category by its id,
            size of object, 1, 10 or 100 predictions.
        recall: (10, K, 4, 3), the highest one.
        names: of the K categories.
    """

    precision: np.ndarray
    recall: np.ndarray
    names: tuple[str, ...]

    def summary(self) -> YtvisPrecision:
        """Return the twelve numbers and the AP of each category."""
        best = self.precision[..., -1]  # (10, 101, K, 4): 100 predictions
        return YtvisPrecision(
            ap=_mean(best[:, :, :, 0]),
            ap50=_mean(best[0, :, :, 0]),
            ap75=_mean(best[_AT_75, :, :, 0]),
            ap_small=_mean(best[:, :, :, 1]),
            ap_medium=_mean(best[:, :, :, 2]),
            ap_large=_mean(best[:, :, :, 3]),
            ar1=_mean(self.recall[:, :, 0, 0]),
            ar10=_mean(self.recall[:, :, 0, 1]),
            ar100=_mean(self.recall[:, :, 0, 2]),
            ar_small=_mean(self.recall[:, :, 1, 2]),
            ar_medium=_mean(self.recall[:, :, 2, 2]),
            ar_large=_mean(self.recall[:, :, 3, 2]),
            by_category={name: _mean(best[:, :, k, 0]) for k, name in enumerate(self.names)},
        )


def ytvis_average_precision(
    videos: Sequence[VideoTruth],
    predictions: Sequence[Sequence[VideoPrediction]],
    categories: Mapping[int, str],
) -> YtvisPrecision:
    """Return the twelve numbers of YouTube-VIS of a set of videos.

    Of predictions with equal scores the earlier one comes first, in a video and over the videos.

    Args:
        videos: with their objects.
        predictions: of the same videos, in the same order.
        categories: names by id.

    Raises:
        ValueError: the arguments disagree, or a mask or score is not usable; the video, the number
            of the object or prediction in its category, and the frame are named.
    """
    return ytvis_by_condition(videos, predictions, categories)[ALL_VIDEOS]


def ytvis_by_condition(
    videos: Sequence[VideoTruth],
    predictions: Sequence[Sequence[VideoPrediction]],
    categories: Mapping[int, str],
) -> dict[str, YtvisPrecision]:
    """Return the numbers of ``"all"`` videos and of each condition's videos.

    The conditions are those that the videos name, sorted. Videos are matched once. Arguments and
    errors as `ytvis_average_precision`.
    """
    curves = ytvis_curves(videos, predictions, categories)
    return {condition: of_condition.summary() for condition, of_condition in curves.items()}


def ytvis_curves(
    videos: Sequence[VideoTruth],
    predictions: Sequence[Sequence[VideoPrediction]],
    categories: Mapping[int, str],
) -> dict[str, YtvisCurves]:
    """Return the curves of ``"all"`` videos and of each condition's videos.

    Arguments and errors as `ytvis_average_precision`.
    """
    if len(videos) != len(predictions):
        raise ValueError(f"{len(videos)} videos with objects, {len(predictions)} with predictions")
    ids = sorted(categories)
    names = tuple(categories[key] for key in ids)
    if len(set(names)) < len(names):
        raise ValueError(f"two categories have the same name: {names}")
    conditions = sorted(set().union(*(video.conditions for video in videos)))
    if ALL_VIDEOS in conditions:
        raise ValueError(f"a condition is named {ALL_VIDEOS!r}, which means every video")
    matches = [
        match_video(video, of_video, categories)
        for video, of_video in zip(videos, predictions, strict=True)
    ]
    curves = {}
    for condition in (ALL_VIDEOS, *conditions):
        chosen = [
            by_category
            for video, by_category in zip(videos, matches, strict=True)
            if condition == ALL_VIDEOS or condition in video.conditions
        ]
        shape = (len(ids), len(AREAS), len(MAX_DETECTIONS))
        precision = np.full((len(THRESHOLDS), len(RECALLS), *shape), np.nan)
        recall = np.full((len(THRESHOLDS), *shape), np.nan)
        for k, key in enumerate(ids):
            of_category = [one[key] for one in chosen if key in one]
            precision[:, :, k], recall[:, k] = accumulate(of_category)
        curves[condition] = YtvisCurves(precision, recall, names)
    return curves


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
