"""AP50 of ImageNet VID: of all objects, and of slow, medium and fast ones.

The rules are those of ``vid_eval.py`` in the code of MEGA and of the STPN authors, from which the
numbers of such papers come, oddities included; docs/protocols.md tells them in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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

ALL_OBJECTS = "all"
# Range of motion IoU of each group, both ends included: 0.7 and 0.9 themselves are in two.
MOTION_GROUPS = {
    ALL_OBJECTS: (0.0, 1.0),
    "slow": (0.9, 1.0),
    "medium": (0.7, 0.9),
    "fast": (0.0, 0.7),
}
MIN_IOU = 0.5


@dataclass(frozen=True)
class VidPrecision:
    """Hold the AP50 of one motion group, in [0, 1], or NaN without an object.

    Attributes:
        ap50: mean over the classes with objects in the group.
        by_class: AP50 of each class, by its name; NaN without an object in the group.
        num_objects: objects of each class in the group.
        empty_weight: what a false detection counts in a frame without objects of its class.
    """

    ap50: float
    by_class: Mapping[str, float]
    num_objects: Mapping[str, int]
    empty_weight: float


@dataclass(frozen=True)
class MotionGroup:
    """Say which objects count in a group; the others are neither missed nor wrongly found.

    Attributes:
        counted: (n,) bool, of the objects of all frames.
        empty_weight: what a false detection counts in a frame without objects of its class: the
            part of the data that is in the group, where a frame without objects is as one that
            moves most. A detection there could be of any group, and is shared out among them.
    """

    counted: np.ndarray
    empty_weight: float


@dataclass(frozen=True)
class ClassCounts:
    """What the detections of a class are, best score first, in one motion group.

    Attributes:
        true: (n,) bool: found an object of the group.
        false: (n,) float64: what it counts as a false detection; 0 if it is none, or ignored.
        num_objects: objects of the class in the group.
    """

    true: np.ndarray
    false: np.ndarray
    num_objects: int

    def precision_recall(self) -> tuple[np.ndarray, np.ndarray]:
        """Return precision (n,) and recall (n,) of the best, the two best, ... detections."""
        found, wrong = np.cumsum(self.true), np.cumsum(self.false)
        precision = found / (found + wrong + np.spacing(1))  # ignored ones alone are 0 of 0
        return precision, found / self.num_objects

    def average_precision(self) -> float:
        """Return the area under the curve of the best precision at this recall or a higher one."""
        if self.num_objects == 0:
            return float("nan")
        precision, _ = self.precision_recall()
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        # Recall rises by 1 / num_objects where an object is found, and nowhere else.
        return float(envelope[self.true].sum() / self.num_objects)


def vid_average_precision(
    ground_truth: Sequence[FrameTruth],
    detections: Sequence[FrameDetections],
    classes: Sequence[str],
    motion_iou: Sequence[np.ndarray] | None = None,
) -> dict[str, VidPrecision]:
    """Return the AP50 of all objects, and of each motion group if motion is given.

    Crowds are left out: the protocol does not know them.

    Args:
        ground_truth: objects of each frame.
        detections: detections of the same frames, in the same order.
        classes: names of the labels.
        motion_iou: motion IoU of the objects of each frame; only "all" is returned without.

    Raises:
        ValueError: the arguments disagree, or a frame's arrays are not usable; the frame and the
            value are named.
    """
    if len(set(classes)) < len(classes):
        raise ValueError(f"two classes have the same name: {classes}")
    objects, found = gather(ground_truth, detections, classes)
    motion = None if motion_iou is None else _concatenated(motion_iou, ground_truth)
    keep = ~objects.is_crowd
    objects = objects.where(keep)
    groups = motion_groups(objects, len(ground_truth), None if motion is None else motion[keep])
    by_class: dict[str, dict[str, float]] = {name: {} for name in groups}
    num_objects: dict[str, dict[str, int]] = {name: {} for name in groups}
    for label, class_name in enumerate(classes):
        for name, counts in count_class(objects, found, label, groups).items():
            by_class[name][class_name] = counts.average_precision()
            num_objects[name][class_name] = counts.num_objects
    return {
        name: VidPrecision(
            _mean_of_known(by_class[name].values()),
            by_class[name],
            num_objects[name],
            group.empty_weight,
        )
        for name, group in groups.items()
    }


def motion_groups(
    objects: Objects, num_frames: int, motion_iou: np.ndarray | None
) -> dict[str, MotionGroup]:
    """Return the groups of `MOTION_GROUPS`, or "all" without motion.

    Args:
        objects: of all frames.
        num_frames: frames, with those without objects.
        motion_iou: (n,) of the objects.
    """
    if motion_iou is None:
        return {ALL_OBJECTS: MotionGroup(np.ones(len(objects.labels), np.bool_), 0.0)}
    num_empty = num_frames - len(np.unique(objects.frames))
    groups = {}
    for name, (low, high) in MOTION_GROUPS.items():
        counted = (motion_iou >= low) & (motion_iou <= high)
        number, of = counted.sum() + num_empty * (low == 0), len(counted) + num_empty
        # A group of everything shares with no other; a detection counts in full, as with weight 0.
        groups[name] = MotionGroup(counted, float(number / of) if number < of else 0.0)
    return groups


def count_class(
    objects: Objects, found: Found, label: int, groups: Mapping[str, MotionGroup]
) -> dict[str, ClassCounts]:
    """Match the detections of a class with its objects, and count them in each group."""
    pairing = ClassPairing.of(objects, found, label)
    ignored = np.stack([~group.counted[pairing.objects] for group in groups.values()])  # (G, n)
    matched, ignore = _match(objects, found, pairing, ignored)
    no_object = pairing.rows < 0
    order = np.argsort(-found.scores[pairing.detections], kind="stable")
    counts = {}
    for i, (name, group) in enumerate(groups.items()):
        weight = np.where(no_object, group.empty_weight, ignore[i])
        # A weight is the part of a false detection that counts, but 0 is all of it and 1 nothing.
        part = np.where(weight == 0, 1.0, np.where(weight == 1, 0.0, weight))
        true, false = matched[i] & (weight != 1), np.where(matched[i], 0.0, part)
        counts[name] = ClassCounts(true[order], false[order], int((~ignored[i]).sum()))
    return counts


def _match(
    objects: Objects, found: Found, pairing: ClassPairing, ignored: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Let each detection of a class, best first, take the free object that it overlaps most.

    Args:
        objects: of all frames.
        found: detections of all frames.
        pairing: of the class.
        ignored: (G, n) objects of the class that do not count, in each group.

    Returns:
        matched: (G, m) bool, whether a detection took an object.
        ignore: (G, m) 1 for what is an ignored object, 0 for what is not, between for what could
            be either; of detections in frames with objects of the class.
    """
    num_groups, num_detections = len(ignored), len(pairing.detections)
    matched = np.zeros((num_groups, num_detections), np.bool_)
    ignore = np.zeros((num_groups, num_detections))
    present = pairing.table >= 0  # (F, g)
    out = ignored[:, pairing.table] & present  # (G, F, g)
    free = np.repeat(present[None], num_groups, axis=0)  # (G, F, g)
    boxes = objects.boxes_xyxy[pairing.objects][pairing.table]  # (F, g, 4)
    share = out.sum(axis=2) / np.maximum(present.sum(axis=1), 1)  # (G, F)
    groups = np.arange(num_groups)[:, None]
    num_places = present.shape[1]
    for turn, rows in pairing.turns():
        iou = _iou(found.boxes_xyxy[pairing.detections[turn]], boxes[rows])  # (A, g)
        iou = np.where(present[rows], iou, -1.0)
        is_out = out[:, rows]  # (G, A, g)
        open_iou = np.where(free[:, rows], iou, -1.0)  # (G, A, g)
        best = open_iou.max(axis=2)  # (G, A)
        # Of equal ones the first that counts is taken, or else the last.
        places = np.arange(num_places)
        preference = np.where(is_out, places, 2 * num_places - places)
        taken = np.where(open_iou == best[..., None], preference, -1).argmax(axis=2)
        hit = best >= MIN_IOU
        matched[:, turn] = hit
        g, a = np.nonzero(hit)
        free[g, rows[a], taken[g, a]] = False

        best_out = np.where(is_out, iou, -1.0).max(axis=2)
        best_counted = np.where(is_out, -1.0, iou).max(axis=2)
        missed = np.where(best_counted > best_out, 0.0, share[:, rows])
        missed = np.where(best_out > best_counted, 1.0, missed)
        ignore[:, turn] = np.where(hit, is_out[groups, np.arange(len(turn)), taken], missed)
    return matched, ignore


