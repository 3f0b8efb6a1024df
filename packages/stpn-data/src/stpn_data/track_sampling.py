"""Which frames of a sequence train a tracker: two templates and the frame in which to search.

The samplers are those of MixFormer (Cui et al., CVPR 2022): `CausalTrackSampler` for boxes,
`TridentTrackSampler` for the score of a box, with negatives. Both take the target of a template to
be visible in the search frame unless the sample is a negative.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_GAP_STEP = 5


@dataclass(frozen=True)
class DrawnFrames:
    """Say which frames of one sequence a sampler drew.

    Attributes:
        template: the frame of the first template.
        online_template: the frame of the second one, which a tracker updates.
        search: the frame to search in; None for a negative that has to come from elsewhere, since
            the target is visible in all frames of the sequence.
        is_positive: the target is to be found in the search frame.
    """

    template: int
    online_template: int
    search: int | None
    is_positive: bool


class TrackSampler(Protocol):
    """Draw the frames of a sample; what the samplers here are."""

    def __call__(self, visible: NDArray[np.bool_], random: Random) -> DrawnFrames:
        """Draw from a sequence whose target is visible as told, (T,) bool; advances `random`."""
        ...


@dataclass(frozen=True)
class CausalTrackSampler:
    """Draw templates first and the search frame after them: MixFormer's first stage.

    The template is a visible frame b, neither the first nor the last. The online template is one
    of the `max_gap` frames before b, so it is the earlier one, and the search frame one of the
    ``max_gap - 1`` frames after b; both are visible. Where there is none, the draw is repeated
    with a gap that is 5 frames longer each time.

    Args:
        max_gap: frames to draw from before and after the template.

    Raises:
        ValueError: `max_gap` below 1.
    """

    max_gap: int = 200

    def __post_init__(self) -> None:
        """Check the gap."""
        _check_gap(self.max_gap)

    def __call__(self, visible: NDArray[np.bool_], random: Random) -> DrawnFrames:
        """Draw the frames of a positive sample; advances `random`.

        Args:
            visible: (T,) bool, where the target is visible.
            random: source of the draws.

        Raises:
            ValueError: fewer than three visible frames.
        """
        if visible.sum() < 3:
            raise ValueError("a causal sample needs three visible frames")
        gap = self.max_gap
        while True:
            base = _draw(visible, 1, len(visible) - 1, random)
            if base is not None:
                before = _draw(visible, base - gap, base, random)
                after = None if before is None else _draw(visible, base + 1, base + gap, random)
                if before is not None and after is not None:
                    return DrawnFrames(base, before, after, is_positive=True)
            gap += _GAP_STEP


@dataclass(frozen=True)
class TridentTrackSampler:
    """Draw template and search frame in any order, and negatives: MixFormer's second stage.

    Template and search frame are visible frames of the whole sequence. The online template is one
    of the `max_gap` frames on the template's side of the search frame, visible or not. A negative
    takes, with the same templates, a frame in which the target is not visible, or of another
    sequence if there is none.

    Args:
        max_gap: frames between online template and search frame, at most.
        positive_share: share of the samples with the target in the search frame.

    Raises:
        ValueError: `max_gap` below 1, or a share outside 0 .. 1.
    """

    max_gap: int = 200
    positive_share: float = 0.5

    def __post_init__(self) -> None:
        """Check gap and share."""
        _check_gap(self.max_gap)
        if not 0 <= self.positive_share <= 1:
            raise ValueError(f"positive_share must be in 0 .. 1, got {self.positive_share}")

    def __call__(self, visible: NDArray[np.bool_], random: Random) -> DrawnFrames:
        """Draw the frames of a sample; advances `random`.

        Args:
            visible: (T,) bool, where the target is visible.
            random: source of the draws.

        Raises:
            ValueError: the target is visible in no frame.
        """
        candidates = np.flatnonzero(visible).tolist()
        if not candidates:
            raise ValueError("a trident sample needs a visible frame")
        count = len(visible)
        template, search = random.choice(candidates), random.choice(candidates)
        first = search if template >= search else search - self.max_gap
        online = random.randrange(max(first, 0), min(first + self.max_gap, count))
        if random.random() < self.positive_share:
            return DrawnFrames(template, online, search, is_positive=True)
        return DrawnFrames(template, online, _draw(~visible, 0, count, random), is_positive=False)


def _draw(allowed: NDArray[np.bool_], start: int, stop: int, random: Random) -> int | None:
    """Draw one of the allowed frames in start .. stop - 1, cut at the ends; None without any."""
    start = max(start, 0)
    frames = np.flatnonzero(allowed[start : max(stop, start)]) + start
    return int(frames[random.randrange(len(frames))]) if len(frames) else None


def _check_gap(max_gap: int) -> None:
    if max_gap < 1:
        raise ValueError(f"max_gap must be at least 1, got {max_gap}")
