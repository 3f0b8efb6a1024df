"""Turn boxes as data sets write them into `FrameObjects`; count what cannot be used."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpn_data.videos import FrameObjects

# JPEG's limit; a larger frame is a damaged number.
MAX_SIDE = 65_535
_MAX_FLOAT = float(np.finfo(np.float32).max)

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


@dataclass(frozen=True)
class AnnotatedBox:
    """Hold one object as a file describes it, before any check.

    Attributes:
        box_xyxy: absolute pixels; NaN where the file has none.
        label: 0-based class; None for a class outside the list of the data set.
        track_id: number of the object within its video.
        is_crowd: a region of uncounted objects.
        ignore: the file itself asks to leave the object out.
        mask: (H, W), or None in a data set without masks.
    """

    box_xyxy: tuple[float, float, float, float]
    label: int | None
    track_id: int
    is_crowd: bool = False
    ignore: bool = False
    mask: NDArray[np.bool_] | None = None


class DataReport:
    """Count what a data set left out or found missing, once per place.

    Data sets fill it as they read, so it covers what this process has read so far.
    """

    def __init__(self) -> None:
        """Start with nothing counted."""
        self._places: dict[str, dict[str, None]] = {}

    def add(self, reason: str, place: str) -> None:
        """Count `reason` at `place`; the same place again changes nothing."""
        self._places.setdefault(reason, {})[place] = None

    @property
    def counts(self) -> Counter[str]:
        """Number of places per reason."""
        return Counter({reason: len(places) for reason, places in self._places.items()})

    def places(self, reason: str) -> tuple[str, ...]:
        """Name the places counted for `reason`, in the order in which they were found."""
        return tuple(self._places.get(reason, ()))

    @staticmethod
    def merged(reports: Iterable[DataReport]) -> DataReport:
        """Return all that some reports hold."""
        merged = DataReport()
        for report in reports:
            for reason, places in report._places.items():
                merged._places.setdefault(reason, {}).update(places)
        return merged

    def __str__(self) -> str:
        """Write one line per reason: count, reason, first place."""
        if not self._places:
            return "nothing left out"
        return "\n".join(
            f"{len(places)} x {reason} (first: {next(iter(places))})"
            for reason, places in self._places.items()
        )


def frame_objects(
    boxes: Iterable[AnnotatedBox],
    size: tuple[int, int],
    place: str,
    report: DataReport,
    *,
    with_masks: bool = False,
) -> FrameObjects:
    """Keep the usable objects of one frame, in order, and count the others in `report`.

    The rules are those of the released code's reader (boxes are not clipped), plus two for
    damaged files: a box that is not finite, and a second object with the same track id.

    Args:
        boxes: the objects of the frame.
        size: (height, width) of the frame in pixels.
        place: name of the frame, for the report.
        report: counts the objects left out.
        with_masks: every object has a mask.
    """
    kept: list[AnnotatedBox] = []
    tracks: set[int] = set()
    for number, box in enumerate(boxes):
        reason = unusable_reason(box, size)
        if reason is None and box.track_id in tracks:
            reason = "object with the track id of another one in its frame"
        if reason is not None:
            report.add(reason, f"{place}, object {number}")
            continue
        tracks.add(box.track_id)
        kept.append(box)
    return FrameObjects(
        boxes_xyxy=np.array([box.box_xyxy for box in kept], np.float32).reshape(-1, 4),
        labels=np.array([box.label for box in kept], np.int64),
        track_ids=np.array([box.track_id for box in kept], np.int64),
        is_crowd=np.array([box.is_crowd for box in kept], np.bool_),
        masks=np.array([box.mask for box in kept], np.bool_).reshape(-1, *size)
        if with_masks
        else None,
    )


def shown(value: object) -> str:
    """Return a value as Python writes it, cut where it is long or deep: for messages."""
    return _short.repr(value)


def unusable_reason(box: AnnotatedBox, size: tuple[int, int]) -> str | None:
    """Say why an object of a frame of (height, width) cannot be used; None if it can."""
    if box.ignore:
        return "object marked to be ignored"
    if box.label is None:
        return "object of a class outside the list"
    left, top, right, bottom = box.box_xyxy
    if not all(abs(side) <= _MAX_FLOAT for side in box.box_xyxy):  # NaN is in no range
        return "box null or not finite"
    if right - left < 1 or bottom - top < 1:
        return "box narrower or lower than one pixel"
    height, width = size
    if min(right, width) <= max(left, 0) or min(bottom, height) <= max(top, 0):
        return "box outside the frame"
    return None
