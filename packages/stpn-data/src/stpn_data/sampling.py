"""Which frames of a video support the current frame t.

The paper uses K for several counts (its section 3: all support frames; its experiments: frames on
each side), so every sampler here says what it counts. Each returns the same number of frames for
every t: where the video has no more frames, the outermost one is repeated, and a video of one
frame supports itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from random import Random
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class WindowSampler:
    """Take frames on both sides of t: t - jS and t + jS for j = 1 .. per_side.

    This is the window of the paper's experiments, which count per side: its "K = 7" with "15
    surrounding support frames" is ``per_side=7, include_current=True``. Here K =
    2 * per_side (+ 1 with `include_current`).

    Args:
        per_side: frames before t, and again as many after it.
        stride: S, distance between neighbouring support frames.
        include_current: add t itself.
        on_grid: take the nearest multiples of the stride strictly before and strictly after t
            instead of t ± jS, so that only every S-th frame of a stream is ever embedded.

    Raises:
        ValueError: `per_side` or `stride` below 1.
    """

    per_side: int = 7
    stride: int = 8
    include_current: bool = False
    on_grid: bool = False

    def __post_init__(self) -> None:
        """Check the counts."""
        _at_least("per_side", self.per_side, 1)
        _at_least("stride", self.stride, 1)

    def __call__(self, frame: int, length: int | None) -> list[int]:
        """Return the K support frames of `frame`, ascending.

        Args:
            frame: t, the current frame.
            length: frames in the video; None while it is not known, then nothing clamps the
                frames after t.
        """
        _check_frame(frame, length)
        steps = range(self.per_side)
        if self.on_grid:
            before = (frame - 1) // self.stride * self.stride
            after = (frame // self.stride + 1) * self.stride
        else:
            before, after = frame - self.stride, frame + self.stride
        past = [max(0, before - j * self.stride) for j in steps]
        future = [after + j * self.stride for j in steps]
        if length is not None:
            last = length - 1
            if self.on_grid:
                last -= last % self.stride
            future = [min(last, index) for index in future]
        return sorted(past + [frame] * self.include_current + future)

    @property
    def num_frames(self) -> int:
        """K, the number of support frames of every frame."""
        return 2 * self.per_side + self.include_current

    @property
    def past(self) -> int:
        """How many frames before t a support frame can lie."""
        return self.per_side * self.stride

    @property
    def future(self) -> int:
        """How many frames after t a support frame can lie: the delay of a stream."""
        return self.per_side * self.stride

    def embeds(self, frame: int) -> bool:
        """Tell whether `frame` can be a support frame of any frame."""
        return not self.on_grid or self.include_current or frame % self.stride == 0


@dataclass(frozen=True)
class CausalSampler:
    """Take the latest multiples of the stride strictly before t: for streams and tracking.

    Early frames repeat frame 0, and frame 0 supports itself. K = num_frames.

    Args:
        num_frames: K, the number of past frames.
        stride: S, distance between neighbouring support frames.

    Raises:
        ValueError: `num_frames` or `stride` below 1.
    """

    num_frames: int = 7
    stride: int = 8

    def __post_init__(self) -> None:
        """Check the counts."""
        _at_least("num_frames", self.num_frames, 1)
        _at_least("stride", self.stride, 1)

    def __call__(self, frame: int, length: int | None) -> list[int]:
        """Return the K support frames of `frame`, ascending; `length` may be None (not known)."""
        _check_frame(frame, length)
        latest = (frame - 1) // self.stride * self.stride
        return sorted(max(0, latest - j * self.stride) for j in range(self.num_frames))

    @property
    def past(self) -> int:
        """How many frames before t a support frame can lie."""
        return self.num_frames * self.stride

    @property
    def future(self) -> int:
        """How many frames after t a support frame can lie: none."""
        return 0

    def embeds(self, frame: int) -> bool:
        """Tell whether `frame` can be a support frame of any frame."""
        return frame % self.stride == 0


@dataclass(frozen=True)
class VideoUniformSampler:
    """Spread the support frames evenly over the whole video, the same for all its frames.

    The released test protocol (`test_with_adaptive_stride`), whose prompts are predicted once per
    video. It sees the future, so it cannot stream; short videos repeat frames. K = num_frames.

    Args:
        num_frames: K, the number of frames, the first and the last of the video among them.

    Raises:
        ValueError: `num_frames` below 2.
    """

    num_frames: int = 14

    def __post_init__(self) -> None:
        """Check the count."""
        _at_least("num_frames", self.num_frames, 2)

    def __call__(self, frame: int, length: int | None) -> list[int]:
        """Return the K support frames of the video, ascending.

        Raises:
            ValueError: `length` is None.
        """
        if length is None:
            raise ValueError(
                "VideoUniformSampler cannot stream: it needs the length of the video; "
                "use CausalSampler or WindowSampler"
            )
        _check_frame(frame, length)
        step = (length - 1) / (self.num_frames - 1)
        return [round(i * step) for i in range(self.num_frames)]


@runtime_checkable
class SupportSampler(Protocol):
    """Choose the support frames of a frame; what the samplers that draw nothing are."""

    def __call__(self, frame: int, length: int | None) -> list[int]:
        """Return the support frames of `frame` in a video of `length` frames, ascending."""
        ...


class RandomSampler(ABC):
    """Draw support frames; base of the samplers that training gives a random generator."""

    @abstractmethod
    def __call__(self, frame: int, length: int, random: Random) -> list[int]:
        """Draw the support frames of `frame` in a video of `length` frames, ascending."""


@dataclass(frozen=True)
class BilateralRandomSampler(RandomSampler):
    """Draw frames near t, half of them before and half after it: for training.

    The released training protocol (`bilateral_uniform` without the key frame). A side with fewer
    frames gives what it has, and the first frame drawn fills the list up. K = num_frames.

    Args:
        frame_range: frames to draw from on each side.
        num_frames: K, even: the frames drawn in all.

    Raises:
        ValueError: a count below 1, or an odd `num_frames`.
    """

    frame_range: int = 9
    num_frames: int = 2

    def __post_init__(self) -> None:
        """Check the counts."""
        _at_least("frame_range", self.frame_range, 1)
        _at_least("num_frames", self.num_frames, 2)
        if self.num_frames % 2:
            raise ValueError(f"num_frames must be even (half a side), got {self.num_frames}")

    def __call__(self, frame: int, length: int, random: Random) -> list[int]:
        """Draw the K support frames of `frame`, ascending; advances `random`."""
        _check_frame(frame, length)
        before = range(max(0, frame - self.frame_range), frame)
        after = range(frame + 1, min(length, frame + self.frame_range + 1))
        drawn: list[int] = []
        for side in (before, after):
            drawn += random.sample(side, min(self.num_frames // 2, len(side)))
        filler = drawn[0] if drawn else frame
        return sorted(drawn + [filler] * (self.num_frames - len(drawn)))


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def _check_frame(frame: int, length: int | None) -> None:
    if frame < 0 or (length is not None and frame >= length):
        raise ValueError(f"frame {frame} is not in a video of {length} frames")
