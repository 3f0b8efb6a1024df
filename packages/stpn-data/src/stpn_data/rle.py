"""Masks as COCO writes them: run-length codes, compressed or not, and polygons."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from stpn_data.annotations import shown
from stpn_data.videos import DataError


def encode_masks(masks: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Write masks (n, H, W) as compressed run-length codes.

    Returns:
        n of {"size": [H, W], "counts": text}, as json takes them.
    """
    columns = np.ascontiguousarray(masks.transpose(0, 2, 1))  # runs go down the columns
    codes = coco_mask.encode(columns.view(np.uint8).transpose(2, 1, 0))
    return [{"size": list(masks.shape[1:]), "counts": code["counts"].decode()} for code in codes]


def decode_mask(segmentation: object, size: tuple[int, int], place: str) -> NDArray[np.bool_]:
    """Read a mask of any of COCO's three forms: run lengths as text or as numbers, or polygons.

    pycocotools reads codes that do not fit their image without a word, so they are decoded here.

    Args:
        segmentation: as json has it, or `compact`.
        size: (height, width) of the frame.
        place: names the mask in errors.

    Returns:
        (H, W) mask.

    Raises:
        DataError: it is none of the three, is of another size, or its runs do not fill the frame.
    """
    if isinstance(segmentation, list):
        return _fill_polygons(segmentation, size, place)
    if not isinstance(segmentation, dict):
        raise DataError(f"{place}: a mask is {shown(segmentation)}, expected a code or polygons")
    if segmentation.get("size") != list(size):
        raise DataError(
            f"{place}: 'size' of a mask is {shown(segmentation.get('size'))}, "
            f"its frame has [{size[0]}, {size[1]}]"
        )
    runs = _run_lengths(segmentation.get("counts"), place)
    if runs.min(initial=0) < 0 or runs.sum() != size[0] * size[1]:
        raise DataError(
            f"{place}: 'counts' of a mask make {runs.sum()} pixels, "
            f"its frame of [{size[0]}, {size[1]}] has {size[0] * size[1]}"
        )
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(size[::-1]).T  # column by column


def compact(segmentation: object) -> object:
    """Return a mask as json has it, with run lengths that are numbers in an array.

    An array takes a tenth of the memory of a list. What is no mask stays as it is, for
    `decode_mask` to refuse.
    """
    if not isinstance(segmentation, dict):
        return segmentation
    runs = _as_array(segmentation.get("counts"))
    return segmentation if runs is None else {"size": segmentation.get("size"), "counts": runs}


def _run_lengths(counts: object, place: str) -> NDArray[np.int64]:
    """Return the lengths of the runs, the first one outside the mask."""
    if isinstance(counts, str):
        return _parse(counts, place)
    runs = counts if isinstance(counts, np.ndarray) else _as_array(counts)
    if runs is None:
        raise DataError(
            f"{place}: 'counts' of a mask are {shown(counts)}, expected text or numbers"
        )
    return runs.astype(np.int64)


def _as_array(counts: object) -> NDArray[np.int32] | None:
    """Return a list of whole numbers of 32 bits as an array; None for anything else."""
    if not isinstance(counts, list):
        return None
    try:
        runs = np.array(counts)
    except ValueError:  # lists of different lengths
        return None
    if runs.ndim != 1 or runs.dtype.kind != "i":  # numbers of over 64 bits are objects
        return None
    lowest, highest = int(runs.min()), int(runs.max())
    return runs.astype(np.int32) if lowest >= -(2**31) and highest < 2**31 else None


def _parse(text: str, place: str) -> NDArray[np.int64]:
    """Read COCO's text: numbers in groups of five bits, from the fourth run on as differences.

    Bit 5 of a character minus 48 says that the number goes on, bit 4 of its last one is the sign;
    a difference is to the run before the one before.
    """
    codes = np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64) - 48
    if len(codes) == 0 or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise DataError(f"{place}: 'counts' of a mask are {shown(text)}, no run-length code")
    lasts = np.flatnonzero((codes & 32) == 0)
    firsts = np.concatenate([[0], lasts[:-1] + 1])
    digits = np.arange(len(codes)) - np.repeat(firsts, lasts - firsts + 1)
    if digits.max() > 6:  # no run of a frame needs more than 31 bits
        raise DataError(f"{place}: 'counts' of a mask are {shown(text)}, with too large a number")
    numbers = np.add.reduceat((codes & 31) << 5 * digits, firsts)
    numbers -= np.where(codes[lasts] & 16, 1 << 5 * (digits[lasts] + 1), 0)
    for parity in (1, 2):  # the first run is no end of a difference
        numbers[parity::2] = np.cumsum(numbers[parity::2])
    return numbers


def _fill_polygons(polygons: list[Any], size: tuple[int, int], place: str) -> NDArray[np.bool_]:
    """Unite polygons [x, y, x, y, ...] of three points or more as COCO does."""
    for polygon in polygons:
        if (
            not isinstance(polygon, list)
            or len(polygon) < 6
            or len(polygon) % 2
            or not all(type(n) in (int, float) and abs(n) <= 1e6 for n in polygon)
        ):
            raise DataError(f"{place}: a polygon is {shown(polygon)}, expected x, y, x, y, x, y")
    if not polygons:
        return np.zeros(size, np.bool_)
    united = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))
    return decode_mask(united | {"counts": united["counts"].decode()}, size, place)


def tight_box(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Return the tightest box XYXY around a mask (H, W), right and bottom exclusive.

    Zeros for an empty mask.
    """
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
