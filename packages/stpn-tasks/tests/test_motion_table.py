import json
import re
import struct
import zlib

import numpy as np
import pytest

from stpn_kernels.testing import shared_path
from stpn_tasks.detection.motion_table import read_motion_table

ROWS = [[0.5, 1.0], [], [0.7], [0.0, 1.0, 0.25]]


def column(row):
    """A frame as a column of numbers."""
    return np.array(row, np.float64).reshape(-1, 1)


def cells(row):
    """A frame as a cell for each object; one empty cell without objects."""
    parts = np.empty((max(len(row), 1), 1), object)
    for i in range(len(parts)):
        parts[i, 0] = column(row[i : i + 1])
    return parts


def save(path, values, **options):
    """Write as scipy does, which is how others read the official file."""
    pytest.importorskip("scipy.io").savemat(path, values, **options)
    return path


def table(rows, frame=column):
    made = np.empty((len(rows), 1), object)
    made[:, 0] = [frame(row) for row in rows]
    return made


def read(path):
    return [row.tolist() for row in read_motion_table(path)]


@pytest.mark.parametrize("frame", [column, cells])
@pytest.mark.parametrize("compressed", [False, True])
def test_numbers_come_back_from_either_nesting(tmp_path, frame, compressed):
    path = tmp_path / "motion.mat"
    values = {"before": np.ones((3, 3)), "motion_iou": table(ROWS, frame), "text": "behind"}
    save(path, values, do_compression=compressed)
    assert read(path) == ROWS


def element(kind, data, order="<"):
    return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(kind, name, *content, order="<"):
    flags = element(6, struct.pack(f"{order}II", kind, 0), order)
    shape = element(5, struct.pack(f"{order}ii", len(content), 1), order)
    return element(14, flags + shape + element(1, name, order) + b"".join(content), order)


def file(*elements, mark=b"IM"):
    return bytes(124) + (b"\0\1" if mark == b"IM" else b"\1\0") + mark + b"".join(elements)


def test_numbers_are_read_as_matlab_packs_them(tmp_path):
    # Whole numbers in one byte each, in the tag itself; and a file of the other byte order.
    path, whole = tmp_path / "motion.mat", struct.pack("<HH2B2x", 2, 2, 0, 1)
    frames = (matrix(6, b"", whole), element(14, b""), matrix(1, b"", matrix(6, b"", whole)))
    path.write_bytes(file(matrix(1, b"motion_iou", *frames)))
    assert read(path) == [[0, 1], [], [0, 1]]
    half = matrix(6, b"", element(9, struct.pack(">d", 0.5), ">"), order=">")
    path.write_bytes(file(matrix(1, b"motion_iou", half, order=">"), mark=b"MI"))
    assert read(path) == [[0.5]]


NUMBER = element(9, struct.pack("<d", 0.5))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a MATLAB file of level 5"),
        (b"MATLAB 7.3 MAT-file, " + b"x" * 1000, "not a MATLAB file of level 5"),
        (file(), "it has no variable 'motion_iou'"),
        (file(matrix(1, b"motion")), "it has no variable 'motion_iou'"),
        (file(matrix(6, b"motion_iou", NUMBER)), "'motion_iou' is not made of cells"),
        (file(matrix(1, b"motion_iou", matrix(4, b"", NUMBER))), "something else than numbers"),
        (file(matrix(1, b"motion_iou", matrix(6, b"", NUMBER * 2))), "something else than numbers"),
        (
            file(matrix(1, b"motion_iou", matrix(1, b"", matrix(1, b"", matrix(1, b""))))),
            "something else than numbers",
        ),
        (
            file(matrix(1, b"motion_iou", matrix(6, b"", element(8, bytes(8))))),
            "the unknown type 8",
        ),
        (file(matrix(1, b"motion_iou"))[:-4], "does not fit"),
        (file(element(15, zlib.compress(b"x" * 64)[:-8])), "incomplete"),
    ],
)
def test_a_file_that_is_no_table_is_named(tmp_path, content, message):
    path = tmp_path / "motion.mat"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} .*{message}"):
        read_motion_table(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone.mat cannot be read: No such file"):
        read_motion_table(tmp_path / "gone.mat")


@pytest.mark.parametrize("value", [1.5, -0.1, np.nan, np.inf])
def test_a_value_that_cannot_be_is_named(tmp_path, value):
    path = save(tmp_path / "motion.mat", {"motion_iou": table([[0.5], [], [0.5, value]])})
    with pytest.raises(ValueError, match=f"motion.mat: row 3 has the motion IoU {value}"):
        read_motion_table(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_tables_are_read_or_refused_in_words(tmp_path, compressed):
    path = tmp_path / "motion.mat"
    save(path, {"motion_iou": table(ROWS * 3, cells)}, do_compression=compressed)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    messages = []
    for _ in range(1000):
        data = bytearray(whole[: rng.integers(0, 2 * len(whole))])
        for place in rng.integers(0, len(data), rng.integers(0, 5)) if data else ():
            data[place] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            read_motion_table(path)
        except ValueError as refused:
            messages.append(str(refused))
    assert len(messages) > 500
    assert all(str(path) in message for message in messages)


def test_real_motion_survives_a_table(tmp_path):
    values = json.loads(shared_path("golden/vid_motion_iou_real/motion_iou.json").read_text())
    rows = [frame["motion_iou"] for video in values["videos"] for frame in video["frames"]]
    path = save(tmp_path / "motion.mat", {"motion_iou": table(rows, cells)}, do_compression=True)
    assert read(path) == rows
