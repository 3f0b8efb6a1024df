"""Read the annotations of YouTube-VIS 2019: videos, categories, and objects with their masks."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from stpn_data.annotations import MAX_SIDE, shown
from stpn_data.coco_fields import coco_field, coco_flag, coco_id
from stpn_data.videos import DataError
from stpn_tasks.metrics.ytvis_tracks import Rle, VideoObject, VideoTruth, compressed
from stpn_tasks.segmentation.rle_check import broken_counts

_MAX_FRAMES = 10**6  # a longer video is a damaged number
_MAX_COORDINATE = 1e6  # of polygons, which may go beyond their frame; as in training


@dataclass(frozen=True)
class YtvisTruth:
    """Hold what an annotation file says.

    Attributes:
        videos: with their objects, by id, ascending.
        categories: names by id, ascending.
    """

    videos: Mapping[int, VideoTruth]
    categories: Mapping[int, str]


def read_truth(path: Path, annotated: bool = True) -> YtvisTruth:
    """Read an annotation file.

    Args:
        path: the json file.
        annotated: objects are wanted; those of val and test are withheld.

    Raises:
        DataError: the file cannot be read, or what `parse_truth` raises.
    """
    return parse_truth(load_json(path, dict), str(path), annotated)


def parse_truth(data: Mapping[str, Any], source: str, annotated: bool = True) -> YtvisTruth:
    """Take the annotations from what the json file holds, or would hold, as of generated video.

    Masks are compressed runs, lists of runs, or polygons; null, and polygons of which there is
    none, are objects that are not seen. Videos are named by their id and the folder of their first
    frame, if that is told; where the length is not, it is the number of their frames.

    Args:
        data: of the file.
        source: names it in errors.
        annotated: objects are wanted; those of val and test are withheld.

    Raises:
        DataError: a field is missing or wrong, or an id occurs twice; source, entry and field are
            named.
    """
    videos: dict[int, VideoTruth] = {}
    for place, record in _records(source, data, "videos", videos):
        videos[record["id"]] = _video(record, place)
    categories: dict[int, str] = {}
    for place, record in _records(source, data, "categories", categories):
        name = coco_field(record, "name", str, place)
        if name in categories.values():
            raise DataError(f"{place}: the name {shown(name)} occurs twice")
        categories[record["id"]] = name
    objects: dict[int, list[VideoObject]] = {key: [] for key in videos}
    seen: set[int] = set()
    for place, record in _records(source, data, "annotations", seen) if annotated else ():
        seen.add(record["id"])
        video = videos.get(coco_field(record, "video_id", int, place))
        if video is None:
            raise DataError(f"{place}: no video has the id {record['video_id']}")
        objects[record["video_id"]].append(_object(record, place, video, categories))
    return YtvisTruth(
        {
            key: VideoTruth(one.name, one.size, one.length, tuple(objects[key]))
            for key, one in sorted(videos.items())
        },
        dict(sorted(categories.items())),
    )


def load_json(path: Path, kind: type, read: Callable[[], bytes] | None = None) -> Any:
    """Read a json file of one list or object.

    Args:
        path: of the file, for errors.
        kind: list or dict.
        read: returns its bytes, if they are not simply in the file.

    Raises:
        DataError: the file is missing, or no json, or holds something else.
    """
    try:
        data = json.loads((read or path.read_bytes)())
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: broken json ({error})") from error
    if not isinstance(data, kind):
        raise DataError(f"{path}: expected a {kind.__name__}, got {type(data).__name__}")
    return data


def track_masks(
    record: Mapping[str, Any],
    place: str,
    video: VideoTruth,
    read: Callable[[Any, str], Rle | None],
) -> list[Rle | None]:
    """Return the masks of an entry's 'segmentations', one per frame of its video.

    Args:
        record: the entry.
        place: names it in errors.
        video: the entry's.
        read: makes a mask of what is written, or none, given the place too.

    Raises:
        DataError: another number of masks than frames, or one that cannot be read.
    """
    written = coco_field(record, "segmentations", list, place)
    if len(written) != video.length:
        raise DataError(
            f"{place}: 'segmentations' has {len(written)} masks for {video.length} frames"
        )
    return [
        None if one is None else read(one, f"{place}: 'segmentations'[{frame}]")
        for frame, one in enumerate(written)
    ]


def _records(
    source: str, data: Mapping[str, Any], name: str, seen: Container[int]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield place and entry of a list of the file, with an id that is not among those seen."""
    for row, record in enumerate(coco_field(data, name, list, source)):
        place = f"{source}, {name}[{row}]"
        yield f"{place} (id {coco_id(record, seen, place)})", record


def _video(record: Mapping[str, Any], place: str) -> VideoTruth:
    height, width = (coco_field(record, name, int, place) for name in ("height", "width"))
    if not 1 <= min(height, width) <= max(height, width) <= MAX_SIDE:
        raise DataError(f"{place}: 'height' and 'width' are {height, width}")
    name = str(record["id"])
    if files := record.get("file_names"):
        files = coco_field(record, "file_names", list, place)
        if not all(isinstance(file, str) for file in files):
            raise DataError(f"{place}: 'file_names' is {shown(files)}")
        name = f"{name} ({Path(files[0]).parent.name})"
    if files and "length" not in record:
        length = len(files)
    else:
        length = coco_field(record, "length", int, place)
    if not 1 <= length <= _MAX_FRAMES:
        raise DataError(f"{place}: 'length' is {length}")
    return VideoTruth(name, (height, width), length, ())


def _object(
    record: Mapping[str, Any], place: str, video: VideoTruth, categories: Mapping[int, str]
) -> VideoObject:
    category = coco_field(record, "category_id", int, place)
    if category not in categories:
        raise DataError(f"{place}: no category has the id {category}")
    masks = track_masks(record, place, video, lambda one, at: _mask(one, video.size, at))
    areas = record.get("areas")
    if areas is not None:
        areas = coco_field(record, "areas", list, place)
        if len(areas) != video.length or not all(
            area is None or (type(area) in (int, float) and 0 <= area < 1e10) for area in areas
        ):
            raise DataError(f"{place}: 'areas' is {shown(areas)}, expected one per frame or null")
        areas = [None if area is None else float(area) for area in areas]
    return VideoObject(category, masks, coco_flag(record, "iscrowd", place), areas)


def _mask(written: Any, size: tuple[int, int], place: str) -> Rle | None:
    """Return a mask that is written as runs or as polygons; none if there is no polygon."""
    if isinstance(written, list):
        return _polygons(written, size, place) if written else None
    if not isinstance(written, dict):
        raise DataError(f"{place}: {shown(written)} is no mask")
    try:
        mask = compressed(written, size)
    except ValueError as error:
        raise DataError(f"{place}: {error}") from error
    if isinstance(mask["counts"], str) and broken_counts([mask["counts"]], size) is not None:
        raise DataError(f"{place}: the counts do not fill {size}")
    return mask


def _polygons(written: list[Any], size: tuple[int, int], place: str) -> Rle:
    for polygon in written:
        if (
            not isinstance(polygon, list)
            or len(polygon) < 6
            or len(polygon) % 2
            or not all(type(x) in (int, float) and abs(x) <= _MAX_COORDINATE for x in polygon)
        ):
            raise DataError(f"{place}: {shown(polygon)} is no polygon x, y, x, y, x, y, ...")
    mask: Rle = coco_mask.merge(coco_mask.frPyObjects(written, *size))
    return mask
