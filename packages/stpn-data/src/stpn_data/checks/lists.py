"""Check the lists of ImageNet VID against the frames that are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from pathlib import Path

from stpn_data.annotations import DataReport
from stpn_data.vid_folders import frame_number, line_fields
from stpn_data.videos import DataError

_NO_FILE = "list entry without its file"


def check_lists(root: Path, split: str, frames: Mapping[str, Set[str]], report: DataReport) -> None:
    """Check every line of every list of a split that is there.

    Args:
        root: the folder with `Lists` and `ImageSets`.
        split: `train`, `val` or `test`.
        frames: six-digit names of the frames of every video, by its name below the split.
        report: receives the problems.
    """
    lists = _Lists(split, frames, report)
    if split == "train":
        lists.check_key_frames(root / "Lists" / "VID_train_15frames.txt")
    if split == "val":
        lists.check_videos(root / "Lists" / "VID_val_videos.txt")
    sets = root / "ImageSets" / "VID"
    lists.check_frames(sets / f"{split}.txt")
    for path in sorted(sets.glob(f"{split}_*.txt")):
        lists.check_class(path)


def check_still_list(root: Path, images: Mapping[str, Set[str]], report: DataReport) -> None:
    """Check the lines `train/<folder>/<image> 1` of the list of DET images, if it is there.

    Args:
        root: the folder with `Lists`.
        images: names of the images of every folder, by its name below `Data/DET/train`.
        report: receives the problems.
    """
    _Lists("train", images, report).check_images(root / "Lists" / "DET_train_30classes.txt")


class _Lists:
    """Checks lists of one split; goes on after every problem."""

    def __init__(self, split: str, frames: Mapping[str, Set[str]], report: DataReport) -> None:
        self._split, self._frames, self._report = split, frames, report

    def check_key_frames(self, path: Path) -> None:
        """Check lines `<split>/<video> 1 <key frame, from 1> <frames>`."""
        lengths: dict[str, int] = {}
        seen: set[tuple[str, int]] = set()
        for place, (name, _, key, length) in self._lines(path, 4):
            try:
                number, frames = frame_number(key, place) - 1, frame_number(length, place)
            except DataError as error:
                self._report.add("list line that cannot be read", str(error))
                continue
            if (name, number) in seen:
                self._report.add("frame listed twice", f"{place}: {name} frame {key}")
            seen.add((name, number))
            if name not in lengths:
                lengths[name] = frames
                self._check_length(place, name, frames)
            elif lengths[name] != frames:
                before = f"{place}: {name} has {frames} frames, before {lengths[name]}"
                self._report.add("length of a video differs", before)
            if not 0 <= number < frames:
                self._report.add("key frame outside its video", f"{place}: {key} of {frames}")

    def check_videos(self, path: Path) -> None:
        """Check lines `<split>/<video> <global index> 0 <frames>`."""
        seen: set[str] = set()
        for place, (name, _, _, length) in self._lines(path, 4):
            if name in seen:
                self._report.add("video listed twice", f"{place}: {name}")
                continue
            seen.add(name)
            try:
                self._check_length(place, name, frame_number(length, place))
            except DataError as error:
                self._report.add("list line that cannot be read", str(error))

    def check_frames(self, path: Path) -> None:
        """Check lines `<video>/<frame> <index>`."""
        seen: set[str] = set()
        for place, (frame, _) in self._lines(path, 2):
            if frame in seen:
                self._report.add("frame listed twice", f"{place}: {frame}")
            seen.add(frame)
            name, _, stem = frame.rpartition("/")
            if stem not in self._frames.get(name, ()):
                self._report.add(_NO_FILE, f"{place}: {frame}.JPEG")

    def check_images(self, path: Path) -> None:
        """Check lines `<split>/<folder>/<image> 1`."""
        for place, (image, _) in self._lines(path, 2):
            folder, _, stem = image.removeprefix(f"{self._split}/").rpartition("/")
            if stem not in self._frames.get(folder, ()):
                self._report.add(_NO_FILE, f"{place}: {image}.JPEG")

    def check_class(self, path: Path) -> None:
        """Check lines `<video> <label>`."""
        seen: set[str] = set()
        for place, (name, _) in self._lines(path, 2):
            if name in seen:
                self._report.add("video listed twice", f"{place}: {name}")
            seen.add(name)
            if name not in self._frames:
                self._report.add(_NO_FILE, f"{place}: no folder {name}")

    def _check_length(self, place: str, name: str, length: int) -> None:
        """Compare the frames of a video `<split>/<video>` with the 0 .. length - 1 listed."""
        there = self._frames.get(name.removeprefix(f"{self._split}/"))
        if there is None:
            self._report.add(_NO_FILE, f"{place}: no folder {name}")
            return
        listed = {f"{number:06d}" for number in range(length)}
        for stem in sorted(listed - there):
            self._report.add(_NO_FILE, f"{place}: {name}/{stem}.JPEG")
        if more := there - listed:
            text = f"{place}: {name} has {length} frames there, {len(more)} more in its folder"
            self._report.add("length of a video differs", text)

    def _lines(self, path: Path, num_fields: int) -> Iterator[tuple[str, list[str]]]:
        """Yield `file:line` and the fields of every good line; nothing if there is no file."""
        if not path.is_file():
            return
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            self._report.add("list that cannot be read", f"{path}: {error}")
            return
        for number, line in enumerate(text.splitlines(), start=1):
            place = f"{path}:{number}"
            try:
                if fields := line_fields(line, num_fields, place):
                    yield place, fields
            except DataError as error:
                self._report.add("list line that cannot be read", str(error))
