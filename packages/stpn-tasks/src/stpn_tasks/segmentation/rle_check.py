"""Check run-length encodings without decoding them to pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_MAX_DIGITS = 6  # of 5 bits, with a sign: more than any frame has pixels


def broken_counts(counts: Sequence[str], size: tuple[int, int]) -> int | None:
    """Return the place of the first mask whose runs do not fill the frame exactly, or None.

    pycocotools takes any text, and compares masks of different numbers of pixels for ever.

    Args:
        counts: compressed counts of each mask.
        size: (height, width) of all of them.
    """
    for place, text in enumerate(counts):
        if not text or not text.isascii():
            return place
    if not counts:
        return None
    runs, is_run, broken = _written_runs(counts)
    for start in (1, 2):  # from the fourth run on, the difference to the run before the last
        runs[:, start::2] = runs[:, start::2].cumsum(axis=1)
    runs *= is_run
    broken |= (runs.sum(axis=1) != size[0] * size[1]) | (runs < 0).any(axis=1)
    return int(broken.argmax()) if broken.any() else None


def _written_runs(counts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what is written for each run of n masks (n, runs), where one is, and what is broken.

    A run is written in digits of 5 bits, the lowest first, as characters from "0" on; bit 5 tells
    that more digits follow, bit 4 of the last is the sign.
    """
    lengths = np.array([len(text) for text in counts])
    after = np.cumsum(lengths)
    digits = np.frombuffer("".join(counts).encode(), np.uint8) - np.uint8(48)
    broken = np.maximum.reduceat(digits, after - lengths) > 63
    broken |= digits[after - 1] > 31  # the text ends within a run
    digits[after - 1] &= 31

    ends = np.flatnonzero(digits < 32)
    num_digits = np.diff(ends, prepend=-1)
    num_runs = np.diff(np.searchsorted(ends, after), prepend=0)
    broken |= np.maximum.reduceat(num_digits, np.cumsum(num_runs) - num_runs) > _MAX_DIGITS
    values = digits[ends].astype(np.int64)
    values -= (values & 16) << 1  # the sign
    for above in range(1, min(int(num_digits.max()), _MAX_DIGITS)):
        more = np.flatnonzero(num_digits > above)
        values[more] = (values[more] << 5) + (digits[ends[more] - above] & 31)

    is_run = np.arange(num_runs.max()) < num_runs[:, None]
    runs = np.zeros(is_run.shape, np.int64)
    runs[is_run] = values
    return runs, is_run, broken
