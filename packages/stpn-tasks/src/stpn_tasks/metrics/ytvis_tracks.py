"""What YouTube-VIS compares: objects and predictions that are a mask in each frame of a video.

Masks are run-length encoded, ``{"size": [height, width], "counts": ...}`` as in COCO's files, and
None where there is none, which counts as an empty one. Overlaps are counted on the runs, by
pycocotools' C code, which does not end where runs do not fill the frame: who reads a file checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

_AT_ONCE = 255  # pycocotools with numpy 2 counts the areas of no more masks in one call

Rle = dict[str, Any]
Masks = Sequence[Rle | None]


@dataclass(frozen=True)
class VideoObject:
    """Hold one object of a video.

    Attributes:
        category: id of its category.
        masks: T masks, one per frame.
        is_crowd: a crowd is not missed, and may be found again and again.
        areas: T areas in pixels, or None where there is none, as the annotation file gives them;
            they decide about the size of the object only. Those of the masks if not given.
    """

    category: int
    masks: Masks
    is_crowd: bool = False
    areas: Sequence[float | None] | None = None


@dataclass(frozen=True)
class VideoTruth:
    """Hold the objects of one video.

    Attributes:
        name: names the video in errors.
        size: (height, width) in pixels.
        length: number of frames T.
        objects: of the video, in the order of the file, which decides where overlaps are equal.
        conditions: names of the splits that the video belongs to.
    """

    name: str
    size: tuple[int, int]
    length: int
    objects: Sequence[VideoObject]
    conditions: frozenset[str] = frozenset()


@dataclass(frozen=True)
class VideoPrediction:
    """Hold one prediction of a video: id of its category, score, and T masks."""

    category: int
    score: float
    masks: Masks


@dataclass(frozen=True)
class Tracks:
    """Hold the objects, or the predictions, of one video and category, ready to be compared.

    Attributes:
        masks: n rows of T compressed masks, or None.
        areas: (n, T) float64 pixels of the masks, 0 without one.
    """

    masks: list[list[Rle | None]]
    areas: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Masks], video: VideoTruth, kind: str) -> Tracks:
        """Check masks against the video and count their pixels; what was given stays as it was.

        Args:
            rows: the masks of each object or prediction.
            video: whose they are.
            kind: names them in errors.

        Raises:
            ValueError: another number of masks than frames, a mask of another size, or one that
                cannot be read; video, number and frame are named.
        """
        masks: list[list[Rle | None]] = [[None] * video.length for _ in rows]
        areas = np.zeros((len(rows), video.length))
        places: list[tuple[int, int]] = []
        for number, row in enumerate(rows):
            if len(row) != video.length:
                raise ValueError(
                    f"{kind} {number} of video {video.name}: {len(row)} masks for "
                    f"{video.length} frames"
                )
            for frame, rle in enumerate(row):
                if rle is None:
                    continue
                try:
                    masks[number][frame] = compressed(rle, video.size)
                except ValueError as error:
                    place = f"{kind} {number} of video {video.name}, frame {frame}"
                    raise ValueError(f"{place}: {error}") from error
                places.append((number, frame))
        for start in range(0, len(places), _AT_ONCE):
            some = places[start : start + _AT_ONCE]
            areas[tuple(zip(*some, strict=True))] = coco_mask.area(
                [masks[row][frame] for row, frame in some]
            )
        return cls(masks, areas)

    def iou(self, others: Tracks, at_least: float) -> np.ndarray:
        """Return the IoU over the whole video of these n with the others m: (n, m) float64.

        It is the sum of the shared pixels of all frames by the sum of the united ones, 0 without
        any pixel. A pair is left as soon as its areas in the frames to come cannot lift it.

        Args:
            others: of the same video.
            at_least: smaller IoUs may be returned as 0.
        """
        mine, theirs = self.areas[:, None], others.areas  # (n, 1, T), (m, T)
        united = np.maximum(mine, theirs).sum(axis=2)  # (n, m), if all that can be is shared
        missed = np.zeros_like(united)  # what could be shared, and is not
        most = np.minimum(mine, theirs)  # (n, m, T)
        could = most.sum(axis=2)
        near = (could > 0) & (could >= at_least * united)
        for frame in range(self.areas.shape[1]):
            if not near.any():
                break
            rows = np.flatnonzero(near.any(axis=1) & (self.areas[:, frame] > 0))
            columns = np.flatnonzero(near.any(axis=0) & (others.areas[:, frame] > 0))
            if not len(rows) or not len(columns):
                continue
            pairs = np.ix_(rows, columns)
            # With the flag of a crowd pycocotools divides what is shared by the first's area.
            inside = coco_mask.iou(
                [self.masks[row][frame] for row in rows],
                [others.masks[column][frame] for column in columns],
                np.ones(len(columns), np.uint8),
            )
            shared = np.rint(inside * self.areas[rows, frame, None])
            missed[pairs] += most[..., frame][pairs] - shared
            near &= could - missed >= at_least * (united + missed)
        iou: np.ndarray = np.where(near, could - missed, 0.0) / np.maximum(united + missed, 1.0)
        return iou


def average_area(areas: np.ndarray) -> np.ndarray:
    """Return the mean (n,) of the areas (n, T) that are not 0, or 0 without any."""
    mean: np.ndarray = areas.sum(axis=1) / np.maximum((areas > 0).sum(axis=1), 1)
    return mean


def compressed(rle: Rle, size: tuple[int, int]) -> Rle:
    """Return a mask with compressed counts, which may be given as a list of runs too.

    Args:
        rle: the mask.
        size: (height, width) that it has to have.

    Raises:
        ValueError: another size, or counts that cannot be read.
    """
    if rle.get("size") != list(size):
        raise ValueError(f"the mask's size is {rle.get('size')}, not {list(size)}")
    counts = rle.get("counts")
    if isinstance(counts, str | bytes):
        return rle
    if not isinstance(counts, list) or not all(type(n) is int and n >= 0 for n in counts):
        raise ValueError("the mask's counts are no text and no list of runs")
    if sum(counts) != size[0] * size[1]:
        raise ValueError(f"the mask's runs have {sum(counts)} pixels, not {size[0] * size[1]}")
    made: Rle = coco_mask.frPyObjects({"size": list(size), "counts": counts}, *size)
    return made
