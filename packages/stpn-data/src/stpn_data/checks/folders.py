"""Check the folder trees of ImageNet VID and DET: every list, image and XML file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from tqdm import tqdm

from stpn_data.annotations import DataReport, shown
from stpn_data.checks.lists import check_lists, check_still_list
from stpn_data.checks.subset import Problem, Subset, add_problems, box_problems, image_problems
from stpn_data.imagenet_vid import LABELS
from stpn_data.vid_xml import parse_xml, xml_box, xml_size
from stpn_data.videos import DataError

_SPLITS = ("train", "val", "test")


def check_folders(root: Path, report: DataReport, progress: bool) -> list[Subset]:
    """Check all that lies below `root`, the folder with `Data`; return what was counted.

    Of DET, as the data set has it, images may lack an XML file and have other classes than the
    thirty; of the test parts, nothing is annotated.
    """
    with ThreadPoolExecutor() as pool:  # decoding lets other threads run
        subsets = []
        for task in ("VID", "DET"):
            for split in _SPLITS:
                if _has_files(root / "Data" / task / split):
                    subsets.append(_Part(root, task, split, report).check(pool, progress))
        return subsets


@dataclass
class _FrameCheck:
    """What was found in one frame."""

    size: tuple[int, int] | None = None
    objects: int = 0
    tracks: set[int] = field(default_factory=set)
    classes: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)


class _Part:
    """Checks one split of VID or DET."""

    def __init__(self, root: Path, task: str, split: str, report: DataReport) -> None:
        self._images, self._annotations = (
            root / kind / task / split for kind in ("Data", "Annotations")
        )
        self._root, self._split, self._report = root, split, report
        self._is_video = task == "VID"
        self._subset = Subset(f"{task}/{split}", f"ImageNet {task} folders")

    def check(self, pool: ThreadPoolExecutor, progress: bool) -> Subset:
        images, annotations = _files(self._images), _files(self._annotations)
        frames = {name: self._stems(name, files) for name, files in images.items()}
        if self._is_video:
            check_lists(self._root, self._split, frames, self._report)
        elif self._split == "train":
            check_still_list(self._root, frames, self._report)
        total = sum(map(len, frames.values()))
        with tqdm(total=total, desc=self._subset.name, unit="image", disable=not progress) as bar:
            for name in sorted(frames.keys() | annotations.keys()):
                if name in frames:
                    annotated = annotations.get(name)
                    self._check_folder(name, frames[name], annotated, pool)
                    bar.update(len(frames[name]))
                else:
                    self._report.add("annotated, but without images", str(self._images / name))
        return self._subset

    def _stems(self, name: str, files: Set[str]) -> set[str]:
        """Return the names of the images of a folder, without suffix."""
        stems = set()
        for file in sorted(files):
            stem, suffix = os.path.splitext(file)
            if suffix == ".JPEG" and (not self._is_video or _is_frame_number(stem)):
                stems.add(stem)
            else:
                kind = "six digits and .JPEG" if self._is_video else "*.JPEG"
                place = f"{self._images / name / file}: not named as a frame, {kind}"
                self._report.add("file that is not read", place)
        if self._is_video and stems:
            numbers = {int(stem) for stem in stems}
            if missing := max(numbers) - min(numbers) + 1 - len(numbers):
                place = (
                    f"{self._images / name}: {missing} between {min(numbers)} and {max(numbers)}"
                )
                self._report.add("video with gaps in its frame numbers", place)
        return stems

    def _check_folder(
        self, name: str, stems: set[str], annotated: Set[str] | None, pool: ThreadPoolExecutor
    ) -> None:
        images, annotations, subset = self._images / name, self._annotations / name, self._subset
        if self._is_video and not stems:
            self._report.add("video without frames", str(images))
        if annotated is None and self._is_video and self._split != "test":
            self._report.add("video without annotations", str(annotations))
        for file in sorted(annotated or ()):
            if os.path.splitext(file)[0] not in stems:
                self._report.add("annotation without its image", str(annotations / file))

        def check(stem: str) -> _FrameCheck:
            path = annotations / f"{stem}.xml" if annotated is not None else None
            return self._check_frame(images / f"{stem}.JPEG", path)

        tracks: set[int] = set()
        first_size = None
        for stem, frame in zip(sorted(stems), pool.map(check, sorted(stems)), strict=True):
            add_problems(self._report, frame.problems)
            first_size = first_size or frame.size
            if self._is_video and frame.size not in (None, first_size):
                self._report.add("frame size changes within a video", str(images / f"{stem}.JPEG"))
            subset.objects += frame.objects
            subset.classes |= frame.classes
            tracks |= frame.tracks
        if self._is_video:
            subset.videos += bool(stems)
            subset.frames += len(stems)
            subset.tracks += len(tracks)
        else:
            subset.still_images += len(stems)

    def _check_frame(self, image: Path, annotation: Path | None) -> _FrameCheck:
        """Check an image with its XML file; None: nothing there is annotated."""
        frame = _FrameCheck()
        if annotation is not None and os.path.isfile(annotation):
            try:
                tree = parse_xml(annotation)
                frame.size = xml_size(tree, annotation)
            except DataError as error:
                frame.problems.append(("annotation that cannot be read", str(error)))
            else:
                for number, element in enumerate(tree.iter("object")):
                    self._check_object(element, number, annotation, frame.size, frame)
        elif annotation is not None and self._is_video:
            frame.problems.append(("image without its annotation", str(image)))
        frame.problems += image_problems(image, frame.size)
        return frame

    def _check_object(
        self,
        element: ElementTree.Element,
        number: int,
        path: Path,
        size: tuple[int, int],
        frame: _FrameCheck,
    ) -> None:
        frame.objects += 1
        place = f"{path}: object {number}"
        try:
            box = xml_box(element, path, LABELS, track_id=None if self._is_video else number)
        except DataError as error:
            frame.problems.append(("annotation that cannot be read", f"{error} (object {number})"))
            return
        name = (element.findtext("name") or "").strip()
        frame.classes.add(name)
        if box.label is None:
            if self._is_video:
                frame.problems.append(("unknown class", f"{place}: {shown(name)}"))
            return
        if box.track_id in frame.tracks:
            twice = f"{place}: trackid {box.track_id}"
            frame.problems.append(("track twice in a frame", twice))
        frame.tracks.add(box.track_id)
        frame.problems += box_problems(box, size, place)


def _is_frame_number(stem: str) -> bool:
    return len(stem) == 6 and stem.isascii() and stem.isdecimal()


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(True for _ in folder.iterdir())


def _files(folder: Path) -> dict[str, set[str]]:
    """Return the files, hidden ones aside, of every folder without subfolders, by its path."""
    return dict(_leaves(folder))


def _leaves(folder: Path) -> Iterator[tuple[str, set[str]]]:
    for path, subfolders, files in os.walk(folder):
        if not subfolders:
            yield (
                Path(path).relative_to(folder).as_posix(),
                set(file for file in files if not file.startswith(".")),
            )
