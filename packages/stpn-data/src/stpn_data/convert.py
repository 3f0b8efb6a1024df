"""Write the folders of ImageNet VID or DET as one CocoVID json, as mmtracking's converters do."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tqdm import tqdm

from stpn_data.annotations import AnnotatedBox, DataReport, shown
from stpn_data.det_folders import DetFolders
from stpn_data.imagenet_vid import IMAGENET_VID_CLASSES, LABELS
from stpn_data.vid_folders import VidFolders
from stpn_data.vid_xml import parse_xml, xml_box, xml_flag, xml_size

# All classes of DET but the thirty, as mmtracking spells it.
OTHER_CLASS = "other_categeries"


def vid_folders_to_coco(
    root: str | Path, split: str, report: DataReport, progress: bool = False
) -> dict[str, Any]:
    """Return a split of ImageNet VID's folders as CocoVID; file names are below `Data/VID`.

    Boxes become x, y, xmax - xmin, ymax - ymin, neither clipped nor shifted: a reader leaves out
    what it cannot use. Objects of other classes than the thirty, and boxes that are not finite,
    which no json holds, are counted in `report`.

    Args:
        root: the folder `ILSVRC` or `ILSVRC2015`, or the one that contains it.
        split: `train`, `val` or `test`, which has no 'annotations'.
        report: receives what is left out.
        progress: show a bar.

    Raises:
        DataError: a missing folder, or a line or a field that cannot be read.
    """
    folders = VidFolders(root, split, LABELS, report)
    videos: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    instances: dict[tuple[int, int], int] = {}  # by video and track
    bar = tqdm(folders.videos, desc=split, unit="video", disable=not progress)
    for number, video in enumerate(bar):
        # As in mmtracking's files; without any, readers take all frames.
        key_frames = video.key_frames if split == "train" else ()
        identity = {"id": number + 1, "name": video.name}
        videos.append(identity | {"vid_train_frames": list(key_frames)})
        for index in range(video.num_frames):
            path = folders.image_path(number, index)
            images.append(
                {
                    "file_name": path.relative_to(folders.root / "Data" / "VID").as_posix(),
                    "height": video.height,
                    "width": video.width,
                    "id": len(images) + 1,
                    "frame_id": index,
                    "video_id": number + 1,
                    "is_vid_train_frame": index in key_frames,
                }
            )
            if split == "test":
                continue
            xml_path, elements = folders.elements(number, index)
            for position, element in enumerate(elements):
                place = f"{xml_path}: object {position}"
                record = _annotation(element, xml_path, place, report)
                if record is None:
                    continue
                track = (number, record.pop("trackid"))
                ids = {"id": len(annotations) + 1, "video_id": number + 1, "image_id": len(images)}
                instance = instances.setdefault(track, len(instances) + 1)
                annotations.append(ids | {"instance_id": instance} | record)
    data: dict[str, Any] = {"categories": _categories(), "videos": videos, "images": images}
    return data if split == "test" else data | {"annotations": annotations}


def det_folders_to_coco(
    root: str | Path, split: str, report: DataReport, progress: bool = False
) -> dict[str, Any]:
    """Return ImageNet DET's folders as CocoVID without videos; file names are below `Data/DET`.

    First come the images that VID is trained together with (`DetFolders`), marked by
    `is_vid_train_frame`, then all others that have an XML file. Objects of other classes than the
    thirty are of a 31st. Boxes are as in `vid_folders_to_coco`.

    Args:
        root: the folder `ILSVRC` or `ILSVRC2015`, or the one that contains it.
        split: `train` or `val`.
        report: receives what is left out.
        progress: show a bar.

    Raises:
        DataError: a missing folder, or a line or a field that cannot be read.
    """
    folders = DetFolders(root, split, LABELS, report)
    sizes = {video.name: (video.height, video.width) for video in folders.videos}
    names = dict.fromkeys([*sizes, *folders.annotated()])
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name in tqdm(names, desc=f"DET {split}", unit="image", disable=not progress):
        path, elements = folders.elements(name)
        height, width = sizes.get(name) or xml_size(parse_xml(path), path)
        images.append(
            {
                "file_name": f"{name}.JPEG",
                "height": height,
                "width": width,
                "id": len(images) + 1,
                "is_vid_train_frame": name in sizes,
            }
        )
        for position, element in enumerate(elements):
            place = f"{path}: object {position}"
            record = _box_fields(xml_box(element, path, LABELS, position), place, report)
            if record is not None:
                ids = {"id": len(annotations) + 1, "image_id": len(images)}
                annotations.append(ids | record)
    other = {"id": len(LABELS) + 1, "name": OTHER_CLASS, "encode_name": None}
    return {"categories": [*_categories(), other], "images": images, "annotations": annotations}


def _annotation(
    element: ElementTree.Element, path: Path, place: str, report: DataReport
) -> dict[str, Any] | None:
    """Return the fields of an object but for its ids, and its 'trackid'; None: left out."""
    box = xml_box(element, path, LABELS)
    if box.label is None:
        name = shown(element.findtext("name"))
        report.add("object of a class outside the list", f"{place}: {name}")
        return None
    fields = _box_fields(box, place, report)
    if fields is None:
        return None
    flags = {name: xml_flag(element, name, path) for name in ("occluded", "generated")}
    return {"trackid": box.track_id} | fields | flags


def _box_fields(box: AnnotatedBox, place: str, report: DataReport) -> dict[str, Any] | None:
    """Return class and place of an object; None: left out."""
    if not all(map(math.isfinite, box.box_xyxy)):
        report.add("box null or not finite", place)
        return None
    left, top, right, bottom = (int(side) if side.is_integer() else side for side in box.box_xyxy)
    return {
        "category_id": len(LABELS) + 1 if box.label is None else box.label + 1,
        "bbox": [left, top, right - left, bottom - top],
        "area": (right - left) * (bottom - top),
        "iscrowd": False,
    }


def _categories() -> list[dict[str, Any]]:
    return [
        {"id": number, "name": name, "encode_name": wordnet_id}
        for number, (wordnet_id, name) in enumerate(IMAGENET_VID_CLASSES.items(), start=1)
    ]
