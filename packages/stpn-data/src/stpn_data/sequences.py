"""What every tracking data set offers: sequences of frames with the box of one target."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from stpn_data.annotations import shown
from stpn_data.videos import DataError

_SEPARATOR = re.compile(r"\s*,\s*|\s+")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|nan", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class TrackingSequence:
    """Describe one sequence of a tracking data set and the box of its target in every frame.

    Boxes are (x, y, width, height) as tracking benchmarks write them: absolute pixels, x and y the
    left upper corner counted from 0, continuous (the right border is at x + width, without + 1).
    They are as the file has them, neither clipped nor rounded, in double precision, so that
    evaluation gives the numbers of the official toolkit.

    Attributes:
        name: name of the sequence, unique within the data set.
        size: (height, width) of the frames in pixels.
        boxes_xywh: (T, 4) float64; four NaN for a frame without a box.
        visible: (T,) bool: the target can be seen there, and its box can be learned from.
        counted: (T,) bool: evaluation counts the frame (the first one, which a tracker is given,
            is left out by the metric).
    """

    name: str
    size: tuple[int, int]
    boxes_xywh: NDArray[np.float64]
    visible: NDArray[np.bool_]
    counted: NDArray[np.bool_]

    def __post_init__(self) -> None:
        """Check that every array describes the same frames.

        Raises:
            ValueError: a wrong shape or dtype, named with what was expected; a visible target
                without a box on the frame.
        """
        count = self.num_frames
        for name, array, shape, dtype in (
            ("boxes_xywh", self.boxes_xywh, (count, 4), np.float64),
            ("visible", self.visible, (count,), np.bool_),
            ("counted", self.counted, (count,), np.bool_),
        ):
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(
                    f"{self.name}: {name} must be {np.dtype(dtype)} of shape {shape}, "
                    f"got {array.dtype} {array.shape}"
                )
        for frame in np.flatnonzero(self.visible & ~self.has_box):
            raise ValueError(f"{self.name}: the target is visible in frame {frame} without a box")

    @property
    def has_box(self) -> NDArray[np.bool_]:
        """Which boxes have an area, a part of it on the frame: there is something to crop. (T,)."""
        return boxes_on_frame(self.boxes_xywh, self.size)

    @property
    def num_frames(self) -> int:
        """T, the number of frames."""
        return len(self.boxes_xywh)


@runtime_checkable
class TrackingDataset(Protocol):
    """Offer annotated sequences; what trackers, their training and evaluation read."""

    @property
    def sequences(self) -> Sequence[TrackingSequence]:
        """All sequences, in a fixed order."""
        ...

    def frame(self, sequence: int, index: int) -> NDArray[np.uint8]:
        """Read frame `index` of sequence number `sequence` as (H, W, 3) RGB uint8."""
        ...

    def frames(self, sequence: int) -> Iterator[NDArray[np.uint8]]:
        """Read all frames of sequence number `sequence` in their order, one at a time."""
        ...


def boxes_on_frame(boxes_xywh: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell which boxes (T, 4) have an area, a part of it on the frame of (height, width).

    Boxes without numbers (NaN), of zero or negative size, and beside the frame do not: there is
    nothing to crop. (T,) bool.
    """
    height, width = size
    left, top, w, h = boxes_xywh.T
    with np.errstate(invalid="ignore", over="ignore"):  # NaN is on no frame
        on_frame: NDArray[np.bool_] = (
            (w > 0) & (h > 0) & (left < width) & (top < height) & (left + w > 0) & (top + h > 0)
        )
    return on_frame


def read_boxes(path: Path) -> NDArray[np.float64]:
    """Read a file of one box x, y, width, height per line as (n, 4) float64.

    Numbers are separated by commas, tabs or blanks; blank lines at the end are none. A line with a
    NaN is a frame without a box: four NaN.

    Raises:
        DataError: no file, no line, or a line that is no box; file and line are named.
    """
    boxes = read_rows(path, 4)
    boxes[np.isnan(boxes).any(axis=1)] = math.nan
    return boxes


def read_rows(path: Path, num_columns: int | None = None) -> NDArray[np.float64]:
    """Read a file of as many numbers in every line as (n, num_columns) float64; NaN is one.

    Args:
        path: the file; separators as in `read_boxes`.
        num_columns: numbers of a line; None for as many as the first one has.

    Raises:
        DataError: no file, no line, or a line that is not so many numbers; file and line are named.
    """
    rows: list[list[float]] = []
    for number, line in enumerate(read_lines(path), start=1):
        fields = _SEPARATOR.split(line.strip())
        values = [float(field) if _NUMBER.fullmatch(field) else math.inf for field in fields]
        num_columns = num_columns or len(fields)
        if len(fields) != num_columns or any(map(math.isinf, values)):
            raise DataError(
                f"{path}:{number}: expected {num_columns} finite numbers, got {shown(line)}"
            )
        rows.append(values)
    return np.array(rows, np.float64)


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file, of which there is one at least; blank ones at the end go.

    Raises:
        DataError: the file is missing, not UTF-8, or has nothing but blank lines.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: the file cannot be read ({reason})") from error
    lines = text.rstrip().split("\n")  # reading has turned "\r\n" into "\n"
    if lines == [""]:
        raise DataError(f"{path}: the file is empty")
    return lines


def check_frame(sequences: Sequence[TrackingSequence], sequence: int, index: int) -> None:
    """Check that there is a frame `index` of sequence number `sequence`.

    Raises:
        IndexError: there is none.
    """
    if not 0 <= sequence < len(sequences):
        raise IndexError(f"sequence {sequence} is not one of {len(sequences)}")
    one = sequences[sequence]
    if not 0 <= index < one.num_frames:
        raise IndexError(f"frame {index} is not in {one.name} of {one.num_frames} frames")


def read_as_annotated(
    pixels: NDArray[np.uint8], sequence: TrackingSequence, path: str | Path
) -> NDArray[np.uint8]:
    """Return a frame, which must be of the size of its sequence.

    Raises:
        DataError: it is not; names the file.
    """
    if pixels.shape[:2] != sequence.size:
        raise DataError(
            f"{path}: the image is {pixels.shape[1]}x{pixels.shape[0]}, the sequence is "
            f"{sequence.size[1]}x{sequence.size[0]}"
        )
    return pixels
