"""Write a CocoVID json of ImageNet VID or DET as folders: an XML file per image, and the lists."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from tqdm import tqdm

from stpn_data.annotations import DataReport, shown
from stpn_data.coco_fields import coco_box, coco_flag, load_json
from stpn_data.coco_vid import CocoVid
from stpn_data.coco_videos import is_imagenet
from stpn_data.det_folders import LIST as DET_LIST
from stpn_data.imagenet_vid import IMAGENET_VID_CLASSES, ImageNetVID
from stpn_data.vid_folders import is_below
from stpn_data.videos import DataError, Video

_SPLITS = ("train", "val", "test")
_FLAGS = ("occluded", "generated")
_WORDNET_IDS = {name: wordnet_id for wordnet_id, name in IMAGENET_VID_CLASSES.items()}


def coco_to_folders(
    annotation_file: str | Path, root: str | Path, report: DataReport, progress: bool = False
) -> int:
    """Write the annotations of a json as ImageNet's folders; return the number of XML files.

    A json of videos becomes `Annotations/VID` and, by the split with which its names begin,
    `Lists/VID_train_15frames.txt`, or `ImageSets/VID/<split>.txt` and `Lists/VID_val_videos.txt`;
    one of still images becomes `Annotations/DET` and, where some are marked for training,
    `Lists/DET_train_30classes.txt`. Images are not copied: `root` is the folder with `Data`.

    What XML files cannot hold is counted in `report`: crowds, objects to be ignored, boxes that
    are null, key frames outside the training split. The 31st class of DET keeps its name.

    Args:
        annotation_file: the json, of ImageNet's classes.
        root: the folder `ILSVRC` to write into.
        report: receives what is left out.
        progress: show a bar.

    Raises:
        DataError: the json cannot be read (as by `CocoVid`), its classes are not ImageNet's, a
            name is none of the tree, or a part of the tree is there already.
    """
    path, root = Path(annotation_file), Path(root)
    data = load_json(path)
    labels = {name: label for label, name in enumerate(ImageNetVID.classes)}
    layout = CocoVid(path, data, root, labels, DataReport())  # which checks every field
    if not is_imagenet(data["categories"]):
        raise DataError(f"{path}: its 'categories' are not ImageNet's, which its folders hold")
    images = data["images"]
    for record in data.get("annotations", []):  # before anything is written
        for name in _FLAGS:
            coco_flag(record, name, f"{path}: annotation {record['id']}")
    splits = {_checked_split(one["file_name"], f"{path}: image {one['id']}") for one in images}
    is_video = bool(data.get("videos"))
    lists = _video_lists(path, root, layout, report) if is_video else _still_list(images)
    annotations = root / "Annotations" / ("VID" if is_video else "DET")
    for there in (*(annotations / split for split in sorted(splits)), *(root / p for p in lists)):
        if there.exists():
            raise DataError(f"{there} is there already, and is not overwritten")
    trees = _trees(path, data, report) if "annotations" in data else iter(())
    number = 0
    for image, tree in tqdm(trees, total=len(images), unit="image", disable=not progress):
        file = annotations / Path(image["file_name"]).with_suffix(".xml")
        file.parent.mkdir(parents=True, exist_ok=True)
        ElementTree.ElementTree(tree).write(file, encoding="utf-8")
        number += 1
    for name, lines in lists.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return number


def _trees(
    path: Path, data: Mapping[str, Any], report: DataReport
) -> Iterator[tuple[Mapping[str, Any], Element]]:
    """Yield every image with the XML of its objects."""
    is_video = bool(data.get("videos"))
    names = {one["id"]: _xml_name(one) for one in data["categories"]}
    by_image: dict[int, list[Mapping[str, Any]]] = {image["id"]: [] for image in data["images"]}
    for record in data.get("annotations", []):
        by_image[record["image_id"]].append(record)
    for image in data["images"]:
        file = PurePosixPath(image["file_name"])
        tree = Element("annotation")
        _texts(tree, folder=file.parent.name, filename=file.stem)
        _texts(SubElement(tree, "source"), database="ILSVRC_2015")
        _texts(SubElement(tree, "size"), width=image["width"], height=image["height"])
        for record in by_image[image["id"]]:
            place = f"{path}: annotation {record['id']}"
            if (box := _box(record, place, report)) is None:
                continue
            element = SubElement(tree, "object")
            if is_video:
                _texts(element, trackid=record.get("instance_id", record["id"]))
            _texts(element, name=names[record["category_id"]])
            left, top, right, bottom = box
            _texts(SubElement(element, "bndbox"), xmax=right, xmin=left, ymax=bottom, ymin=top)
            if is_video:
                _texts(element, **{name: int(coco_flag(record, name, place)) for name in _FLAGS})
        ElementTree.indent(tree, "\t")
        yield image, tree


def _xml_name(category: Mapping[str, Any]) -> str:
    wordnet_id = category.get("encode_name")
    if isinstance(wordnet_id, str) and wordnet_id:
        return wordnet_id
    name = str(category["name"])
    return _WORDNET_IDS.get(name, name)


def _box(
    record: Mapping[str, Any], place: str, report: DataReport
) -> tuple[float, float, float, float] | None:
    """Return the sides of an object; None: left out."""
    box = coco_box(record, place)
    reasons = {
        "crowd, which XML files cannot hold": coco_flag(record, "iscrowd", place),
        "object marked to be ignored": coco_flag(record, "ignore", place),
        "box null or not finite": not all(map(math.isfinite, box)),
    }
    for reason, holds in reasons.items():
        if holds:
            report.add(reason, place)
            return None
    return box


def _texts(parent: Element, **values: str | float) -> None:
    """Add a child with a text for each value; whole numbers are written as such."""
    for name, value in values.items():
        whole = isinstance(value, float) and value.is_integer()
        SubElement(parent, name).text = str(int(value) if whole else value)


def _still_list(images: list[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the lines of the list of still images, by its name below the root."""
    lines = [
        f"{PurePosixPath(image['file_name']).with_suffix('')} 1"
        for image in images
        if image.get("is_vid_train_frame")
    ]
    return {f"Lists/{DET_LIST}": lines} if lines else {}


