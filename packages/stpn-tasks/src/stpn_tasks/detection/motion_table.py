"""Read the official table of motion IoU, a MATLAB file.

Its layout is MathWorks' "MAT-File Format", level 5: elements of a tag and data. Of it just what the
table needs is read, cells and real numbers, in Python: scipy's reader kills the process where a
file is damaged.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

VARIABLE = "motion_iou"
_MATRIX, _COMPRESSED = 14, 15
_CELL, _NUMBERS = 1, range(6, 16)  # classes of a matrix; the latter are float64 to uint64
_DTYPES = {
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4"},
    **{7: "f4", 9: "f8", 12: "i8", 13: "u8"},
}
_MAX_DEPTH = 3  # the table, its frames, and in some files a cell for each object


def read_motion_table(path: Path) -> list[np.ndarray]:
    """Return the motion IoU of the objects of each frame (n,), empty without objects.

    Raises:
        ValueError: the file cannot be read, or holds something else; names it.
    """
    try:
        rows = [np.concatenate([np.zeros(0), *_numbers(cell)]) for cell in _cells_of_file(path)]
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, struct.error, zlib.error, MemoryError) as error:
        raise ValueError(f"{path} cannot be read as a table of motion IoU: {error}") from error
    for number, row in enumerate(rows, 1):
        wrong = row[~((row >= 0) & (row <= 1))]  # NaN is in no range
        if len(wrong):
            raise ValueError(f"{path}: row {number} has the motion IoU {wrong[0]}")
    return rows


@dataclass(frozen=True)
class _Matrix:
    """A matrix of the file: its class, its name, and the elements of its content."""

    kind: int
    name: str
    content: tuple[tuple[int, memoryview], ...]
    order: str

    @classmethod
    def of(cls, data: memoryview, order: str) -> _Matrix:
        if not len(data):  # how an empty cell may be written
            return cls(_NUMBERS[0], "", (), order)
        (_, flags), (_, _shape), (_, name), *content = _elements(data, order)
        (kind,) = struct.unpack_from(f"{order}I", flags)
        return cls(kind & 0xFF, bytes(name).decode("ascii"), tuple(content), order)


def _cells_of_file(path: Path) -> list[_Matrix]:
    """Return the cells of the table, one for each frame."""
    data = memoryview(path.read_bytes())
    orders = {b"IM": "<", b"MI": ">"}
    order = orders.get(bytes(data[126:128]))
    if order is None:
        raise ValueError("it is not a MATLAB file of level 5, as the official one is")
    for kind, content in _elements(data[128:], order):
        if kind == _COMPRESSED:
            ((kind, content),) = _elements(memoryview(zlib.decompress(content)), order)
        if kind == _MATRIX:
            matrix = _Matrix.of(content, order)
            if matrix.name == VARIABLE:
                return _cells(matrix)
    raise ValueError(f"it has no variable {VARIABLE!r}")


def _cells(matrix: _Matrix) -> list[_Matrix]:
    if matrix.kind != _CELL or any(kind != _MATRIX for kind, _ in matrix.content):
        raise ValueError(f"{matrix.name!r} is not made of cells")
    return [_Matrix.of(content, matrix.order) for _, content in matrix.content]


def _numbers(matrix: _Matrix, depth: int = 1) -> Iterator[np.ndarray]:
    """Yield the numbers in a matrix; cells may lie in cells, and the innermost may be empty."""
    if matrix.kind == _CELL and depth < _MAX_DEPTH:
        for cell in _cells(matrix):
            yield from _numbers(cell, depth + 1)
    elif matrix.kind in _NUMBERS and len(matrix.content) <= 1:  # two are complex numbers
        for kind, content in matrix.content:
            if kind not in _DTYPES:
                raise ValueError(f"numbers are of the unknown type {kind}")
            yield np.frombuffer(content, f"{matrix.order}{_DTYPES[kind]}").astype(np.float64)
    else:
        raise ValueError("a cell holds something else than numbers")


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yield type and content of the elements that follow each other."""
    place = 0
    while place < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, place)
        start, is_short = place + 8, kind >> 16
        if is_short:  # up to four bytes stand in the tag itself
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
        if size > (4 if is_short else len(data) - start):
            raise ValueError(f"an element of {size} bytes does not fit where it is")
        yield kind, data[start : start + size]
        # Elements begin at multiples of eight bytes, but not behind compressed ones.
        place = start + size if kind == _COMPRESSED else place + 8 * -(-(start - place + size) // 8)
