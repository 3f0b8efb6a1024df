"""Motion IoU: how much an object's box overlaps with itself in the frames around."""

from __future__ import annotations

import numpy as np

WINDOW = 10
"""Frames on each side that motion IoU looks at."""


def motion_iou(boxes_xyxy: np.ndarray, frames: np.ndarray, track_ids: np.ndarray) -> np.ndarray:
    """Return the mean IoU of every object of a video with itself in the neighbouring frames.

    For an object of frame t the mean goes over the frames within `WINDOW` of t, without t, in
    which its track has a box. Corners are inclusive, a side is ``x2 - x1 + 1`` pixels: so the
    table that FGFA (Zhu et al., ICCV 2017) published for ImageNet VID was computed.

    Args:
        boxes_xyxy: (n, 4) boxes of the objects of all frames.
        frames: (n,) number of each one's frame.
        track_ids: (n,) equal for the boxes of one object.

    Returns:
        (n,) float64 in [0, 1]; 1 for an object that is in no neighbouring frame: nothing moved.

    Raises:
        ValueError: the arrays disagree, or a track has two boxes in one frame.
    """
    if boxes_xyxy.shape != (len(frames), 4) or frames.shape != track_ids.shape:
        raise ValueError(
            f"boxes {boxes_xyxy.shape}, frames {frames.shape} and track ids {track_ids.shape} "
            "do not agree"
        )
    order = np.lexsort((frames, track_ids))
    boxes = boxes_xyxy[order].astype(np.float64)
    frames, track_ids = frames[order], track_ids[order]
    total, number = np.zeros(len(order)), np.zeros(len(order), np.int64)
    # Boxes of a track lie side by side: frames within the window are at most that many places on.
    for step in range(1, min(WINDOW, len(order) - 1) + 1):
        distance = frames[step:] - frames[:-step]
        same = track_ids[step:] == track_ids[:-step]
        for twice in np.flatnonzero(same & (distance == 0)):
            raise ValueError(f"track {track_ids[twice]} has two boxes in frame {frames[twice]}")
        first = np.flatnonzero(same & (distance <= WINDOW))
        iou = _iou(boxes[first], boxes[first + step])
        for end in (first, first + step):  # each index occurs once
            total[end] += iou
            number[end] += 1
    result = np.ones(len(order))
    result[order] = np.where(number > 0, total / np.maximum(number, 1), 1.0)
    return result


def _iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the IoU of boxes (n, 4) with others (n, 4), pair by pair, corners inclusive."""
    overlap = np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2]) + 1
    shared = overlap.clip(0).prod(axis=1)
    areas = [(b[:, 2:] - b[:, :2] + 1).prod(axis=1) for b in (boxes, others)]
    iou: np.ndarray = shared / (areas[0] + areas[1] - shared)
    return iou
