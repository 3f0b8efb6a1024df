"""A user's own sequences: folders of frames or video files, each with a file of boxes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpn_data.images import read_image
from stpn_data.sequences import (
    TrackingSequence,
    boxes_on_frame,
    check_frame,
    read_as_annotated,
    read_boxes,
)
from stpn_data.video import VideoReader
from stpn_data.videos import DataError

BOX_FILE = "groundtruth.txt"
VIDEO_SUFFIXES = frozenset(
    {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
)
"""What `from_folder` takes for a video; a file that is named may have any suffix."""


class OwnSequences:
    """Read videos, each a folder of images or a video file, with the boxes of one target each.

    A box file has a line x, y, width, height for every frame (NaN or a size of zero where the
    target cannot be seen), or one line only: the target in the first frame, to be tracked. Use
    `from_folder` for a folder of several.

    `frame` decodes a video file from its beginning up to the frame. For training, which asks for
    frames here and there, a folder of images is the better form; tracking uses `frames`.

    Args:
        pairs: the folder or video file, and the box file, of each sequence.

    Raises:
        DataError: no sequence, two of the same name, a video that cannot be read, or a box file
            that cannot be used; file and line are named.
    """

    def __init__(self, pairs: Iterable[tuple[str | Path, str | Path]]) -> None:
        """Open every video and read its boxes."""
        self._readers: list[VideoReader] = []
        self._sequences: list[TrackingSequence] = []
        names: dict[str, Path] = {}
        for frames, box_file in ((Path(one), Path(other)) for one, other in pairs):
            reader, name = VideoReader(frames), _name(frames)
            if name in names:
                raise DataError(f"{frames}: the name {name} is that of {names[name]} too")
            names[name] = frames
            self._readers.append(reader)
            self._sequences.append(_sequence(name, reader, box_file))
        if not self._sequences:
            raise DataError("no sequences were given")

    @classmethod
    def from_folder(cls, root: str | Path) -> OwnSequences:
        """Open every sequence of a folder, in the order of their names.

        A sequence is a folder NAME with images and `groundtruth.txt`, or a folder or video file
        NAME with a box file NAME.txt beside it: every .txt in `root` is taken for one. `root`
        itself may be the only sequence.

        Raises:
            DataError: nothing such is there, a box file belongs to nothing or to two videos, or
                as in opening one.
        """
        root = Path(root)
        if not root.is_dir():
            raise DataError(f"{root}: no such folder")
        if (root / BOX_FILE).is_file():
            return cls([(root, root / BOX_FILE)])
        entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
        pairs: list[tuple[Path, Path]] = []
        for entry in entries:
            if entry.is_dir() and (entry / BOX_FILE).is_file():
                pairs.append((entry, entry / BOX_FILE))
            elif entry.suffix == ".txt":
                videos = [one for one in entries if _is_video(one) and _name(one) == entry.stem]
                if len(videos) != 1:
                    found = " and ".join(one.name for one in videos) or "none"
                    raise DataError(
                        f"{entry}: expected one video of this name, found {found}; every .txt "
                        "beside videos is taken for a file of boxes"
                    )
                pairs.append((videos[0], entry))
        if not pairs:
            raise DataError(
                f"{root}: no sequence: neither folders with {BOX_FILE} nor videos with a .txt "
                "of the same name"
            )
        return cls(pairs)

    @property
    def sequences(self) -> Sequence[TrackingSequence]:
        """All sequences, in the order given."""
        return self._sequences

    def frame(self, sequence: int, index: int) -> NDArray[np.uint8]:
        """Read a frame as (H, W, 3) uint8 RGB.

        Raises:
            IndexError: there is no such frame.
            DataError: the video is damaged or ends before the frame.
        """
        check_frame(self.sequences, sequence, index)
        reader, one = self._readers[sequence], self.sequences[sequence]
        if reader.files:
            path = reader.files[index]
            return read_as_annotated(read_image(path), one, path)
        pixels = next(islice(reader, index, None), None)
        if pixels is None:
            raise DataError(f"{reader.path}: the video ends before frame {index}")
        return pixels

    def frames(self, sequence: int) -> Iterator[NDArray[np.uint8]]:
        """Read all frames of a sequence in their order.

        Raises:
            DataError: the video is damaged, or has fewer or more frames than boxes.
        """
        reader, count = self._readers[sequence], self.sequences[sequence].num_frames
        read = 0
        for pixels in reader:
            if read < count:
                yield pixels
            read += 1
        if read != count:
            raise DataError(f"{reader.path}: the video has {read} frames, its boxes are {count}")


def _is_video(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES


def _name(path: Path) -> str:
    if path.name in ("", ".."):  # "." and the like; else a link keeps its own name
        path = path.resolve()
    return path.name if path.is_dir() else path.stem


def _sequence(name: str, reader: VideoReader, box_file: Path) -> TrackingSequence:
    boxes = read_boxes(box_file)
    num_frames = reader.num_frames
    if num_frames is None or (reader.path.is_file() and num_frames != len(boxes)):
        # What a file declares may be missing, or count frames that are not shown.
        num_frames = sum(1 for _ in reader)
    if len(boxes) == 1:
        boxes = np.concatenate([boxes, np.full((num_frames - 1, 4), np.nan)])
    if len(boxes) != num_frames:
        line = min(len(boxes), num_frames) + 1
        raise DataError(
            f"{box_file}:{line}: {len(boxes)} lines for the {num_frames} frames of {reader.path}"
        )
    visible = boxes_on_frame(boxes, reader.size)
    if not visible[0]:
        raise DataError(f"{box_file}:1: the first frame has no box, or one beside the frame")
    return TrackingSequence(name, reader.size, boxes, visible, visible)
