"""What a check counts, and what it looks at in any format: one image, one box."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stpn_data.annotations import AnnotatedBox, DataReport, unusable_reason
from stpn_data.coco_fields import coco_id
from stpn_data.image_roots import find_image_root
from stpn_data.images import read_image
from stpn_data.videos import DataError

Problem = tuple[str, str]  # its kind; the file, and what is wrong there

BAD_ENTRY = "json entry that cannot be read"
_BATCH = 256  # images given to the threads at once


@dataclass
class Subset:
    """Count one part of a data set.

    Attributes:
        name: such as `VID/train`, or the name of a json.
        layout: `ImageNet VID folders`, `ImageNet DET folders`, `COCO json`, `YouTube-VIS json`,
            `id masks` or `objects.csv`.
        videos: videos of frames.
        still_images: images without a video.
        frames: frames of the videos.
        objects: annotated boxes or masks, counted in every frame.
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


def good_records(
    records: object, kind: str, path: Path, report: DataReport
) -> dict[int, dict[str, Any]]:
    """Return the good entries of a list of a json by id; the others are problems.

    Args:
        records: the list, or what stands in its place.
        kind: its name in the file.
        path: the file.
        report: receives the problems.
    """
    if not isinstance(records, list):
        report.add(BAD_ENTRY, f"{path}: the file has no list {kind!r}")
        return {}
    by_id: dict[int, dict[str, Any]] = {}
    for position, record in enumerate(records):
        try:
            by_id[coco_id(record, by_id, f"{path}: {kind}[{position}]")] = record
        except DataError as error:
            report.add(BAD_ENTRY, str(error))
    return by_id


def check_listed_images(
    images: Sequence[tuple[str, tuple[int, int]]],
    roots: Sequence[Path],
    report: DataReport,
    bar: str | None,
) -> None:
    """Decode every image that a json lists.

    Args:
        images: name and annotated (height, width) of each.
        roots: folders to which the names may be relative; the one with the most counts.
        report: receives the problems.
        bar: what to write beside a bar; None for no bar.
    """
    root = find_image_root(roots, [name for name, _ in images]) or roots[0]
    remaining = iter(tqdm(images, desc=bar, unit="image", disable=bar is None))
    with ThreadPoolExecutor() as pool:
        while batch := list(islice(remaining, _BATCH)):
            for problems in pool.map(lambda one: image_problems(root / one[0], one[1]), batch):
                add_problems(report, problems)


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
