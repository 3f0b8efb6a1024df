"""Masks of COCO's three forms: exact both ways, and refused where they do not fit their frame."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_mask

from stpn_data.rle import decode_mask, encode_masks
from stpn_data.videos import DataError

MASKS = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=3, max_dims=3, max_side=40))


def runs_of(mask):
    """Write a mask as COCO's numbers, by its definition: runs of columns, outside first."""
    flat = mask.T.reshape(-1)
    ends = [*np.flatnonzero(np.diff(flat)) + 1, len(flat)]
    runs = np.diff([0, *ends]).tolist()
    return [0, *runs] if flat[0] else runs


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@given(masks=MASKS)
def test_compressed_codes_are_exact_and_those_of_the_library(masks):
    size = masks.shape[1:]
    for mask, code in zip(masks, encode_masks(masks), strict=True):
        assert code["size"] == list(size)
        assert isinstance(code["counts"], str)
        assert np.array_equal(decode_mask(code, size, "m"), mask)
        assert np.array_equal(coco_mask.decode(code).astype(bool), mask)


@given(masks=MASKS)
def test_uncompressed_codes_are_exact(masks):
    size = masks.shape[1:]
    for mask in masks:
        code = {"size": list(size), "counts": runs_of(mask)}
        assert np.array_equal(decode_mask(code, size, "m"), mask)


@given(counts=st.lists(st.integers(0, 2_000_000), min_size=1, max_size=30), width=st.integers(1, 5))
def test_long_runs_of_text_are_exact(counts, width):
    """Numbers of several groups of bits, rising and falling."""
    counts[-1] += -sum(counts) % width
    height = sum(counts) // width
    if height == 0 or height > 10_000_000:
        return
    code = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    text = {"size": [height, width], "counts": code["counts"].decode()}
    assert decode_mask(text, (height, width), "m").sum() == sum(counts[1::2])


def test_no_masks_have_no_codes():
    assert encode_masks(np.zeros((0, 4, 5), np.bool_)) == []


def test_polygons_are_united():
    squares = [[0, 0, 4, 0, 4, 4, 0, 4], [6.0, 2.0, 8.0, 2.0, 8.0, 5.0, 6.0, 5.0]]
    mask = decode_mask(squares, (6, 10), "m")
    expected = np.zeros((6, 10), np.bool_)
    expected[:4, :4] = expected[2:5, 6:8] = True
    assert np.array_equal(mask, expected)
    assert not decode_mask([], (6, 10), "m").any()


@pytest.mark.parametrize(
    "wrong",
    [
        5,
        "99",
        {"counts": [20]},
        {"size": [5, 4], "counts": [20]},
        {"size": [4, 5], "counts": [19]},
        {"size": [4, 5], "counts": [21]},
        {"size": [4, 5], "counts": [30, -10]},
        {"size": [4, 5], "counts": [20, 2**70]},
        {"size": [4, 5], "counts": [20, 2**32, -(2**32)]},
        {"size": [4, 5], "counts": [20, -(2**63)]},
        {"size": [4, 5], "counts": [[20]]},
        {"size": [4, 5], "counts": [[20], 3]},
        {"size": [4, 5], "counts": [20.0]},
        {"size": [4, 5], "counts": [True] * 20},
        {"size": [4, 5], "counts": None},
        {"size": [4, 5], "counts": []},
        {"size": [4, 5], "counts": ""},
        {"size": [4, 5], "counts": "99"},
        {"size": [4, 5], "counts": "P"},
        {"size": [4, 5], "counts": "é"},
        {"size": [4, 5], "counts": "\ud800"},
        {"size": [4, 5], "counts": "P" * 40 + "0"},
        [[0, 0, 1, 1]],
        [[0, 0, 1, 1, 2, 2, 3]],
        [[0, 0, 1, 1, 2, float("nan")]],
        [[0, 0, 1, 1, 2, None]],
        [0, 0, 1, 1, 2, 2],
    ],
)
def test_a_mask_that_does_not_fit_is_named(wrong):
    with pytest.raises(DataError, match="the place"):
        decode_mask(wrong, (4, 5), "the place")


@given(text=st.text(max_size=12))
def test_any_text_is_a_mask_of_its_frame_or_refused(text):
    try:
        mask = decode_mask({"size": [7, 9], "counts": text}, (7, 9), "m")
    except DataError:
        return
    assert mask.shape == (7, 9)
    assert encode_masks(mask[None])[0]["counts"] or text
