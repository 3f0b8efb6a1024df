"""AO, SR and the success curve of GOT-10k, as the official toolkit computes them.

Its report on the split val is what the tests compare with. Its rules differ from what the names
suggest in these points:

- all frames of all sequences are one list: a long sequence counts more, classes are not balanced;
- a box is clipped to the frame by its corner first, its size is kept: one that sticks out on the
  left or above is moved, not cut;
- only the cover decides whether a frame counts, not whether the target is absent;
- an overlap of exactly a threshold is no success.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

THRESHOLDS = np.linspace(0.0, 1.0, 101)
"""Overlaps at which the success curve is taken."""
_AT_50, _AT_75 = 50, 75


@dataclass(frozen=True)
class TrackTruth:
    """Hold the target of one sequence.

    Attributes:
        boxes_xywh: (T, 4) x, y, width, height in pixels; any numbers, NaN too, where the frame
            does not count.
        counted: (T,) bool: the frame counts, in GOT-10k where the cover is not 0. The first frame,
            which a tracker is given, never does, whatever stands there.
        size: (height, width) of the frames.
    """

    boxes_xywh: np.ndarray
    counted: np.ndarray
    size: tuple[int, int]


@dataclass(frozen=True)
class TrackingSuccess:
    """Hold the numbers of the GOT-10k protocol, each in [0, 1], or NaN without a counted frame.

    Attributes:
        ao: average overlap, the mean IoU over the frames.
        sr50: success rate, the share of frames with an IoU above 0.5.
        sr75: the share of frames with an IoU above 0.75.
        curve: the share of frames with an IoU above each of `THRESHOLDS`.
        num_frames: frames that counted, over all repetitions.
    """

    ao: float
    sr50: float
    sr75: float
    curve: tuple[float, ...]
    num_frames: int


@dataclass(frozen=True)
class TrackingReport:
    """Hold what a tracker reached.

    Attributes:
        overall: over all frames of all sequences.
        by_sequence: over the frames of each.
    """

    overall: TrackingSuccess
    by_sequence: dict[str, TrackingSuccess]


def got10k_success(
    truths: Mapping[str, TrackTruth], tracks: Mapping[str, Sequence[np.ndarray]]
) -> TrackingReport:
    """Return AO, SR0.5, SR0.75 and the success curve of a tracker.

    Args:
        truths: the target of each sequence, by its name.
        tracks: by the same names, the boxes (T, 4), x, y, width, height, of each repetition of the
            sequence; of one unless the tracker is random. All repetitions count alike.

    Raises:
        ValueError: no sequence, a sequence that only one of both has, one without a repetition,
            or arrays that do not agree or are not finite where the frame counts; sequence and
            frame are named.
    """
    if not truths:
        raise ValueError("there is no sequence to evaluate")
    for name in truths.keys() ^ tracks.keys():
        raise ValueError(f"{name}: {'no result' if name in truths else 'no such sequence'}")
    overlaps = {name: _overlaps(name, truth, tracks[name]) for name, truth in truths.items()}
    return TrackingReport(
        overall=tracking_success(np.concatenate(list(overlaps.values()))),
        by_sequence={name: tracking_success(values) for name, values in overlaps.items()},
    )


def frames_per_second(times: np.ndarray) -> float:
    """Return the toolkit's speed: the mean of 1 / t over the positive times t, NaN without any.

    It is the mean of the frames' rates, not frames by time. The first frame's time, in which the
    tracker is set up, is one of them.

    Args:
        times: seconds, of any shape; what is not positive or NaN is left out.
    """
    positive = times[times > 0]  # NaN is not
    return float(np.mean(1.0 / positive)) if positive.size else float("nan")


def clipped_iou(
    boxes_xywh: np.ndarray, others_xywh: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Return the IoU of boxes (n, 4) with others (n, 4), pair by pair, as the toolkit does.

    Both are clipped to the frame as the module says. Coordinates are continuous, a side is its
    width or height without + 1. Two boxes without an area have the IoU 0.

    Args:
        boxes_xywh: x, y, width, height.
        others_xywh: those to compare with.
        size: (height, width) of the frame.

    Returns:
        (n,) float64 in [0, 1].
    """
    (x, y, w, h), (u, v, s, t) = _clip(boxes_xywh, size), _clip(others_xywh, size)
    shared = np.maximum(np.minimum(x + w, u + s) - np.maximum(x, u), 0.0) * np.maximum(
        np.minimum(y + h, v + t) - np.maximum(y, v), 0.0
    )
    union = w * h + s * t - shared
    iou: np.ndarray = np.clip(shared / (union + np.finfo(float).eps), 0.0, 1.0)
    return iou


def _clip(boxes_xywh: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return x, y, width and height (4, n) of clipped boxes."""
    height, width = size
    x, y, w, h = boxes_xywh.T.astype(np.float64)
    x, y = np.clip(x, 0, width), np.clip(y, 0, height)
    return np.stack([x, y, np.clip(w, 0, width - x), np.clip(h, 0, height - y)])


def _overlaps(name: str, truth: TrackTruth, tracks: Sequence[np.ndarray]) -> np.ndarray:
    """Return the IoU in the counted frames of all repetitions, one behind the other."""
    count = len(truth.counted)
    if count == 0 or truth.boxes_xywh.shape != (count, 4) or truth.counted.shape != (count,):
        raise ValueError(
            f"{name}: boxes {truth.boxes_xywh.shape} and counted {truth.counted.shape} of the "
            "target must be (T, 4) and (T,) of at least one frame"
        )
    if not tracks:
        raise ValueError(f"{name}: no result")
    frames = 1 + np.flatnonzero(truth.counted[1:])
    _check_finite(f"{name}: the target", truth.boxes_xywh, frames)
    for boxes in tracks:
        if boxes.shape != (count, 4):
            raise ValueError(f"{name}: expected results of shape {(count, 4)}, got {boxes.shape}")
        _check_finite(f"{name}: the result", boxes, frames)
    targets = truth.boxes_xywh[frames]
    return np.concatenate([clipped_iou(boxes[frames], targets, truth.size) for boxes in tracks])


def _check_finite(what: str, boxes: np.ndarray, frames: np.ndarray) -> None:
    for frame in frames[~np.isfinite(boxes[frames]).all(axis=1)]:
        raise ValueError(f"{what} of frame {frame} is not finite: {boxes[frame].tolist()}")


def tracking_success(overlaps: np.ndarray) -> TrackingSuccess:
    """Sum up the overlaps (n,) of the frames that count; NaN without any."""
    if not len(overlaps):
        nothing = float("nan")
        return TrackingSuccess(nothing, nothing, nothing, (nothing,) * len(THRESHOLDS), 0)
    curve = np.mean(overlaps[:, None] > THRESHOLDS, axis=0)
    return TrackingSuccess(
        ao=float(np.mean(overlaps)),
        sr50=float(curve[_AT_50]),
        sr75=float(curve[_AT_75]),
        curve=tuple(curve.tolist()),
        num_frames=len(overlaps),
    )
