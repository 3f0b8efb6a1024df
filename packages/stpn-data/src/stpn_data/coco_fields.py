"""Read the entries of a CocoVID json field by field; what is wrong is named with its place."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from stpn_data.annotations import MAX_SIDE, shown
from stpn_data.videos import DataError

_MISSING = object()


def coco_id(record: object, seen: Container[int], place: str) -> int:
    """Return the id of an entry.

    Raises:
        DataError: there is none, or it is one of `seen`.
    """
    if not isinstance(record, dict):
        raise DataError(f"{place} is not an object")
    identity: int = coco_field(record, "id", int, place)
    if identity in seen:
        raise DataError(f"{place}: the id {identity} occurs twice")
    return identity


def coco_records(
    data: Mapping[str, Any], name: str, path: Path, default: object = _MISSING
) -> list[dict[str, Any]]:
    """Return a list of a file after checking that its ids are there and differ.

    Args:
        data: what the file holds.
        name: of the list.
        path: the file, for errors.
        default: stands for a list that is not there.

    Raises:
        DataError: there is no such list, or an id is missing or occurs twice.
    """
    records = data.get(name, default)
    if not isinstance(records, list):
        raise DataError(f"{path}: the file has no list {name!r}")
    seen: set[int] = set()
    for position, record in enumerate(records):
        seen.add(coco_id(record, seen, f"{path}: {name}[{position}]"))
    return records


class CocoImage:
    """One image of the file: where it is, how large, which frame of its video."""

    __slots__ = ("file_name", "frame_id", "is_key_frame", "row", "size")

    def __init__(self, record: Mapping[str, Any], row: int, place: str, in_video: bool) -> None:
        self.file_name: str = coco_field(record, "file_name", str, place)
        if not Path(self.file_name).name:
            raise DataError(f"{place}: 'file_name' {self.file_name!r} names no file")
        self.size: tuple[int, int] = (
            coco_field(record, "height", int, place),
            coco_field(record, "width", int, place),
        )
        if not 1 <= min(self.size) <= max(self.size) <= MAX_SIDE:
            raise DataError(f"{place}: 'height' and 'width' are {self.size}")
        self.frame_id: int = coco_field(record, "frame_id", int, place) if in_video else 0
        self.is_key_frame = coco_flag(record, "is_vid_train_frame", place)
        self.row = row


def load_json(path: Path) -> dict[str, Any]:
    """Read a file of one object.

    Raises:
        DataError: the file is missing, or no json, or holds something else.
    """
    try:
        with path.open(encoding="utf-8") as file:
            data = json.load(file)
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: broken json ({error})") from error
    if not isinstance(data, dict):
        raise DataError(f"{path}: expected an object with 'images', got {type(data).__name__}")
    return data


def coco_field(record: Mapping[str, Any], name: str, kind: type, place: str) -> Any:
    """Return a field of an entry.

    Raises:
        DataError: it is missing or of another type.
    """
    if name not in record:
        raise DataError(f"{place} has no {name!r}")
    value = record[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"{place}: {name!r} is {shown(value)}, expected {kind.__name__}")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise DataError(f"{place}: {name!r} is {shown(value)}, too large a number")
    return value


def coco_flag(record: Mapping[str, Any], name: str, place: str) -> bool:
    """Return a field of 0 or 1 that may be missing.

    Raises:
        DataError: it is something else.
    """
    value = record.get(name)
    if value not in (None, 0, 1):  # True is 1
        raise DataError(f"{place}: {name!r} is {shown(value)}, expected 0 or 1")
    return bool(value)


def coco_known(record: Mapping[str, Any], name: str, known: Mapping[int, int], place: str) -> int:
    """Return what the id in a field stands for.

    Raises:
        DataError: `known` has no such id.
    """
    value = coco_field(record, name, int, place)
    if value not in known:
        raise DataError(f"{place}: {name!r} is {value}, which the file does not define")
    return known[value]


def coco_box(record: Mapping[str, Any], place: str) -> tuple[float, float, float, float]:
    """Return (x, y, x + w, y + h); NaN where the file has null.

    Raises:
        DataError: 'bbox' is missing or not four numbers.
    """
    if record.get("bbox", _MISSING) is None:
        return (math.nan,) * 4
    box = coco_field(record, "bbox", list, place)
    if len(box) != 4 or not all(
        value is None or (isinstance(value, int | float) and not isinstance(value, bool))
        for value in box
    ):
        raise DataError(f"{place}: 'bbox' is {shown(box)}, expected [x, y, width, height]")
    x, y, width, height = (_float(value) for value in box)
    return x, y, x + width, y + height


def _float(value: float | None) -> float:
    try:
        return math.nan if value is None else float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return math.inf
