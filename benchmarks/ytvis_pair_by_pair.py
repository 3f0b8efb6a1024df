"""YouTube-VIS AP in the order of the official evaluator, as a peer to be timed against.

Every pair of one object and one prediction of a video and category is overlapped frame by frame,
with one call for what they share and one for what they unite; every video, category, size and IoU
threshold is matched on its own. Reading the results takes one call per mask for its area.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from stpn_tasks.metrics import VideoPrediction, VideoTruth

AREAS = ((0, 1e10), (0, 128**2), (128**2, 256**2), (256**2, 1e10))
MAX_DETECTIONS = (1, 10, 100)
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass
class Track:
    masks: Sequence[Any]
    area: float
    score: float = 0.0
    is_crowd: bool = False


@dataclass
class Evaluated:
    scores: list[float]
    matched: np.ndarray  # (10, D)
    ignored: np.ndarray  # (10, D)
    object_ignored: list[bool]


def pair_by_pair(
    videos: Sequence[VideoTruth],
    predictions: Sequence[Sequence[VideoPrediction]],
    categories: Mapping[int, str],
) -> tuple[np.ndarray, np.ndarray]:
    """Return precision (10, 101, K, 4, 3) and recall (10, K, 4, 3), -1 without objects."""
    objects: dict[tuple[int, int], list[Track]] = defaultdict(list)
    found: dict[tuple[int, int], list[Track]] = defaultdict(list)
    for v, video in enumerate(videos):
        for thing in video.objects:
            areas = thing.areas if thing.areas is not None else areas_of(thing.masks)
            track = Track(thing.masks, average(areas), is_crowd=thing.is_crowd)
            objects[v, thing.category].append(track)
        for one in predictions[v]:
            track = Track(one.masks, average(areas_of(one.masks)), one.score)
            found[v, one.category].append(track)
    for key, tracks in found.items():
        order = np.argsort([-track.score for track in tracks], kind="mergesort")
        found[key] = [tracks[i] for i in order[: MAX_DETECTIONS[-1]]]
    keys = [(v, k) for k in sorted(categories) for v in range(len(videos))]
    ious = {
        key: np.array([[iou(d, g) for g in objects[key]] for d in found[key]])
        for key in keys
        if objects[key] and found[key]
    }
    shape = (len(categories), len(AREAS), len(MAX_DETECTIONS))
    precision = -np.ones((len(THRESHOLDS), len(RECALLS), *shape))
    recall = -np.ones((len(THRESHOLDS), *shape))
    for k, category in enumerate(sorted(categories)):
        for a, area in enumerate(AREAS):
            own = [(v, category) for v in range(len(videos))]
            evaluated = [
                evaluate(found[key], objects[key], ious.get(key), area)
                for key in own
                if objects[key] or found[key]
            ]
            for m, most in enumerate(MAX_DETECTIONS):
                accumulate(evaluated, most, precision[:, :, k, a, m], recall[:, k, a, m])
    return precision, recall


def areas_of(masks: Sequence[Any]) -> list[float | None]:
    return [None if rle is None else float(coco_mask.area(rle)) for rle in masks]


def average(areas: Sequence[float | None]) -> float:
    positive = [area for area in areas if area]
    return sum(positive) / len(positive) if positive else 0.0


def iou(found: Track, thing: Track) -> float:
    shared = united = 0.0
    for d, g in zip(found.masks, thing.masks, strict=False):
        if d is not None and g is not None:
            shared += coco_mask.area(coco_mask.merge([d, g], intersect=True))
            united += coco_mask.area(coco_mask.merge([d, g], intersect=False))
        elif d is not None:
            united += coco_mask.area(d)
        elif g is not None:
            united += coco_mask.area(g)
    return shared / united if united > 0 else 0.0


def evaluate(
    found: list[Track], objects: list[Track], ious: np.ndarray | None, area: tuple[float, float]
) -> Evaluated:
    def outside(track: Track) -> bool:
        return not area[0] <= track.area <= area[1]

    ignored = [thing.is_crowd or outside(thing) for thing in objects]
    order = np.argsort(ignored, kind="mergesort")
    objects, ignored = [objects[i] for i in order], [ignored[i] for i in order]
    of_object = np.zeros((len(THRESHOLDS), len(objects)), np.bool_)
    matched = np.zeros((len(THRESHOLDS), len(found)), np.bool_)
    of_ignored = np.zeros((len(THRESHOLDS), len(found)), np.bool_)
    for t, threshold in enumerate(THRESHOLDS if ious is not None else ()):
        for d in range(len(found)):
            best, taken = min(threshold, 1 - 1e-10), -1
            for g in range(len(objects)):
                if of_object[t, g] and not objects[g].is_crowd:
                    continue
                if taken > -1 and not ignored[taken] and ignored[g]:
                    break
                if ious[d, order[g]] < best:
                    continue
                best, taken = ious[d, order[g]], g
            if taken > -1:
                matched[t, d] = of_object[t, taken] = True
                of_ignored[t, d] = ignored[taken]
    is_outside = np.array([outside(track) for track in found], np.bool_)
    of_ignored |= ~matched & is_outside
    return Evaluated([track.score for track in found], matched, of_ignored, ignored)


def accumulate(
    evaluated: list[Evaluated], most: int, precision: np.ndarray, recall: np.ndarray
) -> None:
    """Fill precision (10, 101) and recall (10,) of a category, size and number of predictions."""
    num_objects = sum(not ignored for one in evaluated for ignored in one.object_ignored)
    if num_objects == 0:
        return
    scores = np.concatenate([one.scores[:most] for one in evaluated])
    order = np.argsort(-scores, kind="mergesort")
    matched = np.concatenate([one.matched[:, :most] for one in evaluated], axis=1)[:, order]
    ignored = np.concatenate([one.ignored[:, :most] for one in evaluated], axis=1)[:, order]
    true = np.cumsum(matched & ~ignored, axis=1).astype(float)
    false = np.cumsum(~matched & ~ignored, axis=1).astype(float)
    for t in range(len(THRESHOLDS)):
        recalls = true[t] / num_objects
        points = (true[t] / (false[t] + true[t] + np.spacing(1))).tolist()
        recall[t] = recalls[-1] if len(recalls) else 0
        for i in range(len(points) - 1, 0, -1):
            points[i - 1] = max(points[i], points[i - 1])
        precision[t] = 0
        for r, i in enumerate(np.searchsorted(recalls, RECALLS, side="left")):
            if i < len(points):
                precision[t, r] = points[i]
