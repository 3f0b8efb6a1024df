"""How sure a difference is: paired bootstrap over the sequences of a test set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Difference:
    """Hold a difference of two means over frames, and the interval that it lies in.

    Attributes:
        mean: of the first minus of the second.
        low: lower end of the 95 % interval.
        high: upper end.
    """

    mean: float
    low: float
    high: float


def paired_difference(
    first: np.ndarray,
    second: np.ndarray,
    sequences: np.ndarray,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Difference:
    """Return how much higher the mean over frames is in one case than in another.

    Frames of a sequence are not independent of each other, sequences are: as many of these as there
    are get drawn with replacement, and both cases are taken on the same ones, each frame counting
    alike. The interval is that of the 2.5 and 97.5 percentiles (Efron 1979).

    Args:
        first: (n,) a number for each frame.
        second: (n,) of the same frames.
        sequences: (n,) which sequence each frame is of.
        draws: resamplings.
        seed: of the resampling.

    Raises:
        ValueError: no frame, or arrays that do not agree.
    """
    if not len(first) or first.shape != second.shape or first.shape != sequences.shape:
        raise ValueError(
            "need as many numbers of both cases as there are frames, got "
            f"{first.shape}, {second.shape}, {sequences.shape}"
        )
    _, index = np.unique(sequences, return_inverse=True)  # (n,)
    counts = np.bincount(index)
    sums = np.bincount(index, first - second)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(counts), (draws, len(counts)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Difference(float(np.mean(first - second)), float(low), float(high))