def _iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the IoU of boxes (A, 4) with others (A, g, 4): a side is x2 - x1 + 2 pixels.

    The official code adds 1 to the right and bottom sides, and 1 again to widths and heights; it
    counts in float32.
    """
    boxes, others = boxes[:, None].astype(np.float32), others.astype(np.float32)
    one = np.float32(1)
    low = np.maximum(boxes[..., :2], others[..., :2])
    high = np.minimum(boxes[..., 2:] + one, others[..., 2:] + one)
    shared = (high - low + one).clip(0).prod(axis=-1)
    areas = [((b[..., 2:] + one) - b[..., :2] + one).prod(axis=-1) for b in (boxes, others)]
    union = areas[0] + areas[1] - shared
    iou: np.ndarray = shared / np.where(shared > 0, union, one)  # a box may end before it begins
    return iou


def _concatenated(
    motion_iou: Sequence[np.ndarray], ground_truth: Sequence[FrameTruth]
) -> np.ndarray:
    """Return the motion IoU of all objects (n,), checked."""
    if len(motion_iou) != len(ground_truth):
        raise ValueError(f"{len(ground_truth)} frames of objects, {len(motion_iou)} of motion IoU")
    for index, (motion, truth) in enumerate(zip(motion_iou, ground_truth, strict=True)):
        if motion.shape != truth.labels.shape:
            raise ValueError(
                f"motion IoU of frame {index} has shape {motion.shape} for "
                f"{len(truth.labels)} objects"
            )
    motion = np.concatenate([np.zeros(0), *motion_iou])
    wrong = ~((motion >= 0) & (motion <= 1))  # NaN is in no range
    if wrong.any():
        index = np.repeat(np.arange(len(motion_iou)), [len(m) for m in motion_iou])[wrong][0]
        raise ValueError(f"motion IoU of frame {index}: {motion[wrong][0]} is not in [0, 1]")
    return motion


def _mean_of_known(values: Iterable[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
