"""YouTube-VIS 2019 and 2021: a json of videos and masks, and folders of JPEG frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stpn_data.annotated_videos import AnnotatedVideos
from stpn_data.annotations import AnnotatedBox, DataReport, shown
from stpn_data.coco_fields import coco_field, coco_records, load_json
from stpn_data.image_roots import find_image_root
from stpn_data.rle import decode_mask, tight_box
from stpn_data.videos import DataError, Video
from stpn_data.youtube_vis_fields import VisTrack, VisVideo

FRAMES = "JPEGImages"


class YouTubeVIS(AnnotatedVideos):
    """Offer the videos of a YouTube-VIS json; satisfies `VideoDataset`, with masks.

    Classes are the `categories` in the order of their ids. Boxes are the tightest around the masks
    (the file's own are not read), track ids those of the annotations. Crowds are kept, marked;
    `ClipDataset` leaves them out of training. Masks are decoded when a frame's objects are asked
    for, in any of COCO's three forms; null and empty ones are objects that are not seen. Every
    frame is a key frame.

    Attributes:
        video_ids: id of every video in the file.
        category_ids: id of every class in the file.
        has_annotations: the file has objects; those of test sets have none, and `objects` raises.

    Args:
        annotation_file: the json.
        image_root: folder in which its file names begin; looked for near the file if not given:
            `JPEGImages` beside it or in the folder of its name (`train.json`, `train/JPEGImages`).
        data: what the file holds, where it has been read already.

    Raises:
        DataError: a missing file, a missing or wrong field, an id or a name that occurs twice, or
            the images are not there.
    """

    def __init__(
        self,
        annotation_file: str | Path,
        image_root: str | Path | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Read the file."""
        path, report = Path(annotation_file), DataReport()
        data = load_json(path) if data is None else data
        layout = _VisFile(path, data, None if image_root is None else Path(image_root), report)
        super().__init__(layout, tuple(layout.categories.values()), report, with_masks=True)
        self.video_ids: tuple[int, ...] = layout.video_ids
        self.category_ids: tuple[int, ...] = tuple(layout.categories)
        self.has_annotations: bool = layout.has_annotations


class _VisFile:
    """Index a YouTube-VIS json; a `Layout`."""

    def __init__(
        self, path: Path, data: Mapping[str, Any], image_root: Path | None, report: DataReport
    ) -> None:
        self._path, self._report = path, report
        self.categories = categories_of(path, data)
        by_id = {
            record["id"]: VisVideo(record, f"{path}: video {record['id']}")
            for record in coco_records(data, "videos", path)
        }
        if not by_id:
            raise DataError(f"{path}: no videos")
        self.video_ids = tuple(by_id)
        self._videos = list(by_id.values())
        counts = Counter(video.name for video in self._videos)
        if doubled := [name for name, count in counts.items() if count > 1]:
            raise DataError(f"{path}: two videos have the frames of {shown(doubled[0])}")
        self.videos = [
            Video(
                video.name, len(video.file_names), *video.size, tuple(range(len(video.file_names)))
            )
            for video in self._videos
        ]
        # A test set's file says null or nothing.
        self.has_annotations = data.get("annotations") is not None
        self._tracks: list[list[tuple[int, VisTrack]]] = [[] for _ in self._videos]
        if self.has_annotations:
            self._index_tracks(data, by_id)
        self._image_root = _image_root(path, self._videos, image_root)

    def image_path(self, video: int, index: int) -> Path:
        """Name the file of a frame."""
        return self._image_root / self._videos[video].file_names[index]

    def image_size(self, video: int, index: int) -> tuple[int, int]:
        """Return the (height, width) that the file gives a video."""
        return self._videos[video].size

    def boxes(self, video: int, index: int) -> list[AnnotatedBox]:
        """Return the objects of a frame, with masks.

        Raises:
            DataError: the file has no annotations, or a mask cannot be read.
        """
        if not self.has_annotations:
            raise DataError(f"{self._path}: the file has no 'annotations'")
        boxes = []
        for track_id, track in self._tracks[video]:
            if track.masks[index] is None:
                continue
            place = f"{track.place}, frame {index}"
            mask = decode_mask(track.masks[index], self._videos[video].size, place)
            if not mask.any():
                self._report.add("empty mask, taken for null", place)
                continue
            boxes.append(
                AnnotatedBox(tight_box(mask), track.label, track_id, track.is_crowd, mask=mask)
            )
        return boxes

    def _index_tracks(self, data: Mapping[str, Any], by_id: Mapping[int, VisVideo]) -> None:
        lengths = {key: len(video.file_names) for key, video in by_id.items()}
        numbers = {key: number for number, key in enumerate(by_id)}
        labels = {key: label for label, key in enumerate(self.categories)}
        for record in coco_records(data, "annotations", self._path):
            place = f"{self._path}: annotation {record['id']}"
            track = VisTrack(record, place, lengths, labels)
            self._tracks[numbers[track.video]].append((record["id"], track))


def is_youtube_vis(data: Mapping[str, Any]) -> bool:
    """Tell whether a json is YouTube-VIS's: videos, not images, name the files."""
    videos = data.get("videos")
    return (
        "images" not in data
        and isinstance(videos, list)
        and any(isinstance(video, dict) and "file_names" in video for video in videos)
    )


def categories_of(path: Path, data: Mapping[str, Any]) -> dict[int, str]:
    """Return the name of every category by its id, in the order of the ids.

    Raises:
        DataError: there are none, a field is missing or wrong, or an id or a name occurs twice.
    """
    names: dict[int, str] = {}
    for record in coco_records(data, "categories", path):
        name = coco_field(record, "name", str, f"{path}: category {record['id']}")
        if name in names.values():
            raise DataError(f"{path}: two 'categories' have the 'name' {shown(name)}")
        names[record["id"]] = name
    if not names:
        raise DataError(f"{path}: no 'categories'")
    return dict(sorted(names.items()))


def frame_roots(path: Path, given: Path | None = None) -> list[Path]:
    """Name the folders in which the frames of a json may be, the likely ones first."""
    beside = path.absolute().parent
    if given is not None:
        return [given, given / FRAMES]
    folders = (beside / path.stem, beside, beside.parent / path.stem, beside.parent)
    return [*(folder / FRAMES for folder in folders), *folders]


def _image_root(path: Path, videos: Sequence[VisVideo], given: Path | None) -> Path:
    names = [video.file_names[0] for video in videos]
    root = find_image_root(frame_roots(path, given), names)
    if root is None:
        where = f"in {FRAMES} near the file" if given is None else f"in {given}"
        raise DataError(f"{path}: no frames {where}, such as {shown(names[0])}: name their folder")
    return root