@dataclass
class _Lists:
    """The lines of the lists of a split."""

    key_frames: list[str] = field(default_factory=list)
    frames: list[str] = field(default_factory=list)
    videos: list[str] = field(default_factory=list)
    with_gaps: list[str] = field(default_factory=list)
    with_chosen_frames: list[str] = field(default_factory=list)

    def add(self, video: Video, numbers: list[int]) -> None:
        """Add a video whose files have these numbers."""
        name, length = video.name, len(numbers)
        self.videos.append(f"{name} {len(self.frames) + 1} 0 {length}")
        self.key_frames += [f"{name} 1 {key + 1} {length}" for key in video.key_frames]
        for number in numbers:
            frame = f"{name.partition('/')[2]}/{number:06d}"
            self.frames.append(f"{frame} {len(self.frames) + 1}")
        if numbers != list(range(length)):
            self.with_gaps.append(name)
        if len(video.key_frames) < length:
            self.with_chosen_frames.append(name)


def _video_lists(
    path: Path, root: Path, layout: CocoVid, report: DataReport
) -> dict[str, list[str]]:
    """Return the lines of the lists of videos, by their names below the root."""
    by_split: dict[str, _Lists] = {}
    for number, video in enumerate(layout.videos):
        place = f"{path}: video {shown(video.name)}"
        files = [layout.image_path(number, index) for index in range(video.num_frames)]
        if any(file.parent != root / video.name for file in files):
            raise DataError(f"{place}: its frames are not all in the folder of its name")
        lists = by_split.setdefault(video.name.partition("/")[0], _Lists())
        lists.add(video, _numbers(files, place))
    named: dict[str, list[str]] = {}
    for split, lists in by_split.items():
        if split == "train" and lists.with_gaps and lists.with_chosen_frames:
            raise DataError(
                f"{path}: video {shown(lists.with_gaps[0])} has gaps in its frame numbers, which "
                "no list with key frames can hold"
            )
        if split == "train" and not lists.with_gaps:
            named["Lists/VID_train_15frames.txt"] = lists.key_frames
            continue
        for name in lists.with_chosen_frames:
            report.add("key frames outside the training split, which no list can hold", name)
        named[f"ImageSets/VID/{split}.txt"] = lists.frames
        if split == "val" and not lists.with_gaps:
            named["Lists/VID_val_videos.txt"] = lists.videos
    return named


def _numbers(files: list[Path], place: str) -> list[int]:
    numbers = [int(file.stem) if _is_frame_file(file) else -1 for file in files]
    if -1 in numbers or numbers != sorted(set(numbers)):
        raise DataError(f"{place}: its frames are not named by ascending six digits and .JPEG")
    return numbers


def _is_frame_file(file: Path) -> bool:
    stem = file.stem
    return len(stem) == 6 and stem.isascii() and stem.isdecimal() and file.suffix == ".JPEG"


def _checked_split(file_name: str, place: str) -> str:
    """Return the split with which the name of an image begins."""
    split, _, rest = file_name.partition("/")
    is_plain = is_below(file_name) and not any(map(str.isspace, file_name))
    if split not in _SPLITS or not rest.endswith(".JPEG") or not is_plain:
        raise DataError(
            f"{place}: 'file_name' {shown(file_name)} is none of ImageNet's tree, "
            "<train, val or test>/<folder>/<name>.JPEG"
        )
    return split
