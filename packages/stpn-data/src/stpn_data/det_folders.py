"""Read the folder tree of ImageNet DET: still images, each a video of one frame."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

from stpn_data.annotations import AnnotatedBox, DataReport
from stpn_data.images import read_image
from stpn_data.vid_folders import find_tree, list_lines
from stpn_data.vid_xml import parse_xml, xml_box, xml_size
from stpn_data.videos import DataError, Video

MAX_PER_CLASS = 2000
LIST = "DET_train_30classes.txt"
_NAME = re.compile(rb"<name>\s*([^<\s]+)\s*</name>")


class DetFolders:
    """Index the images of DET that ImageNet VID is trained together with.

    They are those of `Lists/DET_train_30classes.txt` (FGFA's list, 53,639 images). Without it,
    every class takes 2,000 of its images, at equal distances in the order of their names, or all
    where it has fewer; an image that several classes take is there once. That is FGFA's rule, at
    most 2,000 a class, but not its choice. Which classes an image has is read from all XML files
    of the split. (`ImageSets/DET` numbers its 200 classes without naming them.)

    Opening reads the XML file of every image (its size). An object's number in its image is its
    track.

    Args:
        root: the folder `ILSVRC` (or `ILSVRC2015`), or the one that contains it.
        split: `train` or `val`.
        labels: 0-based label of every class by WordNet id.
        report: receives what is left out.

    Raises:
        DataError: a missing folder, or a line or a field that cannot be read.
    """

    def __init__(
        self, root: str | Path, split: str, labels: Mapping[str, int], report: DataReport
    ) -> None:
        """Read the list, or choose."""
        self.root = find_tree(Path(root), "DET")
        self._split, self._labels, self._report = split, labels, report
        path = self.root / "Lists" / LIST
        is_listed = split == "train" and path.is_file()
        names = self._listed(path) if is_listed else self._choose()
        self.videos = [Video(name, 1, *self._size(name), (0,)) for name in names]
        if not self.videos:
            raise DataError(f"{self.root}: no images of DET of split {split!r}")

    def image_path(self, video: int, index: int) -> Path:
        """Name the file of an image."""
        return self._image_path(self.videos[video].name)

    def image_size(self, video: int, index: int) -> tuple[int, int]:
        """Return the (height, width) that the annotations give an image."""
        return self.videos[video].height, self.videos[video].width

    def boxes(self, video: int, index: int) -> list[AnnotatedBox]:
        """Read the objects of an image; one without objects may have no file.

        Raises:
            DataError: a field is missing or wrong.
        """
        path, elements = self.elements(self.videos[video].name)
        return [
            xml_box(element, path, self._labels, number) for number, element in enumerate(elements)
        ]

    def elements(self, name: str) -> tuple[Path, list[ElementTree.Element]]:
        """Return the XML file of an image, by its name, and its objects as they stand there.

        Raises:
            DataError: the file is not whole.
        """
        path = self._xml_path(name)
        if not os.path.isfile(path):  # which, unlike `Path.is_file`, has no error of its own
            self._report.add("image without an XML file, taken as free of objects", str(path))
            return path, []
        return path, list(parse_xml(path).iter("object"))

    def annotated(self) -> Iterator[str]:
        """Yield the names of all images of the split that have an XML file, in order.

        Raises:
            DataError: a missing folder.
        """
        above = self.root / "Annotations" / "DET"
        if not (above / self._split).is_dir():
            raise DataError(f"{above / self._split}: no such folder")
        paths = (
            os.path.join(folder, file)
            for folder, _, files in os.walk(above / self._split)
            for file in files
            if file.endswith(".xml")
        )
        yield from (Path(p).relative_to(above).with_suffix("").as_posix() for p in sorted(paths))

    def _listed(self, path: Path) -> list[str]:
        """Read lines `train/<folder>/<image> 1`."""
        names: dict[str, None] = {}
        for place, (name, _) in list_lines(path, 2):
            if name in names:
                self._report.add("image listed twice", place)
            names[name] = None
        return list(names)

    def _choose(self) -> list[str]:
        known = {wordnet_id.encode(): label for wordnet_id, label in self._labels.items()}
        by_label: dict[int, list[str]] = {label: [] for label in self._labels.values()}
        for name in self.annotated():
            # A whole parse of half a million files would take minutes; that of the chosen ones
            # follows.
            content = self._xml_path(name).read_bytes()
            for label in {known[found] for found in _NAME.findall(content) if found in known}:
                by_label[label].append(name)
        return sorted({name for names in by_label.values() for name in _spread(names)})

    def _size(self, name: str) -> tuple[int, int]:
        path = self._xml_path(name)
        if os.path.isfile(path):
            return xml_size(parse_xml(path), path)
        height, width, _ = read_image(self._image_path(name)).shape
        return height, width

    def _image_path(self, name: str) -> Path:
        return self.root / "Data" / "DET" / f"{name}.JPEG"

    def _xml_path(self, name: str) -> Path:
        return self.root / "Annotations" / "DET" / f"{name}.xml"


def _spread(names: list[str]) -> list[str]:
    """Return at most `MAX_PER_CLASS` names, at equal distances."""
    number = min(len(names), MAX_PER_CLASS)
    return [names[i * len(names) // number] for i in range(number)]
