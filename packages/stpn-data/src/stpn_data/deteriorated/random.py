"""Random numbers that are the same on every machine: independent streams named by what they draw.

What annotations depend on is drawn with `Stream.number` and worked out in double precision with
``+ - * /`` and square roots only: these are exactly rounded everywhere, while sines, normal
deviates and vectorised filters differ in the last bit between processors.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from stpn_data.deteriorated.options import SPLITS, Split

Purpose = Literal["scene", "schedule", "look", "frame"]
_PURPOSES: tuple[Purpose, ...] = get_args(Purpose)


class Stream:
    """Draw random numbers from bits alone.

    Args:
        seed: seed of the data set, not negative.
        split: split of the data set; splits share no clip.
        index: number of the clip within the split.
        purpose: what the numbers are for; streams of different purposes are independent, so
            another deterioration leaves the scene as it is.
        frame: number of the frame, for purposes that draw anew in each.
    """

    def __init__(
        self, seed: int, split: Split, index: int, purpose: Purpose, frame: int = 0
    ) -> None:
        words = [seed, SPLITS.index(split), index, _PURPOSES.index(purpose), frame]
        self.generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))

    def number(self, low: float = 0.0, high: float = 1.0) -> float:
        """Draw uniformly from [low, high)."""
        return low + (high - low) * self.generator.random()

    def integer(self, low: int, high: int) -> int:
        """Draw uniformly from low, ..., high (inclusive)."""
        return low + int(self.generator.random() * (high - low + 1))

    def direction(self) -> tuple[float, float]:
        """Draw a unit vector, nearly uniform in angle."""
        return unit_vector(self.number())


def rotation(tangent: float) -> tuple[float, float]:
    """Return cosine and sine of the angle whose half has this tangent, by division alone."""
    square = tangent * tangent
    return (1 - square) / (1 + square), 2 * tangent / (1 + square)


def unit_vector(turn: float) -> tuple[float, float]:
    """Return a unit vector that goes once around for `turn` in [0, 1), quadrant by quadrant."""
    quadrant = int(4 * turn)
    x, y = rotation(4 * turn - quadrant)
    for _ in range(quadrant):
        x, y = -y, x
    return x, y
