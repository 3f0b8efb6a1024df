"""How well the boxes of one frame fit its objects: a simple count, for choosing pictures.

Average precision is a property of a test set; a single frame needs something that can be seen in
it. Nothing but the choice of pictures depends on this.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpn_tasks.metrics import FrameDetections, FrameTruth

MIN_SCORE = 0.3  # boxes below are neither drawn nor counted
MIN_IOU = 0.5


@dataclass(frozen=True)
class FrameScore:
    """Counts of one frame.

    Attributes:
        num_objects: objects in it.
        num_found: objects that a box of their class covers.
        num_wrong: boxes that are no object, or an object found before.
    """

    num_objects: int
    num_found: int
    num_wrong: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 where there is nothing, and nothing found."""
        num_boxes = self.num_found + self.num_wrong
        total = self.num_objects + num_boxes
        return 2 * self.num_found / total if total else 1.0

    def __str__(self) -> str:
        """Return "1/2 found, 1 wrong"."""
        wrong = f", {self.num_wrong} wrong" if self.num_wrong else ""
        return f"{self.num_found}/{self.num_objects} found{wrong}"


def score_frame(truth: FrameTruth, found: FrameDetections) -> FrameScore:
    """Match boxes with objects as COCO does, at one score and one overlap.

    Boxes of at least `MIN_SCORE` take, best first, the object of their class that they overlap
    most, by an IoU of at least `MIN_IOU`; every object is taken once. A box that is left over is
    wrong, unless at least half of it lies in a crowd of its class. Crowds are no objects.
    """
    objects = ~truth.is_crowd
    free = objects.copy()
    num_wrong = 0
    order = np.argsort(-found.scores, kind="stable")
    for index in order[found.scores[order] >= MIN_SCORE]:
        overlap, share = _overlaps(found.boxes_xyxy[index], truth.boxes_xyxy)
        same = truth.labels == found.labels[index]
        candidates = np.where(free & same, overlap, 0.0)
        if candidates.size and candidates.max() >= MIN_IOU:
            free[candidates.argmax()] = False
        elif not (truth.is_crowd & same & (share >= 0.5)).any():
            num_wrong += 1
    return FrameScore(int(objects.sum()), int(objects.sum() - free.sum()), num_wrong)


def _overlaps(
    box: NDArray[np.float32], boxes_xyxy: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the IoU of a box with others, and the share of the box that lies in each."""
    box, boxes = box.astype(np.float64), boxes_xyxy.astype(np.float64)
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = sides.clip(0).prod(1)
    area, areas = (box[2:] - box[:2]).prod(), (boxes[:, 2:] - boxes[:, :2]).prod(1)
    tiny = np.finfo(np.float64).tiny  # boxes without area share nothing
    return shared / np.maximum(area + areas - shared, tiny), shared / max(area, tiny)
