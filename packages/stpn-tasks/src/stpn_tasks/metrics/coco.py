"""COCO average precision of boxes, of all frames and of the frames of each condition.

The numbers are those of pycocotools, which the tests compare with. It keeps a python object per
box and a dictionary per frame, class and size of object: by the growth over 2000 frames, 36 GiB and
18 minutes for the validation set of ImageNet VID. Here all frames of a class are matched at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stpn_tasks.metrics.frames import (
    ClassPairing,
    Found,
    FrameDetections,
    FrameTruth,
    Objects,
    gather,
)

ALL_FRAMES = "all"
MAX_DETECTIONS = 100
"""Detections that count, of each frame and class."""
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
# All, small, medium, large: areas in square pixels, both ends included.
AREAS = np.array([(0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10)])


@dataclass(frozen=True)
class AveragePrecision:
    """Hold the six numbers of the COCO protocol, each in [0, 1], or NaN without an object.

    They are what the precision-recall curve at IoU 0.50 is summed up in, which comes along.

    Attributes:
        ap: mean over IoU thresholds 0.50, 0.55, ..., 0.95 and over the classes with objects.
        ap50: at IoU 0.50.
        ap75: at IoU 0.75.
        ap_small: of objects of at most 32² pixels (area of the box).
        ap_medium: of objects from 32² to 96² pixels.
        ap_large: of objects of at least 96² pixels.
        curve50: precision at IoU 0.50 at the 101 recalls 0, 0.01, ..., 1, mean over the classes
            with objects, whose mean in turn is ``ap50``; empty without an object.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    curve50: tuple[float, ...] = ()


def coco_average_precision(
    ground_truth: Sequence[FrameTruth],
    detections: Sequence[FrameDetections],
    classes: Sequence[str],
) -> AveragePrecision:
    """Return the COCO average precision of a set of frames.

    Of each frame and class the 100 best detections count.

    Args:
        ground_truth: objects of each frame.
        detections: detections of the same frames, in the same order.
        classes: names of the labels.

    Raises:
        ValueError: the two disagree in length, or a frame's arrays are not usable; the frame
            and the value are named.
    """
    return coco_average_precision_by_condition(ground_truth, detections, classes)[ALL_FRAMES]


def coco_average_precision_by_condition(
    ground_truth: Sequence[FrameTruth],
    detections: Sequence[FrameDetections],
    classes: Sequence[str],
) -> dict[str, AveragePrecision]:
    """Return the COCO average precision of ``"all"`` frames and of each condition's frames.

    The conditions are those that the frames name, sorted. Frames are matched once; only the
    precision is computed for each split. Arguments and errors as `coco_average_precision`.
    """
    objects, found = gather(ground_truth, detections, classes)
    conditions = sorted(set().union(*(truth.conditions for truth in ground_truth)))
    if ALL_FRAMES in conditions:
        raise ValueError(f"a condition is named {ALL_FRAMES!r}, which means every frame")
    splits = {ALL_FRAMES: np.ones(len(ground_truth), np.bool_)} | {
        condition: np.array([condition in truth.conditions for truth in ground_truth])
        for condition in conditions
    }
    # (classes, areas, thresholds, recalls), NaN for a class without objects.
    precision = {
        split: np.full((len(classes), len(AREAS), len(THRESHOLDS), len(RECALLS)), np.nan)
        for split in splits
    }
    for label in range(len(classes)):
        matches = match_class(objects, found, label)
        for split, frames in splits.items():
            for area in range(len(AREAS)):
                precision[split][label, area] = matches.precision(area, frames)
    return {split: _six_numbers(values) for split, values in precision.items()}


@dataclass(frozen=True)
class ClassMatches:
    """What the detections of a class are at each size of object (4) and IoU threshold (10).

    Attributes:
        true: (4, 10, m) bool: found an object of that size; best score first.
        false: (4, 10, m) bool: found nothing, and is of that size itself.
        frames: (m,) number of each detection's frame.
        object_frames: (n,) number of each object's frame.
        counted: (4, n) bool: the object is of that size, and no crowd.
    """

    true: np.ndarray
    false: np.ndarray
    frames: np.ndarray
    object_frames: np.ndarray
    counted: np.ndarray

    def precision(self, area: int, frames: np.ndarray) -> np.ndarray:
        """Return the precision at each threshold and recall (10, 101), NaN without objects.

        Args:
            area: index of the size of object.
            frames: (F,) bool, which frames count.
        """
        num_objects = int((self.counted[area] & frames[self.object_frames]).sum())
        if num_objects == 0:
            return np.full((len(THRESHOLDS), len(RECALLS)), np.nan)
        chosen = frames[self.frames]
        precision = np.zeros((len(THRESHOLDS), len(RECALLS)))
        for row, true, false in zip(precision, self.true[area], self.false[area], strict=True):
            # What is neither true nor false moves neither precision nor recall.
            row[:] = interpolated_precision(true[chosen & (true | false)], num_objects)
        return precision


