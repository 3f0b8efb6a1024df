"""Decode frame files into RGB pixels, and refuse what is not whole."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from stpn_data.videos import DataError

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG", b"IEND\xaeB`\x82"


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read an image file as (H, W, 3) uint8 RGB, whatever its kind and colour space.

    The kind is told by the content, not by the name. Pixels stay in the order in which the file
    stores them: an EXIF orientation is ignored, since annotations refer to stored pixels.

    Raises:
        DataError: the file is missing, empty, truncated, or no image.
    """
    path = Path(path)
    data = read_image_bytes(path)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise DataError(f"{path}: the image cannot be decoded ({error.err})") from error
    if pixels is None:
        raise DataError(f"{path}: not an image, or a damaged one")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def read_image_bytes(path: Path) -> bytes:
    """Read an image file without decoding it.

    Raises:
        DataError: the file is missing, empty or truncated.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: no name that a file can have
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: the frame cannot be read ({reason})") from error
    if not data:
        raise DataError(f"{path}: the file is empty")
    if _is_truncated(data):
        raise DataError(f"{path}: the image is truncated")
    return data


def _is_truncated(data: bytes) -> bool:
    """Look for the end marker, because the decoder fills missing rows with grey silently.

    Within the scan of a JPEG the bytes of its markers are escaped, so an end marker after the
    last start of a scan is the real one; one before it belongs to a thumbnail.
    """
    if data.startswith(_JPEG_START):
        return data.rfind(_JPEG_END) < data.rfind(_JPEG_SCAN)
    return data.startswith(_PNG_START) and _PNG_END not in data
