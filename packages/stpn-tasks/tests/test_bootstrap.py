"""Paired bootstrap: it knows sequences from frames, and covers the truth as often as it says."""

from __future__ import annotations

import numpy as np
import pytest

from stpn_tasks.metrics.bootstrap import paired_difference


def test_equal_cases_differ_by_nothing():
    values = np.random.default_rng(0).random(40)
    found = paired_difference(values, values, np.arange(40) // 4)
    assert (found.mean, found.low, found.high) == (0, 0, 0)


def test_pairing_finds_a_small_gain_among_widely_spread_sequences():
    rng = np.random.default_rng(0)
    sequences = np.repeat(np.arange(30), 5)
    base = rng.normal(0, 10, 30)[sequences]
    gained = base + 0.5 + rng.normal(0, 0.1, len(sequences))
    found = paired_difference(gained, base, sequences)
    assert 0.4 < found.low < found.mean < found.high < 0.6


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    sequences = np.repeat(np.arange(40), 6)
    covered = 0
    for trial in range(200):
        gains = rng.normal(1.0, 2.0, 40)[sequences] + rng.normal(0, 1.0, len(sequences))
        found = paired_difference(gains, np.zeros_like(gains), sequences, draws=400, seed=trial)
        covered += found.low <= 1.0 <= found.high
    assert 0.88 < covered / 200 < 0.99  # frames taken as independent would cover about 60 %


def test_a_long_sequence_counts_by_its_frames():
    sequences = np.array([0] * 9 + [1])
    values = np.array([0.0] * 9 + [1.0])
    assert paired_difference(values, np.zeros(10), sequences).mean == pytest.approx(0.1)


@pytest.mark.parametrize("shapes", [(0, 0, 0), (3, 2, 3), (3, 3, 2)])
def test_arrays_that_do_not_agree_are_refused(shapes):
    with pytest.raises(ValueError, match="as many numbers"):
        paired_difference(*(np.zeros(n) for n in shapes))