def interpolated_precision(hits: np.ndarray, num_objects: int) -> np.ndarray:
    """Return the best precision at each recall 0, 0.01, ..., 1 or a higher one, 0 beyond: (101,).

    Args:
        hits: (n,) bool: the prediction found an object; best score first.
        num_objects: objects to find.
    """
    precision = np.zeros(len(RECALLS))
    found = np.cumsum(hits)
    points = found / (np.arange(1, len(hits) + 1) + np.spacing(1))
    envelope = np.maximum.accumulate(points[::-1])[::-1]
    first = np.searchsorted(found / num_objects, RECALLS)
    reached = first < len(hits)
    precision[reached] = envelope[first[reached]]
    return precision


def match_class(objects: Objects, found: Found, label: int) -> ClassMatches:
    """Let each detection of a class, best first, take the free object that it overlaps most.

    That is done for each size of object and IoU threshold. Objects of another size and crowds are
    taken when no object of the size is left, and the detection then counts for nothing; a crowd
    can be taken again and again.
    """
    pairing = ClassPairing.of(objects, found, label)
    boxes = objects.boxes_xyxy[pairing.objects].astype(np.float64)
    is_crowd = objects.is_crowd[pairing.objects]
    counted = _is_of_area(boxes) & ~is_crowd  # (4, n)
    found_boxes = found.boxes_xyxy[pairing.detections].astype(np.float64)
    shape = (len(AREAS), len(THRESHOLDS), len(pairing.detections))
    true, matched = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)

    present = pairing.table >= 0  # (F, g)
    is_counted = counted[:, None, pairing.table]  # (4, 1, F, g)
    crowds = is_crowd[pairing.table]  # (F, g)
    free = np.broadcast_to(present, (*shape[:2], *present.shape)).copy()  # (4, 10, F, g)
    places = np.arange(present.shape[1])
    thresholds = THRESHOLDS[:, None]  # (10, 1)
    for turn, rows in pairing.turns():
        turn, rows = (values[pairing.ranks[turn] < MAX_DETECTIONS] for values in (turn, rows))
        iou = _iou(found_boxes[turn], boxes[pairing.table[rows]], crowds[rows])  # (A, g)
        iou = np.where(present[rows], iou, 0.0)
        near = iou.max(axis=1, initial=0.0) >= THRESHOLDS[0]
        turn, rows, iou = turn[near], rows[near], iou[near]
        if not len(turn):
            continue
        open_iou = np.where(free[:, :, rows] | crowds[rows], iou, 0.0)  # (4, 10, A, g)
        best_counted = np.where(is_counted[:, :, rows], open_iou, 0.0).max(axis=3)  # (4, 10, A)
        best = open_iou.max(axis=3)
        hit_counted = best_counted >= thresholds
        hit = best >= thresholds
        best = np.where(hit_counted, best_counted, best)
        # Of equal ones the last is taken; an object that does not count only for lack of others.
        equal = (open_iou == best[..., None]) & (is_counted[:, :, rows] | ~hit_counted[..., None])
        taken = np.where(equal, places, -1).max(axis=3)  # (4, 10, A)
        true[:, :, turn], matched[:, :, turn] = hit_counted, hit
        area, threshold, a = np.nonzero(hit)
        free[area, threshold, rows[a], taken[area, threshold, a]] = False

    best_first = np.argsort(-found.scores[pairing.detections], kind="stable")
    best_first = best_first[pairing.ranks[best_first] < MAX_DETECTIONS]
    false = ~matched & _is_of_area(found_boxes)[:, None]
    return ClassMatches(
        true[:, :, best_first],
        false[:, :, best_first],
        found.frames[pairing.detections[best_first]],
        objects.frames[pairing.objects],
        counted,
    )


def _is_of_area(boxes_xyxy: np.ndarray) -> np.ndarray:
    """Return which boxes (n, 4) are of each size (4, n)."""
    areas = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(axis=1)
    inside: np.ndarray = (areas >= AREAS[:, :1]) & (areas <= AREAS[:, 1:])
    return inside


def _iou(boxes: np.ndarray, others: np.ndarray, is_crowd: np.ndarray) -> np.ndarray:
    """Return the IoU of boxes (A, 4) with others (A, g, 4); of a crowd, the share inside it."""
    boxes = boxes[:, None]
    sides = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(
        boxes[..., :2], others[..., :2]
    )
    shared = sides.clip(0).prod(axis=-1)
    areas = [(b[..., 2:] - b[..., :2]).prod(axis=-1) for b in (boxes, others)]
    union = np.where(is_crowd, areas[0], areas[0] + areas[1] - shared)
    iou: np.ndarray = shared / np.where(shared > 0, union, 1.0)  # without area, nothing is shared
    return iou


def _six_numbers(precision: np.ndarray) -> AveragePrecision:
    """Sum up precision (classes, areas, thresholds, recalls), NaN for a class without objects."""

    def mean(values: np.ndarray) -> float:
        known = values[~np.isnan(values)]
        return float(known.mean()) if known.size else float("nan")

    at_50, at_75 = precision[:, 0, 0], precision[:, 0, 5]  # (classes, recalls)
    known = at_50[~np.isnan(at_50).any(axis=1)]
    return AveragePrecision(
        ap=mean(precision[:, 0]),
        ap50=mean(at_50),
        ap75=mean(at_75),
        ap_small=mean(precision[:, 1]),
        ap_medium=mean(precision[:, 2]),
        ap_large=mean(precision[:, 3]),
        curve50=tuple(known.mean(axis=0).tolist()) if len(known) else (),
    )
