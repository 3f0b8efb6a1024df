"""What every annotated video data set offers: videos, frames, and the objects in each frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Video:
    """Describe one video of a data set.

    Attributes:
        name: name of the video, unique within the data set.
        num_frames: T; frames are numbered 0 .. T - 1.
        height: H of the frames in pixels.
        width: W of the frames in pixels.
        key_frames: frames to train and to evaluate on, ascending.
    """

    name: str
    num_frames: int
    height: int
    width: int
    key_frames: tuple[int, ...]


@dataclass(frozen=True)
class FrameObjects:
    """Hold the annotated objects of one frame.

    Attributes:
        boxes_xyxy: (n, 4) float32, absolute pixels.
        labels: (n,) int64, 0-based index into the classes of the data set.
        track_ids: (n,) int64, the same object has the same id in all frames of its video.
        is_crowd: (n,) bool, a region of uncounted objects: neither to detect nor to punish.
        masks: (n, H, W) bool, or None where the data set has no masks.
    """

    boxes_xyxy: NDArray[np.float32]
    labels: NDArray[np.int64]
    track_ids: NDArray[np.int64]
    is_crowd: NDArray[np.bool_]
    masks: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        """Check that every array describes the same objects.

        Raises:
            ValueError: a wrong shape or dtype, named with what was expected.
        """
        n = len(self.boxes_xyxy)
        _check("boxes_xyxy", self.boxes_xyxy, (n, 4), np.float32)
        _check("labels", self.labels, (n,), np.int64)
        _check("track_ids", self.track_ids, (n,), np.int64)
        _check("is_crowd", self.is_crowd, (n,), np.bool_)
        if self.masks is not None:
            _check("masks", self.masks, (n, *self.masks.shape[1:3]), np.bool_)
            if self.masks.ndim != 3:
                raise ValueError(f"masks must be (n, H, W), got {self.masks.shape}")

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.boxes_xyxy)


@runtime_checkable
class VideoDataset(Protocol):
    """Offer annotated videos; what `ClipDataset` and evaluation read."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        ...

    @property
    def videos(self) -> Sequence[Video]:
        """All videos, in a fixed order."""
        ...

    def frame(self, video: int, index: int) -> NDArray[np.uint8]:
        """Read frame `index` of video number `video` as (H, W, 3) RGB uint8."""
        ...

    def objects(self, video: int, index: int) -> FrameObjects:
        """Return the objects of frame `index` of video number `video`."""
        ...

    def conditions(self, video: int, index: int) -> frozenset[str]:
        """Name what is special about a frame, such as {"deteriorated", "fast"}; may be empty."""
        ...


class DataError(ValueError):
    """A file or a field of a data set that cannot be used; the message names both."""


def _check(name: str, array: NDArray[np.generic], shape: tuple[int, ...], dtype: type) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(
            f"{name} must be {np.dtype(dtype)} of shape {shape}, got {array.dtype} {array.shape}"
        )
