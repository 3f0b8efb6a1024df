"""Write and read ``results.json`` of YouTube-VIS, alone or in the zip that its server takes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo

from stpn_data.annotations import shown
from stpn_data.coco_fields import coco_field
from stpn_data.videos import DataError
from stpn_tasks.files import atomic_path, write_text
from stpn_tasks.metrics.ytvis_tracks import Rle, VideoPrediction, VideoTruth
from stpn_tasks.segmentation.rle_check import broken_counts
from stpn_tasks.segmentation.truth_file import YtvisTruth, load_json, track_masks

RESULTS = "results.json"
_TIME_OF_ZIP = (1980, 1, 1, 0, 0, 0)  # so that the same results make the same file


def write_results(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write records, as `TrackPrediction.record` makes them, atomically.

    Args:
        path: a ``.json``; or a ``.zip``, which then holds ``results.json`` at its root and nothing
            else, as the server wants it.
        records: ``video_id``, ``category_id``, ``score`` and ``segmentations``, one mask with
            compressed counts, or None, per frame of the video.

    Raises:
        ValueError: another suffix, or a score that is not finite, which json cannot hold.
    """
    if path.suffix not in (".json", ".zip"):
        raise ValueError(f"{path}: results are written as .json or as .zip")
    text = json.dumps(list(records), allow_nan=False)
    if path.suffix == ".json":
        write_text(path, text)
        return
    entry = ZipInfo(RESULTS, _TIME_OF_ZIP)
    entry.compress_type, entry.external_attr = ZIP_DEFLATED, 0o644 << 16
    with atomic_path(path) as partial, ZipFile(partial, "w") as archive:
        archive.writestr(entry, text)


def read_results(path: Path, truth: YtvisTruth) -> list[list[VideoPrediction]]:
    """Read results, and check that they fit the videos that were to be segmented.

    Args:
        path: a ``.json``, or a ``.zip`` as the server takes it.
        truth: the videos and categories; objects are not looked at.

    Returns:
        The predictions of each video, in the order of ``truth.videos`` and of the file.

    Raises:
        DataError: the file cannot be read, or a record is not what the server takes: a video or
            category that is not there, a score that is no finite number, another number of masks
            than frames, a mask of another size, uncompressed or broken counts. File, record and
            field are named.
    """
    is_zip = path.suffix == ".zip"
    data = load_json(path, list, (lambda: _from_zip(path)) if is_zip else None)
    predictions: dict[int, list[VideoPrediction]] = {key: [] for key in truth.videos}
    for row, record in enumerate(data):
        place = f"{path}, record {row}"
        if not isinstance(record, dict):
            raise DataError(f"{place} is not an object")
        video_id = coco_field(record, "video_id", int, place)
        if video_id not in truth.videos:
            raise DataError(f"{place}: no video has the 'video_id' {video_id}")
        video = truth.videos[video_id]
        predictions[video_id].append(_prediction(record, place, video, truth.categories))
    return list(predictions.values())


def _prediction(
    record: Mapping[str, Any], place: str, video: VideoTruth, categories: Mapping[int, str]
) -> VideoPrediction:
    category = coco_field(record, "category_id", int, place)
    if category not in categories:
        raise DataError(f"{place}: no category has the 'category_id' {category}")
    score: Any = record.get("score")
    if type(score) not in (int, float) or not abs(score) <= sys.float_info.max:
        raise DataError(f"{place}: 'score' is {shown(score)}, expected a finite number")
    masks = track_masks(record, place, video, lambda one, at: _mask(one, video.size, at))
    there = [(frame, one) for frame, one in enumerate(masks) if one is not None]
    wrong = broken_counts([one["counts"] for _, one in there], video.size)
    if wrong is not None:
        raise DataError(
            f"{place}: 'segmentations'[{there[wrong][0]}]: the counts do not fill {video.size}"
        )
    return VideoPrediction(category, float(score), masks)


def _mask(written: Any, size: tuple[int, int], place: str) -> Rle:
    if not isinstance(written, dict):
        raise DataError(f"{place} is {shown(written)}, expected an object or null")
    if isinstance(written.get("counts"), list):
        raise DataError(f"{place}: 'counts' are a list; the server takes compressed ones only")
    coco_field(written, "counts", str, place)
    if written.get("size") != list(size):
        raise DataError(f"{place}: 'size' is {shown(written.get('size'))}, not {list(size)}")
    return written


def _from_zip(path: Path) -> bytes:
    try:
        with ZipFile(path) as archive:
            if RESULTS not in archive.namelist():
                raise DataError(
                    f"{path}: no {RESULTS} at the root, there is {shown(archive.namelist())}"
                )
            return archive.read(RESULTS)
    except BadZipFile as error:
        raise DataError(f"{path}: broken zip ({error})") from error
