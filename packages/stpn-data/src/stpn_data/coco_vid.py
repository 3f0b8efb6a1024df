"""Read ImageNet VID (or DET) as one CocoVID json file, as mmtracking's converters write it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stpn_data.annotations import AnnotatedBox, DataReport, shown
from stpn_data.coco_fields import (
    CocoImage,
    coco_box,
    coco_field,
    coco_flag,
    coco_known,
    coco_records,
)
from stpn_data.videos import DataError, Video


class CocoVid:
    """Index a CocoVID file; after opening, only flat arrays of its annotations are kept.

    Boxes are x, y, x + w, y + h. Track ids are numbered from 0 within each video, in the order of
    `instance_id`; where the file has none, every object is a track of its own. In a file without
    videos (as of DET), every image becomes a video of one frame; those that are marked not to be
    for training (`is_vid_train_frame`) are left out where others are marked to be.

    Args:
        annotation_file: the json file, for errors.
        data: what it holds.
        image_root: folder to which its file names are relative.
        labels: 0-based label of every class by name.
        report: receives what is left out.

    Raises:
        DataError: a missing or wrong field, an id or a name that occurs twice, or frames of one
            video that differ in size.
    """

    def __init__(
        self,
        annotation_file: Path,
        data: Mapping[str, Any],
        image_root: str | Path,
        labels: Mapping[str, int],
        report: DataReport,
    ) -> None:
        """Index what the file holds."""
        self._file = annotation_file
        self._image_root = Path(image_root)
        self._report = report
        self.videos: list[Video] = []
        self._images: list[list[CocoImage]] = []  # frames in order, per video
        self._index_videos(data)
        if not self.videos:
            raise DataError(f"{self._file}: no videos with frames")
        self._has_annotations = "annotations" in data
        self._index_annotations(data, labels)

    def image_path(self, video: int, index: int) -> Path:
        """Name the file of a frame."""
        return self._image_root / self._images[video][index].file_name

    def image_size(self, video: int, index: int) -> tuple[int, int]:
        """Return the (height, width) that the annotations give a frame."""
        return self._images[video][index].size

    def boxes(self, video: int, index: int) -> list[AnnotatedBox]:
        """Return the objects of a frame.

        Raises:
            DataError: the file has no annotations at all, as those of test sets.
        """
        if not self._has_annotations:
            raise DataError(f"{self._file}: the file has no 'annotations'")
        row = self._images[video][index].row
        rows = range(self._first[row], self._first[row + 1])
        return [
            AnnotatedBox(
                box_xyxy=tuple(self._boxes[i].tolist()),
                label=int(self._labels[i]) if self._labels[i] >= 0 else None,
                track_id=int(self._track_ids[i]),
                is_crowd=bool(self._flags[i, 0]),
                ignore=bool(self._flags[i, 1]),
            )
            for i in rows
        ]

    def _index_videos(self, data: Mapping[str, Any]) -> None:
        records = {
            record["id"]: record for record in coco_records(data, "videos", self._file, default=[])
        }
        names = {key: self._video_name(record) for key, record in records.items()}
        frames: dict[int, list[CocoImage]] = {key: [] for key in names}
        self._rows: dict[int, int] = {}  # row of every image by its id
        images = coco_records(data, "images", self._file)
        chosen = not records and any(image.get("is_vid_train_frame") for image in images)
        for row, record in enumerate(images):
            place = self._place("image", record)
            image = CocoImage(record, row, place, in_video=bool(records))
            self._rows[record["id"]] = row
            if chosen and record.get("is_vid_train_frame") in (0, False):
                continue
            if not records:
                names[row] = str(Path(image.file_name).with_suffix(""))
                frames[row] = [image]
            elif (key := coco_field(record, "video_id", int, place)) in frames:
                frames[key].append(image)
            else:
                raise DataError(f"{place}: no video has its 'video_id' {key}")
        self._video_of_row = np.full(len(self._rows), -1, np.int64)
        if doubled := [name for name, count in Counter(names.values()).items() if count > 1]:
            raise DataError(f"{self._file}: the name {shown(doubled[0])} occurs twice")
        for key, name in names.items():
            if frames[key]:
                self._add_video(name, frames[key], records.get(key, {}))
            else:
                self._report.add("video without frames", name)

    def _add_video(self, name: str, images: list[CocoImage], record: Mapping[str, Any]) -> None:
        images = sorted(images, key=lambda image: image.frame_id)
        position = {image.frame_id: index for index, image in enumerate(images)}
        if len(position) < len(images):
            raise DataError(f"{self._file}: video {shown(name)} has a 'frame_id' twice")
        if len(images) != images[-1].frame_id - images[0].frame_id + 1:
            self._report.add("video with gaps in its frame numbers", name)
        key_ids: list[int] = [image.frame_id for image in images if image.is_key_frame]
        if record.get("vid_train_frames"):
            key_ids = coco_field(record, "vid_train_frames", list, self._place("video", record))
        if unknown := [key for key in key_ids if type(key) is not int or key not in position]:
            raise DataError(
                f"{self._file}: video {shown(name)} has 'vid_train_frames' {shown(unknown)}, "
                "but no such frames"
            )
        key_frames = tuple(sorted({position[key] for key in key_ids})) or tuple(range(len(images)))
        for image in images:
            self._video_of_row[image.row] = len(self.videos)
        height, width = self._one_size(name, images)
        self.videos.append(Video(name, len(images), height, width, key_frames))
        self._images.append(images)

    def _one_size(self, name: str, images: list[CocoImage]) -> tuple[int, int]:
        """Return the size of all frames of a video, which a stream of them needs."""
        size = height, width = images[0].size
        for image in images:
            if image.size != size:
                raise DataError(
                    f"{self._file}: video {shown(name)}: the image {shown(image.file_name)} is "
                    f"{image.size[1]}x{image.size[0]}, the first of the video {width}x{height}"
                )
        return size

    def _index_annotations(self, data: Mapping[str, Any], class_labels: Mapping[str, int]) -> None:
        classes: dict[int, int] = {}
        for record in coco_records(data, "categories", self._file):
            name = coco_field(record, "name", str, self._place("category", record))
            classes[record["id"]] = class_labels.get(name, -1)
        records = coco_records(data, "annotations", self._file, default=[])
        rows = np.zeros(len(records), np.int64)
        instances = np.zeros(len(records), np.int64)
        labels = np.zeros(len(records), np.int64)
        boxes = np.zeros((len(records), 4))
        flags = np.zeros((len(records), 2), np.bool_)
        has_tracks = bool(data.get("videos")) and any("instance_id" in one for one in records)
        for i, record in enumerate(records):
            place = self._place("annotation", record)
            rows[i] = coco_known(record, "image_id", self._rows, place)
            labels[i] = coco_known(record, "category_id", classes, place)
            boxes[i] = coco_box(record, place)
            instances[i] = coco_field(record, "instance_id", int, place) if has_tracks else i
            flags[i] = coco_flag(record, "iscrowd", place), coco_flag(record, "ignore", place)
        order = np.argsort(rows, kind="stable")
        rows = rows[order]
        self._first = np.searchsorted(rows, np.arange(len(self._rows) + 1))
        self._boxes, self._labels, self._flags = boxes[order], labels[order], flags[order]
        self._track_ids = _number_within(self._video_of_row[rows], instances[order])

    def _place(self, kind: str, record: Mapping[str, Any]) -> str:
        return f"{self._file}: {kind} {record['id']}"

    def _video_name(self, record: Mapping[str, Any]) -> str:
        return str(coco_field(record, "name", str, self._place("video", record)))


def _number_within(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Number the distinct values of every group from 0, ascending."""
    pairs, inverse = np.unique(np.stack([groups, values], 1), axis=0, return_inverse=True)
    starts = np.searchsorted(pairs[:, 0], pairs[:, 0])
    return (np.arange(len(pairs)) - starts)[inverse.reshape(-1)]
