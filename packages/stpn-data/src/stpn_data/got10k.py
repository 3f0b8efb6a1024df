"""The data set GOT-10k: one moving target per sequence, in the folders of its authors."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpn_data.annotations import MAX_SIDE, shown
from stpn_data.images import read_image
from stpn_data.sequences import (
    TrackingSequence,
    boxes_on_frame,
    check_frame,
    read_as_annotated,
    read_boxes,
    read_lines,
)
from stpn_data.videos import DataError

SPLITS = ("train", "val", "test")
FULL_COVER = 8
"""Highest value of cover.label: the whole target can be seen."""
_RESOLUTION = re.compile(r"\(\s*(\d{1,5})\s*,\s*(\d{1,5})\s*\)", re.ASCII)


@dataclass(frozen=True)
class GOT10kLabels:
    """Hold the label files of a sequence of the splits train and val.

    Attributes:
        absent: (T,) bool, the target is not in the frame (absence.label).
        cut_by_image: (T,) bool, the target is cut by the border (cut_by_image.label).
        cover: (T,) int64, how many eighths of the target can be seen (cover.label), 0 .. 8.
        meta: what meta_info.ini says, such as the classes of object and motion.
    """

    absent: NDArray[np.bool_]
    cut_by_image: NDArray[np.bool_]
    cover: NDArray[np.int64]
    meta: dict[str, str]


class GOT10k:
    """Read a split of GOT-10k (Huang et al., TPAMI 2021).

    Opening reads list.txt and all labels; of train and val no image, of test, whose sizes no file
    tells, the first frame of every sequence. A sequence is a folder with 00000001.jpg ..,
    groundtruth.txt, absence.label, cut_by_image.label, cover.label and meta_info.ini; in the split
    test only frames and the first line of groundtruth.txt are published.

    A target is visible where it is not absent, its cover is not 0, and its box has an area on the
    frame (a few training sequences have boxes beside it; labels of absent frames are stale or
    zero). Evaluation counts the frames of val whose cover is not 0, as the toolkit does, which
    does not ask whether the target is absent; a frame without a box is never counted.

    Attributes:
        split: train, val or test.
        sequences: all sequences, in the order of list.txt.
        labels: the label files of each of them; None in the split test.

    Args:
        root: the folder that contains the folders train, val and test.
        split: `train`, `val` or `test`.

    Raises:
        ValueError: another split.
        DataError: a file that is missing, or a line or value that cannot be used.
    """

    def __init__(self, root: str | Path, split: str) -> None:
        """Read the list of the split and the labels of its sequences."""
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        self.split = split
        self._folder = Path(root) / split
        read = [self._read(name) for name in _listed(self._folder / "list.txt")]
        self._sequences = [sequence for sequence, _ in read]
        self.labels = [labels for _, labels in read]

    @property
    def sequences(self) -> Sequence[TrackingSequence]:
        """All sequences, in the order of list.txt."""
        return self._sequences

    def frame(self, sequence: int, index: int) -> NDArray[np.uint8]:
        """Read a frame as (H, W, 3) uint8 RGB.

        Raises:
            IndexError: there is no such frame.
            DataError: the file is missing or damaged, or of another size than meta_info.ini says.
        """
        check_frame(self.sequences, sequence, index)
        one = self.sequences[sequence]
        path = self._folder / one.name / _file_name(index)
        return read_as_annotated(read_image(path), one, path)

    def frames(self, sequence: int) -> Iterator[NDArray[np.uint8]]:
        """Read all frames of a sequence in their order; errors as `frame`."""
        for index in range(self.sequences[sequence].num_frames):
            yield self.frame(sequence, index)

    def _read(self, name: str) -> tuple[TrackingSequence, GOT10kLabels | None]:
        folder = self._folder / name
        num_frames = _count_frames(folder)
        boxes = read_boxes(folder / "groundtruth.txt")
        if self.split == "test" and len(boxes) == 1:
            boxes = np.concatenate([boxes, np.full((num_frames - 1, 4), np.nan)])
        _check_count(folder / "groundtruth.txt", len(boxes), num_frames)
        if self.split == "test":
            height, width, _ = read_image(folder / _file_name(0)).shape
            seen = boxes_on_frame(boxes, (height, width))
            if not seen[0]:
                raise DataError(f"{folder / 'groundtruth.txt'}:1: no box to start tracking from")
            return TrackingSequence(name, (height, width), boxes, seen, seen), None
        labels = GOT10kLabels(
            absent=_read_label(folder / "absence.label", 1, num_frames).astype(np.bool_),
            cut_by_image=_read_label(folder / "cut_by_image.label", 1, num_frames).astype(np.bool_),
            cover=_read_label(folder / "cover.label", FULL_COVER, num_frames),
            meta=_read_meta(folder / "meta_info.ini"),
        )
        size = _frame_size(labels.meta, folder / "meta_info.ini")
        covered = labels.cover > 0
        visible = ~labels.absent & covered & boxes_on_frame(boxes, size)
        counted = covered & ~np.isnan(boxes[:, 0])
        return TrackingSequence(name, size, boxes, visible, counted), labels


def _listed(path: Path) -> list[str]:
    """Read the names of the sequences, one a line."""
    names: dict[str, None] = {}
    for number, line in enumerate(read_lines(path), start=1):
        name = line.strip()
        if not _is_folder_name(name):
            raise DataError(f"{path}:{number}: {shown(name)} is no name of a sequence")
        if name in names:
            raise DataError(f"{path}:{number}: sequence {name} is listed twice")
        names[name] = None
    return list(names)


def _is_folder_name(name: str) -> bool:
    is_path = name in (".", "..") or "/" in name or "\\" in name
    return 0 < len(name) < 250 and name.isprintable() and not is_path


def _file_name(index: int) -> str:
    return f"{index + 1:08d}.jpg"


def _count_frames(folder: Path) -> int:
    """Return the number of frames, which must be numbered from 1 without a gap."""
    try:
        files = {name for name in os.listdir(folder) if re.fullmatch(r"\d+\.jpg", name, re.ASCII)}
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{folder}: the sequence cannot be read ({reason})") from error
    for index in range(max(len(files), 1)):
        if _file_name(index) not in files:
            raise DataError(
                f"{folder / _file_name(index)}: the frame is missing; the folder has "
                f"{len(files)} frames"
            )
    return len(files)


def _check_count(path: Path, num_lines: int, num_frames: int) -> None:
    if num_lines != num_frames:
        line = min(num_lines, num_frames) + 1
        raise DataError(f"{path}:{line}: {num_lines} lines for {num_frames} frames")


def _read_label(path: Path, highest: int, num_frames: int) -> NDArray[np.int64]:
    """Read a label file: an integer 0 .. highest a line, a line a frame."""
    allowed = {str(value): value for value in range(highest + 1)}
    values = []
    for number, line in enumerate(read_lines(path), start=1):
        value = allowed.get(line.strip())
        if value is None:
            raise DataError(f"{path}:{number}: expected 0 .. {highest}, got {shown(line)}")
        values.append(value)
    _check_count(path, len(values), num_frames)
    return np.array(values, np.int64)


def _read_meta(path: Path) -> dict[str, str]:
    """Read `key: value` lines below [METAINFO]; values may contain colons, as times do."""
    meta: dict[str, str] = {}
    lines = read_lines(path)
    if lines[0].strip() != "[METAINFO]":
        raise DataError(f"{path}:1: expected [METAINFO], got {shown(lines[0])}")
    for number, line in enumerate(lines[1:], start=2):
        key, colon, value = line.partition(":")
        if line.strip() and not colon:
            raise DataError(f"{path}:{number}: expected 'key: value', got {shown(line)}")
        if key.strip() in meta:
            raise DataError(f"{path}:{number}: {shown(key.strip())} stands there twice")
        if line.strip():
            meta[key.strip()] = value.strip()
    return meta


def _frame_size(meta: dict[str, str], path: Path) -> tuple[int, int]:
    """Return (height, width) of resolution: (width, height), which is matched, not evaluated."""
    if "resolution" not in meta:
        raise DataError(f"{path}: resolution is missing")
    match = _RESOLUTION.fullmatch(meta["resolution"])
    width, height = (int(side) for side in match.groups()) if match else (0, 0)
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise DataError(
            f"{path}: resolution must be (width, height), got {shown(meta['resolution'])}"
        )
    return height, width
