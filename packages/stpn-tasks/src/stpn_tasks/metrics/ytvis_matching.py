"""Match the predictions of YouTube-VIS with objects, and count precision and recall of a category.

The rules are those of the official evaluator. It overlaps every pair of one object and one
prediction frame by frame in Python; here all pairs of a frame are compared at once, and only those
that can reach an IoU of 0.5.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stpn_tasks.metrics.coco import RECALLS, THRESHOLDS, interpolated_precision
from stpn_tasks.metrics.ytvis_tracks import (
    Tracks,
    VideoObject,
    VideoPrediction,
    VideoTruth,
    average_area,
)

MAX_DETECTIONS = (1, 10, 100)
"""Predictions that count, of each video and category."""
# All, small, medium, large: mean area over the frames with a mask, both ends included.
AREAS = np.array([(0, 1e10), (0, 128**2), (128**2, 256**2), (256**2, 1e10)])
# An IoU of 1 that was rounded down is one.
_REACHED = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]  # (10, 1)


@dataclass(frozen=True)
class Matches:
    """What the predictions of a video and category are, best score first, at each size of object.

    Attributes:
        scores: (m,) at most 100.
        true: (4, 10, m) bool: found an object of that size.
        false: (4, 10, m) bool: found nothing, and is of that size itself.
        num_objects: (4,) objects of that size that are no crowds.
    """

    scores: np.ndarray
    true: np.ndarray
    false: np.ndarray
    num_objects: np.ndarray


def match_video(
    video: VideoTruth, predictions: Sequence[VideoPrediction], categories: Mapping[int, str]
) -> dict[int, Matches]:
    """Match the predictions of a video with its objects, category by category."""
    objects: dict[int, list[VideoObject]] = defaultdict(list)
    found: dict[int, list[VideoPrediction]] = defaultdict(list)
    for thing in video.objects:
        objects[thing.category].append(thing)
    for number, prediction in enumerate(predictions):
        if not np.isfinite(prediction.score):
            raise ValueError(f"prediction {number} of video {video.name}: the score is not finite")
        found[prediction.category].append(prediction)
    if unknown := (objects.keys() | found.keys()) - categories.keys():
        raise ValueError(f"video {video.name}: no category has the id {min(unknown)}")
    return {
        category: _match(video, objects.get(category, []), found.get(category, []))
        for category in objects.keys() | found.keys()
    }


def _match(
    video: VideoTruth, objects: Sequence[VideoObject], found: Sequence[VideoPrediction]
) -> Matches:
    """Let each prediction, best first, take the free object that it overlaps most.

    That is done for each size of object and IoU threshold. Objects of another size and crowds are
    taken when no object of the size is left, and the prediction then counts for nothing; a crowd
    can be taken again and again.
    """
    scores = np.array([prediction.score for prediction in found])
    best_first = np.argsort(-scores, kind="stable")[: MAX_DETECTIONS[-1]]
    truth = Tracks.of([thing.masks for thing in objects], video, "object")
    tracks = Tracks.of([found[i].masks for i in best_first], video, "prediction")
    is_crowd = np.array([thing.is_crowd for thing in objects], np.bool_)
    counted = _is_of_area(_annotated_areas(objects, truth, video.name)) & ~is_crowd  # (4, n)
    iou = tracks.iou(truth, at_least=THRESHOLDS[0])  # (m, n)

    shape = (len(AREAS), len(THRESHOLDS), len(best_first))
    true, matched = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    free = np.ones((*shape[:2], len(objects)), np.bool_)  # (4, 10, n)
    places = np.arange(len(objects))
    size, threshold = np.ogrid[: len(AREAS), : len(THRESHOLDS)]
    for i in np.flatnonzero(iou.max(axis=1, initial=0.0) >= THRESHOLDS[0]):
        hits = (iou[i] >= _REACHED) & (free | is_crowd)  # (4, 10, n)
        hits_counted = hits & counted[:, None]
        true[:, :, i], matched[:, :, i] = hits_counted.any(axis=2), hits.any(axis=2)
        allowed = np.where(true[:, :, i, None], hits_counted, hits)
        open_iou = np.where(allowed, iou[i], -1.0)
        best = open_iou.max(axis=2, keepdims=True)
        taken = np.where(open_iou == best, places, -1).max(axis=2)  # of equal ones the last
        free[size, threshold, taken] &= ~matched[:, :, i]
    false = ~matched & _is_of_area(average_area(tracks.areas))[:, None]
    return Matches(scores[best_first], true, false, counted.sum(axis=1))


def _annotated_areas(objects: Sequence[VideoObject], truth: Tracks, name: str) -> np.ndarray:
    """Return the average area of each object (n,), of the file's areas where it has them."""
    areas = truth.areas.copy()
    for row, thing in zip(areas, objects, strict=True):
        if thing.areas is not None:
            if len(thing.areas) != len(row):
                raise ValueError(
                    f"video {name}: an object has {len(thing.areas)} areas for {len(row)} frames"
                )
            row[:] = [area or 0.0 for area in thing.areas]
    return average_area(areas)


def _is_of_area(areas: np.ndarray) -> np.ndarray:
    """Return which areas (n,) are of each size (4, n)."""
    inside: np.ndarray = (areas >= AREAS[:, :1]) & (areas <= AREAS[:, 1:])
    return inside


def accumulate(matches: Sequence[Matches]) -> tuple[np.ndarray, np.ndarray]:
    """Return precision (10, 101, 4, 3) and recall (10, 4, 3) of a category over its videos."""
    shape = (len(AREAS), len(MAX_DETECTIONS))
    precision = np.full((len(THRESHOLDS), len(RECALLS), *shape), np.nan)
    recall = np.full((len(THRESHOLDS), *shape), np.nan)
    num_objects = sum((one.num_objects for one in matches), np.zeros(len(AREAS), np.int64))
    if not num_objects.any():
        return precision, recall
    ranks = np.concatenate([np.arange(len(one.scores)) for one in matches])
    order = np.argsort(-np.concatenate([one.scores for one in matches]), kind="stable")
    ranks = ranks[order]
    true = np.concatenate([one.true for one in matches], axis=2)[:, :, order]
    false = np.concatenate([one.false for one in matches], axis=2)[:, :, order]
    for area in np.flatnonzero(num_objects):
        for column, number in enumerate(MAX_DETECTIONS):
            for threshold in range(len(THRESHOLDS)):
                counts = true[area, threshold] | false[area, threshold]
                hits = true[area, threshold, counts & (ranks < number)]
                curve = interpolated_precision(hits, int(num_objects[area]))
                precision[threshold, :, area, column] = curve
                recall[threshold, area, column] = hits.sum() / num_objects[area]
    return precision, recall
