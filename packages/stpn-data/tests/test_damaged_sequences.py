"""Damaged label files of tracking: a right reading or an error in words, never a hang."""

import warnings
from random import Random

import cv2
import numpy as np
import pytest

from stpn_data import GOT10k, OwnSequences
from stpn_data.testing import damage_bytes, read_or_refuse

NUM_FRAMES = 6
SIZE = (24, 32)
TOKENS = tuple(
    token.encode()
    for token in (
        *("\x00", "\ufeff", "9" * 5000, "9" * 200_000 + "x", "1e999", "NaN", "-", "inf", "1e308"),
        *(" ", " " * 200_000, "\n", "\r", "\t", ",", ",,", ";", "8", "0", "1\n", "1,2,3,4\n"),
        *("../", "/", "one\n", "two", "[METAINFO]\n", ": ", "(", ")", "(9, 9)", "resolution: "),
    )
) + (b"\xff", b"\xff\xfe")
FILES = {
    "one/groundtruth.txt": "".join(f"{i}.5,2.25,8,6\n" for i in range(NUM_FRAMES)),
    "one/absence.label": "0\n0\n1\n0\n0\n0\n",
    "one/cut_by_image.label": "0\n1\n0\n0\n0\n0\n",
    "one/cover.label": "8\n8\n0\n7\n1\n8\n",
    "one/meta_info.ini": "[METAINFO]\nurl: https://a.b/c\nend: 00:01:02\nresolution: (32, 24)\n",
    "list.txt": "one\n",
}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "val" / "one"
    folder.mkdir(parents=True)
    for index in range(NUM_FRAMES):
        cv2.imwrite(str(folder / f"{index + 1:08d}.jpg"), np.zeros((*SIZE, 3), np.uint8))
    for name, text in FILES.items():
        (tmp_path / "val" / name).write_text(text)
    return tmp_path


def open_quietly(read):
    """Open; a warning is an error, and so is what a sequence promises and does not keep."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (one,) = read().sequences
        assert one.num_frames == NUM_FRAMES
        assert np.isfinite(one.boxes_xywh[one.visible | one.counted]).all()
        assert (one.has_box | ~one.visible).all()


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_read_or_named(root, name):
    path, refused = root / "val" / name, 0
    for seed in range(300):
        path.write_bytes(damage_bytes(FILES[name].encode(), Random(seed), TOKENS))
        # A list that names another folder speaks of that one.
        named = "/val/" if name == "list.txt" else str(path)
        _, message = read_or_refuse(lambda: open_quietly(lambda: GOT10k(root, "val")), named)
        refused += bool(message)
        assert len(message) < 1000, f"seed {seed}"
    assert 30 < refused < 300


def test_a_damaged_box_file_of_ones_own_is_read_or_named(root):
    path, refused = root / "val" / "one" / "groundtruth.txt", 0
    for seed in range(300):
        path.write_bytes(damage_bytes(FILES["one/groundtruth.txt"].encode(), Random(seed), TOKENS))
        _, message = read_or_refuse(
            lambda: open_quietly(lambda: OwnSequences.from_folder(path.parent)), str(path)
        )
        refused += bool(message)
        assert len(message) < 1000, f"seed {seed}"
    assert 30 < refused < 300
