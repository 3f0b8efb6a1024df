"""Write ImageNet VID's folders as one CocoVID json, as mmtracking's converter does."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tqdm import tqdm

from stpn_data.annotations import DataReport, shown
from stpn_data.imagenet_vid import IMAGENET_VID_CLASSES
from stpn_data.vid_folders import VidFolders
from stpn_data.vid_xml import xml_box, xml_flag

_LABELS = {wordnet_id: label for label, wordnet_id in enumerate(IMAGENET_VID_CLASSES)}


def vid_folders_to_coco(
    root: str | Path, split: str, report: DataReport, progress: bool = False
) -> dict[str, Any]:
    """Return a split of ImageNet VID's folders as CocoVID; file names are below `Data/VID`.

    Boxes become x, y, xmax - xmin, ymax - ymin, neither clipped nor sifted: a reader leaves out
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
    folders = VidFolders(root, split, _LABELS, report)
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


def _annotation(
    element: ElementTree.Element, path: Path, place: str, report: DataReport
) -> dict[str, Any] | None:
    """Return the fields of an object but for its ids, and its 'trackid'; None: left out."""
    box = xml_box(element, path, _LABELS)
    if box.label is None:
        name = shown(element.findtext("name"))
        report.add("object of a class outside the list", f"{place}: {name}")
        return None
    if not all(map(math.isfinite, box.box_xyxy)):
        report.add("box null or not finite", place)
        return None
    left, top, right, bottom = (int(side) if side.is_integer() else side for side in box.box_xyxy)
    return {
        "trackid": box.track_id,
        "category_id": box.label + 1,
        "bbox": [left, top, right - left, bottom - top],
        "area": (right - left) * (bottom - top),
        "iscrowd": False,
        "occluded": xml_flag(element, "occluded", path),
        "generated": xml_flag(element, "generated", path),
    }


def _categories() -> list[dict[str, Any]]:
    return [
        {"id": number, "name": name, "encode_name": wordnet_id}
        for number, (wordnet_id, name) in enumerate(IMAGENET_VID_CLASSES.items(), start=1)
    ]
