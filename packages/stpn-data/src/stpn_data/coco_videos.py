"""Open a json of videos by what it says: ImageNet's thirty classes, or the user's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stpn_data.annotated_videos import AnnotatedVideos
from stpn_data.annotations import DataReport, shown
from stpn_data.coco_fields import coco_field, load_json
from stpn_data.coco_vid import CocoVid
from stpn_data.image_roots import find_image_root, image_roots
from stpn_data.imagenet_vid import IMAGENET_VID_CLASSES, ImageNetVID
from stpn_data.videos import DataError
from stpn_data.youtube_vis import YouTubeVIS, is_youtube_vis


def open_coco(annotation_file: str | Path, image_root: str | Path | None = None) -> AnnotatedVideos:
    """Open a json in COCO's form, with videos as in CocoVID or without.

    A file of ImageNet VID or DET, as mmtracking writes them, has ImageNet VID's classes; of any
    other, `categories` are the classes, in the order of their ids. A file of YouTube-VIS, whose
    videos name their frames, opens as `YouTubeVIS`, with masks.

    Args:
        annotation_file: the json.
        image_root: the folder in which its file names begin, or that of ImageNet's tree; looked
            for near the file if not given.

    Raises:
        DataError: a missing file, a missing or wrong field, an id or a name that occurs twice, or
            the images are not there.
    """
    path = Path(annotation_file)
    data = load_json(path)
    if is_youtube_vis(data):
        return YouTubeVIS(path, image_root, data)
    classes = coco_classes(path, data)
    root = _image_root(path, data, None if image_root is None else Path(image_root))
    report = DataReport()
    labels = {name: label for label, name in enumerate(classes)}
    layout = CocoVid(path, data, root, labels, report)
    if classes == ImageNetVID.classes:
        return ImageNetVID(layout, report)
    return AnnotatedVideos(layout, classes, report)


def coco_classes(path: Path, data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the classes of a json.

    Args:
        path: the file, for errors.
        data: what it holds.

    Raises:
        DataError: there are no categories, a field of one is missing or wrong, or two have the
            same name.
    """
    categories = data.get("categories")
    if not isinstance(categories, list) or not categories:
        raise DataError(f"{path}: the file has no list 'categories' with the classes")
    names: dict[int, str] = {}
    for position, record in enumerate(categories):
        place = f"{path}: categories[{position}]"
        if not isinstance(record, dict):
            raise DataError(f"{place} is not an object")
        names[coco_field(record, "id", int, place)] = coco_field(record, "name", str, place)
    if is_imagenet(categories):
        return ImageNetVID.classes
    if doubled := [name for name, count in Counter(names.values()).items() if count > 1]:
        raise DataError(f"{path}: two 'categories' have the 'name' {shown(doubled[0])}")
    return tuple(names[key] for key in sorted(names))


def is_imagenet(categories: list[Mapping[str, Any]]) -> bool:
    """Tell whether categories are ImageNet VID's: by a WordNet id, or by all thirty names."""
    known = set(IMAGENET_VID_CLASSES)
    ids = (category.get("encode_name") for category in categories)
    if any(isinstance(one, str) and one in known for one in ids):
        return True
    names = {name for one in categories if isinstance(name := one.get("name"), str)}
    return set(ImageNetVID.classes) <= names


def _image_root(path: Path, data: Mapping[str, Any], given: Path | None) -> Path:
    images = data.get("images")
    records = images if isinstance(images, list) else []
    names = [
        name
        for record in records
        if isinstance(record, dict) and isinstance(name := record.get("file_name"), str)
    ]
    roots = image_roots(path, given)
    root = find_image_root(roots, names)
    if root is None and names:
        where = "near the file" if given is None else f"in {given}"
        raise DataError(f"{path}: no images {where}, such as {shown(names[0])}: name their folder")
    return roots[0] if root is None else root  # without names, the reader says what is wrong
