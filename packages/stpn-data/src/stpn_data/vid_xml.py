"""Read one XML file of ImageNet VID or DET: the size of the image and its objects."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

from stpn_data.annotations import MAX_SIDE, AnnotatedBox, shown
from stpn_data.videos import DataError


class _Builder(ElementTree.TreeBuilder):
    """Refuses entities before they are declared: a few of them can stand for gigabytes."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("a document type is declared, which no annotation needs")


def parse_xml(path: Path) -> ElementTree.Element:
    """Read a file and return its root.

    Raises:
        DataError: the file is missing or not whole.
    """
    try:
        return ElementTree.parse(path, ElementTree.XMLParser(target=_Builder())).getroot()
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror})") from error
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # LookupError: encoding
        raise DataError(f"{path}: broken XML ({error})") from error


def xml_size(tree: ElementTree.Element, path: Path) -> tuple[int, int]:
    """Return the (height, width) of the annotated image.

    Raises:
        DataError: a field is missing or wrong.
    """
    height, width = _integer(tree, "size/height", path), _integer(tree, "size/width", path)
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise DataError(f"{path}: size is {width}x{height}")
    return height, width


def xml_box(
    element: ElementTree.Element,
    path: Path,
    labels: Mapping[str, int],
    track_id: int | None = None,
) -> AnnotatedBox:
    """Read an object.

    Args:
        element: the object.
        path: its file, for errors.
        labels: 0-based label of every class by WordNet id.
        track_id: the track, where files have none (DET); read if not given.

    Raises:
        DataError: a field is missing or wrong.
    """
    left, top, right, bottom = (
        _number(element, f"bndbox/{side}", path) for side in ("xmin", "ymin", "xmax", "ymax")
    )
    return AnnotatedBox(
        box_xyxy=(left, top, right, bottom),
        label=labels.get(_text(element, "name", path)),
        track_id=_integer(element, "trackid", path) if track_id is None else track_id,
    )


def xml_flag(element: ElementTree.Element, field: str, path: Path) -> bool:
    """Return a field of 0 or 1 of an object; one that is missing is 0.

    Raises:
        DataError: it is something else.
    """
    if element.find(field) is None:
        return False
    value = _integer(element, field, path)
    if value not in (0, 1):
        raise DataError(f"{path}: {field} is {value}, expected 0 or 1")
    return bool(value)


def _text(element: ElementTree.Element, field: str, path: Path) -> str:
    text = (element.findtext(field) or "").strip()
    if not text:
        raise DataError(f"{path}: {element.tag} without {field}")
    return text


def _number(element: ElementTree.Element, field: str, path: Path) -> float:
    text = _text(element, field, path)
    try:
        return float(text)
    except ValueError as error:
        raise DataError(f"{path}: {field} is {shown(text)}, not a number") from error


def _integer(element: ElementTree.Element, field: str, path: Path) -> int:
    number = _number(element, field, path)
    if not number.is_integer() or abs(number) >= 2**63:
        raise DataError(f"{path}: {field} is {number}, not a whole number of 64 bits")
    return int(number)
