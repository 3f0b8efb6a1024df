"""What the detection metrics compare, frame by frame, and how they take it class by class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FrameTruth:
    """Hold the objects of one frame.

    Attributes:
        boxes_xyxy: (n, 4) pixels of the original frame.
        labels: (n,) class indices from 0.
        is_crowd: (n,) bool; a crowd is neither missed nor found, what lies in it is no error.
        conditions: names of the splits that the frame belongs to.
    """

    boxes_xyxy: np.ndarray
    labels: np.ndarray
    is_crowd: np.ndarray
    conditions: frozenset[str] = frozenset()


@dataclass(frozen=True)
class FrameDetections:
    """Hold the detections of one frame: boxes_xyxy (n, 4), scores (n,), labels (n,)."""

    boxes_xyxy: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Objects:
    """Hold the objects of all frames, one frame after the other.

    Attributes:
        frames: (n,) number of the frame, ascending.
        boxes_xyxy: (n, 4).
        labels: (n,).
        is_crowd: (n,) bool.
    """

    frames: np.ndarray
    boxes_xyxy: np.ndarray
    labels: np.ndarray
    is_crowd: np.ndarray

    def where(self, keep: np.ndarray) -> Objects:
        """Return some of the objects, by a mask (n,)."""
        return Objects(
            self.frames[keep], self.boxes_xyxy[keep], self.labels[keep], self.is_crowd[keep]
        )


@dataclass(frozen=True)
class Found:
    """Hold the detections of all frames, one frame after the other.

    Attributes:
        frames: (n,) number of the frame, ascending.
        boxes_xyxy: (n, 4).
        labels: (n,).
        scores: (n,).
    """

    frames: np.ndarray
    boxes_xyxy: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


def gather(
    ground_truth: Sequence[FrameTruth],
    detections: Sequence[FrameDetections],
    classes: Sequence[str],
) -> tuple[Objects, Found]:
    """Put all frames into one array of each kind, after checking them.

    Args:
        ground_truth: objects of each frame.
        detections: detections of the same frames, in the same order.
        classes: names of the labels.

    Raises:
        ValueError: the two disagree in length, or a frame's arrays are not usable; the frame
            and the value are named.
    """
    if len(ground_truth) != len(detections):
        raise ValueError(f"{len(ground_truth)} frames of objects, {len(detections)} of detections")
    objects = [(truth.boxes_xyxy, truth.labels, truth.is_crowd) for truth in ground_truth]
    found = [(found.boxes_xyxy, found.labels, found.scores) for found in detections]
    return (
        Objects(*_concatenate("objects", "is_crowd", objects, np.bool_, len(classes))),
        Found(*_concatenate("detections", "scores", found, np.float32, len(classes))),
    )


def _concatenate(
    kind: str,
    third: str,
    frames: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
    dtype: type,
    num_classes: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return number of the frame, boxes, labels and the third array of all frames, checked.

    Where there is no frame, the third array is of the given dtype.
    """
    for index, (boxes, labels, other) in enumerate(frames):
        if boxes.shape != (len(labels), 4) or other.shape != labels.shape:
            raise ValueError(
                f"{kind} of frame {index}: boxes {boxes.shape}, labels {labels.shape} and "
                f"{third} {other.shape} do not agree"
            )
    if not frames:
        nothing = np.zeros(0, np.int64)
        return nothing, np.zeros((0, 4)), nothing, np.zeros(0, dtype)
    counts = [len(labels) for _, labels, _ in frames]
    numbers = np.repeat(np.arange(len(frames), dtype=np.int32), counts)
    boxes, labels, other = (np.concatenate(column) for column in zip(*frames, strict=True))

    def check(usable: NDArray[np.bool_] | np.bool_, what: Callable[[int], str]) -> None:
        if not usable.all():
            wrong = int(usable.argmin())
            raise ValueError(f"{kind} of frame {numbers[wrong]}: {what(wrong)}")

    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(other)
    check(finite, lambda i: "a box or score is not finite")
    if kind == "objects":  # a detector may well give such a box: it is a wrong one
        whole = (boxes[:, 2:] >= boxes[:, :2]).all(axis=1)
        check(whole, lambda i: f"the box {boxes[i].tolist()} ends before it begins")
    known = (labels >= 0) & (labels < num_classes)
    check(known, lambda i: f"label {labels[i]} is not in [0, {num_classes})")
    return numbers, boxes, labels, other


@dataclass(frozen=True)
class ClassPairing:
    """Lay out one class for matching: in each frame the best detection first.

    F frames have objects of the class, g of them at most.

    Attributes:
        objects: (n,) places of the class's objects among all objects.
        table: (F, g) place in ``objects``, or -1, of each object of a frame, in their order.
        detections: (m,) places of the class's detections among all detections: frame after frame,
            best score first; of equal scores the earlier one is first.
        rows: (m,) row of ``table`` of each detection's frame, -1 without objects of the class.
        ranks: (m,) place of each detection in its frame, from 0.
    """

    objects: np.ndarray
    table: np.ndarray
    detections: np.ndarray
    rows: np.ndarray
    ranks: np.ndarray

    @classmethod
    def of(cls, objects: Objects, found: Found, label: int) -> ClassPairing:
        """Lay out the class of a label."""
        own = np.flatnonzero(objects.labels == label)
        frames, row, counts = np.unique(
            objects.frames[own], return_inverse=True, return_counts=True
        )
        table = np.full((len(frames), counts.max(initial=0)), -1)
        table[row, _position_within(counts)] = np.arange(len(own))

        places = np.flatnonzero(found.labels == label)
        places = places[np.lexsort((-found.scores[places], found.frames[places]))]
        with_detections, counts = np.unique(found.frames[places], return_counts=True)
        row_of_frame = np.full(len(with_detections), -1)
        at = np.searchsorted(frames, with_detections)
        has_objects = np.isin(with_detections, frames, assume_unique=True)
        row_of_frame[has_objects] = at[has_objects]
        return cls(own, table, places, np.repeat(row_of_frame, counts), _position_within(counts))

    def turns(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the best detection of every frame with objects, then every second best, ....

        Frames do not touch each other, so one turn of all frames is matched at once.

        Yields:
            Places (A,) among the class's detections, and their rows (A,) of ``table``.
        """
        compared = np.flatnonzero(self.rows >= 0)
        if not len(compared):
            return
        compared = compared[np.argsort(self.ranks[compared], kind="stable")]
        ends = np.cumsum(np.bincount(self.ranks[compared]))
        for turn in np.split(compared, ends[:-1]):
            yield turn, self.rows[turn]


def _position_within(counts: np.ndarray) -> np.ndarray:
    """Number the members of each group from 0, given the sizes of the groups."""
    starts = np.cumsum(counts) - counts
    position: np.ndarray = np.arange(counts.sum()) - np.repeat(starts, counts)
    return position
