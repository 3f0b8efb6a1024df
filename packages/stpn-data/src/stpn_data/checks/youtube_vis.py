"""Check a YouTube-VIS json: every entry, every mask, every frame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stpn_data.annotations import DataReport, shown
from stpn_data.checks.subset import BAD_ENTRY, Subset, check_listed_images, good_records
from stpn_data.coco_fields import coco_field
from stpn_data.rle import decode_mask
from stpn_data.videos import DataError
from stpn_data.youtube_vis import frame_roots
from stpn_data.youtube_vis_fields import VisTrack, VisVideo


def check_youtube_vis(
    path: Path,
    data: Mapping[str, Any],
    image_root: Path | None,
    report: DataReport,
    progress: bool,
) -> Subset:
    """Check a YouTube-VIS json; return what was counted.

    Args:
        path: the file.
        data: what it holds.
        image_root: where its file names begin; looked for if not given.
        report: receives the problems.
        progress: show a bar.
    """
    check = _YouTubeVIS(path, data, report)
    check.read_videos()
    check.check_tracks()
    check.check_frames(frame_roots(path, image_root), progress)
    return check.subset


class _YouTubeVIS:
    def __init__(self, path: Path, data: Mapping[str, Any], report: DataReport) -> None:
        self._path, self._data, self._report = path, data, report
        self.subset = Subset(f"{path.absolute().parent.name}/{path.stem}", "YouTube-VIS json")
        self._videos: dict[int, VisVideo] = {}

    def read_videos(self) -> None:
        """Read every video."""
        seen: dict[str, int] = {}
        for key, record in good_records(
            self._data.get("videos"), "videos", self._path, self._report
        ).items():
            place = f"{self._path}: video {key}"
            try:
                video = VisVideo(record, place)
            except DataError as error:
                self._report.add(BAD_ENTRY, str(error))
                continue
            if seen.setdefault(video.name, key) != key:
                same = (
                    f"{place}: the frames of {shown(video.name)} are video {seen[video.name]} too"
                )
                self._report.add("video listed twice", same)
            self._videos[key] = video
        self.subset.videos = len(self._videos)
        self.subset.frames = sum(len(video.file_names) for video in self._videos.values())

    def check_tracks(self) -> None:
        """Check every object: references, lists over the frames, masks."""
        names = self._category_names()
        lengths = {key: len(video.file_names) for key, video in self._videos.items()}
        labels = {key: key for key in names}
        if self._data.get("annotations") is None:  # of a test set
            return
        for key, record in good_records(
            self._data.get("annotations"), "annotations", self._path, self._report
        ).items():
            place = f"{self._path}: annotation {key}"
            try:
                track = VisTrack(record, place, lengths, labels)
            except DataError as error:
                self._report.add(BAD_ENTRY, str(error))
                continue
            self.subset.tracks += 1
            self.subset.classes.add(names[track.label])
            seen = sum(self._check_mask(track, index) for index in range(len(track.masks)))
            if not seen:
                self._report.add("object that is never seen", place)
            self.subset.objects += seen

    def check_frames(self, roots: list[Path], progress: bool) -> None:
        """Decode every frame."""
        frames = [
            (name, video.size) for video in self._videos.values() for name in video.file_names
        ]
        check_listed_images(frames, roots, self._report, self.subset.name if progress else None)

    def _check_mask(self, track: VisTrack, index: int) -> bool:
        """Check what an object is in a frame; return whether it is seen there."""
        if track.masks[index] is None:
            return False
        place = f"{track.place}, frame {index}"
        try:
            mask = decode_mask(track.masks[index], self._videos[track.video].size, place)
        except DataError as error:
            self._report.add("mask that cannot be read", str(error))
            return False
        if not mask.any():
            self._report.add("empty mask, taken for null", place)
        return bool(mask.any())

    def _category_names(self) -> dict[int, str]:
        names: dict[int, str] = {}
        for key, record in good_records(
            self._data.get("categories"), "categories", self._path, self._report
        ).items():
            try:
                name = coco_field(record, "name", str, f"{self._path}: category {key}")
            except DataError as error:
                self._report.add(BAD_ENTRY, str(error))
                continue
            if name in names.values():
                twice = f"{self._path}: category {key}: {shown(name)}"
                self._report.add("class listed twice", twice)
            names[key] = name
        return names
