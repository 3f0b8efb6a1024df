"""How fast objects are: the motion IoU of video object detection."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Speed = Literal["slow", "medium", "fast"]

WINDOW = 10
"""Frames on each side that motion IoU looks at."""


def motion_iou(boxes_xyxy: NDArray[np.float64], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the mean IoU of an object with itself in the neighbouring frames.

    For frame t the mean goes over the frames within `WINDOW` of t, without t, in which the object
    is present. This is the definition of FGFA (Zhu et al., ICCV 2017), whose inclusive corners
    and widths ``x2 - x1 + 1`` are our exclusive ones.

    Args:
        boxes_xyxy: (T, 4) boxes of one object, right and bottom exclusive.
        present: (T,) where the object has a box.

    Returns:
        (T,) motion IoU; 1 for an object that is present in no neighbouring frame, and where it
        is absent itself.
    """
    top_left = np.maximum(boxes_xyxy[:, None, :2], boxes_xyxy[None, :, :2])  # (T, T, 2)
    bottom_right = np.minimum(boxes_xyxy[:, None, 2:], boxes_xyxy[None, :, 2:])  # (T, T, 2)
    overlap = np.prod(np.clip(bottom_right - top_left, 0, None), axis=-1)  # (T, T)
    area = np.prod(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], axis=-1)  # (T,)
    union = area[:, None] + area[None, :] - overlap
    iou = overlap / np.maximum(union, 1e-9)
    frames = np.arange(len(boxes_xyxy))
    distance = abs(frames[:, None] - frames[None, :])
    counted = (distance > 0) & (distance <= WINDOW) & present[:, None] & present[None, :]
    number = counted.sum(axis=1)
    return np.where(number > 0, (iou * counted).sum(axis=1) / np.maximum(number, 1), 1.0)


def speed_of(iou: float) -> Speed:
    """Name a motion IoU: slow above 0.9, medium from 0.7 to 0.9, fast below 0.7."""
    if iou > 0.9:
        return "slow"
    return "medium" if iou >= 0.7 else "fast"
