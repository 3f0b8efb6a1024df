"""Read masks of which every pixel holds the number of an object, as DAVIS's PNG files do."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stpn_data.images import read_image_bytes
from stpn_data.videos import DataError

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
_MODES = ("1", "L", "P", "I", "I;16", "I;16B")
_VOID = 255


def read_id_mask(path: Path) -> NDArray[np.int64]:
    """Read a PNG of object numbers, (H, W); 0 is the background.

    The number is the index of a palette, or the value of a grey image of 1, 8 or 16 bits. 255 in a
    palette is DAVIS's void and taken for background; in a grey image it is an object like any
    other, since masks of one object are often 0 and 255.

    Raises:
        DataError: the file is missing, damaged, or an image of colours.
    """
    data = read_image_bytes(path)
    try:
        with Image.open(BytesIO(data), formats=("PNG",)) as image:
            mode = image.mode
            ids = np.asarray(image).astype(np.int64) if mode in _MODES else None
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: no PNG, or a damaged one") from error
    if ids is None:
        raise DataError(f"{path}: an image of colours ({mode}), expected a palette or grey")
    if mode == "P":
        ids[ids == _VOID] = 0
    return ids
