"""Read the folder tree of ImageNet VID: lists, frames, one XML file per frame."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from stpn_data.annotations import AnnotatedBox, DataReport, shown
from stpn_data.images import read_image
from stpn_data.vid_xml import parse_xml, xml_box, xml_size
from stpn_data.videos import DataError, Video

# Key frames of a training video, as in FGFA's list.
TRAINING_FRAMES = 15


class VidFolders:
    """Index one split of the tree; XML files are read frame by frame, when asked for.

    Opening reads the list of the split and the first XML file of every video (frame size).
    Lists are taken in this order: the FGFA lists in `Lists/` (with the training frames and
    lengths), `ImageSets/VID/<split>.txt` (one line a frame), `ImageSets/VID/<split>_<n>.txt` (one
    line a video), and without any of them the folders themselves.

    Where no list names the key frames of training videos, they are 15 of each at equal distances.

    Args:
        root: the folder `ILSVRC` (or `ILSVRC2015`), or the one that contains it.
        split: `train`, `val` or `test`.
        labels: 0-based label of every class by WordNet id.
        report: receives what is left out.

    Raises:
        DataError: a missing folder, or a line or a field that cannot be read.
    """

    def __init__(
        self, root: str | Path, split: str, labels: Mapping[str, int], report: DataReport
    ) -> None:
        """Read the list of the split."""
        self.root = find_tree(Path(root), "VID")
        self._labels = labels
        self._report = report
        self.videos: list[Video] = []
        self._numbers: list[Sequence[int]] = []  # file number of every frame, per video
        for name, numbers, key_numbers in self._index(split):
            if not numbers:
                report.add("video without frames", name)
                continue
            if len(numbers) != numbers[-1] - numbers[0] + 1:
                report.add("video with gaps in its frame numbers", name)
            height, width = self._size(name, numbers[0])
            key_frames = sorted(numbers.index(number) for number in key_numbers)
            if not key_frames:
                key_frames = self._choose_key_frames(name, len(numbers), split)
            self.videos.append(Video(name, len(numbers), height, width, tuple(key_frames)))
            self._numbers.append(numbers)
        if not self.videos:
            raise DataError(f"{self.root}: no videos of split {split!r}")

    def _choose_key_frames(self, name: str, num_frames: int, split: str) -> list[int]:
        """Return all frames; of a training video 15 at equal distances, as the missing list has."""
        if split != "train" or num_frames <= TRAINING_FRAMES:
            return list(range(num_frames))
        self._report.add(
            f"training video whose {TRAINING_FRAMES} key frames no list names: at equal distances",
            name,
        )
        return [(2 * i + 1) * num_frames // (2 * TRAINING_FRAMES) for i in range(TRAINING_FRAMES)]

    def image_path(self, video: int, index: int) -> Path:
        """Name the file of a frame."""
        return self._image_path(self.videos[video].name, self._numbers[video][index])

    def image_size(self, video: int, index: int) -> tuple[int, int]:
        """Return the (height, width) that the annotations give a frame."""
        return self.videos[video].height, self.videos[video].width

    def boxes(self, video: int, index: int) -> list[AnnotatedBox]:
        """Read the objects of a frame; a frame without objects may have no file.

        Raises:
            DataError: the video has no annotations at all, or a field is missing or wrong.
        """
        path, elements = self.elements(video, index)
        return [xml_box(element, path, self._labels) for element in elements]

    def elements(self, video: int, index: int) -> tuple[Path, list[ElementTree.Element]]:
        """Return the XML file of a frame and its objects as they stand there.

        Raises:
            DataError: the video has no annotations at all, or the size is missing or wrong.
        """
        path = self._xml_path(self.videos[video].name, self._numbers[video][index])
        if not os.path.isfile(path):  # which, unlike `Path.is_file`, has no error of its own
            if not os.path.isdir(path.parent):
                raise DataError(f"{path.parent}: the video has no annotations")
            self._report.add("frame without an XML file, taken as free of objects", str(path))
            return path, []
        tree = parse_xml(path)
        size, expected = xml_size(tree, path), self.image_size(video, index)
        if size != expected:
            raise DataError(
                f"{path}: size is {size[1]}x{size[0]}, in the first frame of the video "
                f"{expected[1]}x{expected[0]}"
            )
        return path, list(tree.iter("object"))

    def _size(self, name: str, number: int) -> tuple[int, int]:
        path = self._xml_path(name, number)
        if os.path.isfile(path):
            return xml_size(parse_xml(path), path)
        height, width, _ = read_image(self._image_path(name, number)).shape
        return height, width

    def _image_path(self, name: str, number: int) -> Path:
        return self.root / "Data" / "VID" / name / f"{number:06d}.JPEG"

    def _xml_path(self, name: str, number: int) -> Path:
        return self.root / "Annotations" / "VID" / name / f"{number:06d}.xml"

    def _index(self, split: str) -> Iterator[tuple[str, Sequence[int], Sequence[int]]]:
        """Yield name, frame numbers and numbers of the key frames (none: all) of every video."""
        lists, sets = self.root / "Lists", self.root / "ImageSets" / "VID"
        if split == "train" and (path := lists / "VID_train_15frames.txt").is_file():
            yield from self._key_frame_list(path)
        elif split == "val" and (path := lists / "VID_val_videos.txt").is_file():
            yield from self._video_list(path)
        elif (path := sets / f"{split}.txt").is_file():
            yield from self._frame_list(path, split)
        elif paths := sorted(sets.glob(f"{split}_*.txt")):
            names = {f"{split}/{fields[0]}" for path in paths for _, fields in list_lines(path, 2)}
            yield from ((name, self._listed(name), ()) for name in sorted(names))
        else:
            yield from self._walk(split)

    def _key_frame_list(self, path: Path) -> Iterator[tuple[str, range, Sequence[int]]]:
        """Read lines `<video> 1 <key frame, from 1> <frames>`."""
        lengths: dict[str, int] = {}
        keys: dict[str, dict[int, None]] = {}
        for place, (name, _, key, length) in list_lines(path, 4):
            frames, number = frame_number(length, place), frame_number(key, place) - 1
            if lengths.setdefault(name, frames) != frames:
                raise DataError(f"{place}: {name} has {frames} frames, before {lengths[name]}")
            if not 0 <= number < max(frames, 1):
                raise DataError(f"{place}: key frame {key} is not in 1 .. {frames}")
            if number in keys.setdefault(name, {}):
                self._report.add("key frame listed twice", place)
            keys[name][number] = None
        for name, frames in lengths.items():
            yield name, range(frames), list(keys[name]) if frames else []

    def _video_list(self, path: Path) -> Iterator[tuple[str, range, Sequence[int]]]:
        """Read lines `<video> <global index> 0 <frames>`."""
        seen: set[str] = set()
        for place, (name, _, _, length) in list_lines(path, 4):
            if name in seen:
                self._report.add("video listed twice", place)
                continue
            seen.add(name)
            yield name, range(frame_number(length, place)), ()

    def _frame_list(self, path: Path, split: str) -> Iterator[tuple[str, list[int], Sequence[int]]]:
        """Read lines `<video>/<frame> <index>`."""
        numbers: dict[str, dict[int, None]] = {}
        for place, (frame, _) in list_lines(path, 2):
            name, _, stem = frame.rpartition("/")
            video, number = numbers.setdefault(f"{split}/{name}", {}), frame_number(stem, place)
            if number in video:
                self._report.add("frame listed twice", place)
            video[number] = None
        yield from ((name, sorted(video), ()) for name, video in numbers.items())

    def _walk(self, split: str) -> Iterator[tuple[str, list[int], Sequence[int]]]:
        """Take every folder without subfolders below `Data/VID/<split>` for a video."""
        data = self.root / "Data" / "VID"
        if not (data / split).is_dir():
            raise DataError(f"{data / split}: no such folder, and no list of split {split!r}")
        for folder, subfolders, _ in sorted(os.walk(data / split)):
            if not subfolders:
                name = Path(folder).relative_to(data).as_posix()
                yield name, self._listed(name), ()

    def _listed(self, name: str) -> list[int]:
        folder = self.root / "Data" / "VID" / name
        if not os.path.isdir(folder):
            raise DataError(f"{folder}: no such video")
        return sorted(frame_number(path.stem, str(path)) for path in folder.glob("*.JPEG"))


def tree_folders(root: Path) -> tuple[Path, ...]:
    """Name the folders that can be the tree: `root`, and its `ILSVRC` or `ILSVRC2015`."""
    return root, root / "ILSVRC", root / "ILSVRC2015"


def find_tree(root: Path, task: str) -> Path:
    """Return the folder with `Data/<task>`: `root`, or its `ILSVRC` or `ILSVRC2015`.

    Raises:
        DataError: none of them has one.
    """
    for folder in tree_folders(root):
        if (folder / "Data" / task).is_dir():
            return folder
    raise DataError(f"{root}: neither this folder nor its ILSVRC or ILSVRC2015 has a Data/{task}")


def list_lines(path: Path, num_fields: int) -> Iterator[tuple[str, list[str]]]:
    """Yield `file:line` and the fields of every line that is not blank.

    Raises:
        DataError: the list or a line cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the list cannot be read ({error})") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if fields := line_fields(line, num_fields, f"{path}:{number}"):
            yield f"{path}:{number}", fields


def line_fields(line: str, num_fields: int, place: str) -> list[str]:
    """Split a line of a list, which begins with the name of a video; none if it is blank.

    Raises:
        DataError: another number of fields, or a name outside the folder.
    """
    fields = line.split()
    if fields and len(fields) != num_fields:
        raise DataError(f"{place}: expected {num_fields} fields, got {shown(line)}")
    if fields and not is_below(fields[0]):
        raise DataError(f"{place}: {shown(fields[0])} is no name of a video")
    return fields


def is_below(name: str) -> bool:
    """Tell whether a name of a list stays below the folder that it is relative to."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and len(name) < 1000


def frame_number(text: str, place: str) -> int:
    """Read a number of frames or the number of one.

    Raises:
        DataError: not one to six digits.
    """
    # Files are named by six digits; more would be frames that nobody can have.
    if not (text.isascii() and text.isdecimal() and len(text) <= 6):
        raise DataError(f"{place}: expected a number of one to six digits, got {shown(text)}")
    return int(text)
