"""What a check counts, and what it looks at in any format: one image, one box."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from stpn_data.annotations import AnnotatedBox, DataReport, unusable_reason
from stpn_data.images import read_image
from stpn_data.videos import DataError

Problem = tuple[str, str]  # its kind; the file, and what is wrong there


@dataclass
class Subset:
    """Count one part of a data set.

    Attributes:
        name: such as `VID/train`, or the name of a json.
        layout: `ImageNet VID folders`, `ImageNet DET folders`, `COCO json` or `objects.csv`.
        videos: videos of frames.
        still_images: images without a video.
        frames: frames of the videos.
        objects: annotated boxes.
        tracks: different objects of the videos.
        classes: names of the classes that occur: WordNet ids in folders.
    """

    name: str
    layout: str
    videos: int = 0
    still_images: int = 0
    frames: int = 0
    objects: int = 0
    tracks: int = 0
    classes: set[str] = field(default_factory=set)


def add_problems(report: DataReport, problems: Iterable[Problem]) -> None:
    """Add problems to a report."""
    for kind, place in problems:
        report.add(kind, place)


def image_problems(path: Path, size: tuple[int, int] | None) -> list[Problem]:
    """Decode an image; say what is wrong with it, at most one thing.

    Args:
        path: the image.
        size: the annotated (height, width); None if unknown.
    """
    if not os.path.isfile(path):  # which, unlike `Path.is_file`, has no error of its own
        return [("image missing", str(path))]
    try:
        height, width, _ = read_image(path).shape
    except DataError as error:
        return [("image that cannot be read", str(error))]
    if size is not None and size != (height, width):
        sizes = f"{path}: the image is {width}x{height}, annotated as {size[1]}x{size[0]}"
        return [("image of another size than annotated", sizes)]
    return []


def box_problems(box: AnnotatedBox, size: tuple[int, int], place: str) -> list[Problem]:
    """Say what is wrong with a box in an image of (height, width), at most one thing.

    A box may end at the border or one pixel before it: both ways of counting occur.
    """
    if box.ignore:
        return []
    left, top, right, bottom = box.box_xyxy
    kind = unusable_reason(box, size)
    if kind is None and (min(left, top) < 0 or right > size[1] or bottom > size[0]):
        kind = "box over the border of the frame"
    if kind is None:
        return []
    corners = ", ".join(f"{side:g}" for side in box.box_xyxy)
    return [(kind, f"{place}: ({corners}) in {size[1]}x{size[0]}")]
