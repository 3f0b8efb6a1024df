"""Read the entries of a YouTube-VIS json field by field; what is wrong is named with its place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from stpn_data.annotations import MAX_SIDE, shown
from stpn_data.coco_fields import coco_field, coco_flag, coco_known
from stpn_data.rle import compact
from stpn_data.videos import DataError


class VisVideo:
    """One video of the file: its frames in order, and their size."""

    __slots__ = ("file_names", "name", "size")

    def __init__(self, record: Mapping[str, Any], place: str) -> None:
        names = coco_field(record, "file_names", list, place)
        if not names:
            raise DataError(f"{place}: 'file_names' is empty")
        if wrong := [one for one in names if not isinstance(one, str) or not Path(one).name]:
            raise DataError(f"{place}: 'file_names' has {shown(wrong[0])}, which names no file")
        if len(set(names)) < len(names):
            raise DataError(f"{place}: 'file_names' has a frame twice")
        if record.get("length", len(names)) != len(names):
            length = shown(record["length"])
            raise DataError(f"{place}: 'length' is {length} for {len(names)} 'file_names'")
        self.file_names: tuple[str, ...] = tuple(names)
        self.size: tuple[int, int] = (
            coco_field(record, "height", int, place),
            coco_field(record, "width", int, place),
        )
        if not 1 <= min(self.size) <= max(self.size) <= MAX_SIDE:
            raise DataError(f"{place}: 'height' and 'width' are {self.size}")
        folder = str(PurePosixPath(names[0]).parent)
        self.name = f"video {record['id']}" if folder == "." else folder


class VisTrack:
    """One annotation of the file: an object of a video, with its masks."""

    __slots__ = ("is_crowd", "label", "masks", "place", "video")

    def __init__(
        self,
        record: Mapping[str, Any],
        place: str,
        lengths: Mapping[int, int],
        labels: Mapping[int, int],
    ) -> None:
        """Read a record.

        Args:
            record: the entry.
            place: names it in errors.
            lengths: number of frames of every video by its id.
            labels: 0-based label of every category by its id.
        """
        length = coco_known(record, "video_id", lengths, place)
        masks = coco_field(record, "segmentations", list, place)
        if len(masks) != length:
            raise DataError(
                f"{place}: 'segmentations' has {len(masks)} entries, its video {length} frames"
            )
        self.video: int = record["video_id"]
        self.label = coco_known(record, "category_id", labels, place)
        self.is_crowd = coco_flag(record, "iscrowd", place)
        self.masks = [compact(mask) for mask in masks]
        self.place = place
