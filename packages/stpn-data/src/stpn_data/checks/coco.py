"""Check a CocoVID json: every entry, every reference, every image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stpn_data.annotations import AnnotatedBox, DataReport, shown
from stpn_data.checks.subset import (
    BAD_ENTRY,
    Subset,
    add_problems,
    box_problems,
    check_listed_images,
    good_records,
)
from stpn_data.coco_fields import (
    CocoImage,
    coco_box,
    coco_field,
    coco_flag,
    coco_known,
)
from stpn_data.coco_videos import is_imagenet
from stpn_data.imagenet_vid import ImageNetVID
from stpn_data.videos import DataError


def check_coco(
    path: Path,
    data: Mapping[str, Any],
    image_roots: Sequence[Path],
    report: DataReport,
    progress: bool,
) -> Subset:
    """Check a CocoVID json; return what was counted.

    Args:
        path: the file.
        data: what it holds.
        image_roots: folders to which its file names may be relative; the one with the most counts.
        report: receives the problems.
        progress: show a bar.
    """
    check = _Coco(path, data, report)
    check.index_images()
    check.check_annotations()
    check.check_images(image_roots, progress)
    return check.subset


class _Coco:
    def __init__(self, path: Path, data: Mapping[str, Any], report: DataReport) -> None:
        self._file, self._report = path, report
        self.subset = Subset(path.stem, "COCO json")
        self._videos = good_records(data.get("videos", []), "videos", path, report)
        self._categories = good_records(data.get("categories"), "categories", path, report)
        self._image_records = good_records(data.get("images"), "images", path, report)
        self._annotations = good_records(data.get("annotations", []), "annotations", path, report)
        self._has_tracks = bool(self._videos) and any(
            "instance_id" in record for record in self._annotations.values()
        )
        self._images: dict[int, CocoImage] = {}
        self._video_of: dict[int, int] = {}  # by image

    def index_images(self) -> None:
        """Read videos and images."""
        frames: dict[int, dict[int, int]] = {key: {} for key in self._videos}
        files: dict[str, int] = {}
        for key, record in self._image_records.items():
            place = f"{self._file}: image {key}"
            try:
                image = CocoImage(record, 0, place, in_video=bool(self._videos))
                if self._videos:
                    video = coco_field(record, "video_id", int, place)
                    if video not in frames:
                        raise DataError(f"{place}: no video has its 'video_id' {video}")
            except DataError as error:
                self._report.add(BAD_ENTRY, str(error))
                continue
            self._images[key] = image
            if files.setdefault(image.file_name, key) != key:
                same = f"{place}: {image.file_name} is image {files[image.file_name]} too"
                self._report.add("frame listed twice", same)
            if self._videos:
                self._video_of[key] = video
                if image.frame_id in frames[video]:
                    same = f"{place}: frame {image.frame_id} of video {video}"
                    self._report.add("frame listed twice", same)
                frames[video][image.frame_id] = key
        for key, record in self._videos.items():
            self._check_video(record, f"{self._file}: video {key}", frames[key])
        self.subset.videos = sum(map(bool, frames.values()))
        self.subset.frames = len(self._video_of)
        self.subset.still_images = len(self._images) - len(self._video_of)
        self._check_names()

    def check_annotations(self) -> None:
        """Check every object: references, class, box."""
        known = {key: key for key in self._image_records}
        names = self._category_names()
        tracks: set[tuple[int, int]] = set()
        in_frame: set[tuple[int, int]] = set()
        for key, record in self._annotations.items():
            place = f"{self._file}: annotation {key}"
            try:
                image = coco_known(record, "image_id", known, place)
                category = coco_field(record, "category_id", int, place)
                box = AnnotatedBox(
                    box_xyxy=coco_box(record, place),
                    label=0,
                    track_id=coco_field(record, "instance_id", int, place)
                    if self._has_tracks
                    else 0,
                    ignore=coco_flag(record, "ignore", place),
                )
                coco_flag(record, "iscrowd", place)
            except DataError as error:
                self._report.add(BAD_ENTRY, str(error))
                continue
            self.subset.objects += 1
            if category not in names:
                self._report.add("unknown class", f"{place}: 'category_id' {category}")
            else:
                self.subset.classes.add(names[category])
            if image not in self._images:  # which is a problem already
                continue
            if self._has_tracks:
                tracks.add((self._video_of[image], box.track_id))
                if (image, box.track_id) in in_frame:
                    twice = f"{place}: instance {box.track_id} in image {image}"
                    self._report.add("track twice in a frame", twice)
                in_frame.add((image, box.track_id))
            place = f"{place} ({self._images[image].file_name})"
            add_problems(self._report, box_problems(box, self._images[image].size, place))
        self.subset.tracks = len(tracks)
        if self._videos and is_imagenet(list(self._categories.values())):
            for name in sorted(self.subset.classes - set(ImageNetVID.classes)):
                self._report.add("unknown class", f"{self._file}: category {shown(name)}")

    def check_images(self, image_roots: Sequence[Path], progress: bool) -> None:
        """Decode every image."""
        images = [(image.file_name, image.size) for image in self._images.values()]
        bar = self.subset.name if progress else None
        check_listed_images(images, image_roots, self._report, bar)

    def _check_video(
        self, record: Mapping[str, Any], place: str, frames: Mapping[int, int]
    ) -> None:
        """Check a video with its images by frame."""
        if not frames:
            self._report.add("video without frames", place)
        elif missing := max(frames) - min(frames) + 1 - len(frames):
            gaps = f"{place}: {missing} between {min(frames)} and {max(frames)}"
            self._report.add("video with gaps in its frame numbers", gaps)
        sizes = {self._images[image].size for image in frames.values()}
        if len(sizes) > 1:
            text = ", ".join(f"{width}x{height}" for height, width in sorted(sizes))
            self._report.add("frame size changes within a video", f"{place}: {text}")
        if record.get("vid_train_frames") is None:
            return
        try:
            keys = coco_field(record, "vid_train_frames", list, place)
        except DataError as error:
            self._report.add(BAD_ENTRY, str(error))
            return
        for key in keys:
            if type(key) is not int or key not in frames:
                self._report.add("key frame outside its video", f"{place}: {shown(key)}")

    def _check_names(self) -> None:
        seen: set[str] = set()
        for key, record in self._videos.items():
            place = f"{self._file}: video {key}"
            try:
                name = coco_field(record, "name", str, place)
            except DataError as error:
                self._report.add(BAD_ENTRY, str(error))
                continue
            if name in seen:
                self._report.add("video listed twice", f"{place}: {shown(name)}")
            seen.add(name)

    def _category_names(self) -> dict[int, str]:
        names = {}
        for key, record in self._categories.items():
            try:
                names[key] = coco_field(record, "name", str, f"{self._file}: category {key}")
            except DataError as error:
                self._report.add(BAD_ENTRY, str(error))
        return names
