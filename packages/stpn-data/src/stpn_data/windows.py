"""Pieces of videos, such as those without a clean frame: what segmentation is also scored on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stpn_data.videos import FrameObjects, Video, VideoDataset


def windows_without_clean_frame(dataset: VideoDataset, length: int = 4) -> list[tuple[int, int]]:
    """Find the windows of consecutive frames that are all deteriorated.

    Over a whole video, averages over frames know the class from the clean ones; in these windows
    only support frames from elsewhere can tell it. The choice looks at no prediction: in every
    video, windows are taken from the first frame on, as early as possible and without overlap.

    Args:
        dataset: whose `conditions` name "deteriorated" frames; others have no such windows.
        length: frames of a window.

    Returns:
        (video, first frame) of every window, in order.

    Raises:
        ValueError: `length` below 1.
    """
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    windows = []
    for number, video in enumerate(dataset.videos):
        run = 0
        for index in range(video.num_frames):
            run = run + 1 if "deteriorated" in dataset.conditions(number, index) else 0
            if run == length:
                windows.append((number, index - length + 1))
                run = 0
    return windows


class VideoWindows:
    """Offer windows of the videos of a data set as videos of their own: the truth to score with.

    Support frames for them may come from the whole videos, so predict on those and cut the
    predictions. Window i is video i; the name of its video is followed by its first frame.

    Args:
        dataset: the annotated videos.
        windows: (video, first frame) of every window, none twice.
        length: frames of every window.

    Raises:
        ValueError: a window occurs twice or is not in its video.
    """

    def __init__(
        self, dataset: VideoDataset, windows: Sequence[tuple[int, int]], length: int = 4
    ) -> None:
        """Cut the videos."""
        if len(set(windows)) != len(windows):
            raise ValueError("a window occurs twice")
        self._dataset, self._windows, self._length = dataset, tuple(windows), length
        self.classes: tuple[str, ...] = tuple(dataset.classes)
        self.videos: Sequence[Video] = [self._cut(*window) for window in windows]

    def frame(self, video: int, index: int) -> NDArray[np.uint8]:
        """Read frame `index` of window number `video` as (H, W, 3) RGB uint8."""
        return self._dataset.frame(*self._place(video, index))

    def objects(self, video: int, index: int) -> FrameObjects:
        """Return the objects of frame `index` of window number `video`."""
        return self._dataset.objects(*self._place(video, index))

    def conditions(self, video: int, index: int) -> frozenset[str]:
        """Name what is special about a frame."""
        return self._dataset.conditions(*self._place(video, index))

    def _cut(self, number: int, first: int) -> Video:
        video = self._dataset.videos[number]
        frames = range(first, first + self._length)
        if not 0 <= first <= video.num_frames - self._length:
            raise ValueError(
                f"frames {first} .. {frames[-1]} are not in {video.name} of "
                f"{video.num_frames} frames"
            )
        keys = tuple(index - first for index in video.key_frames if index in frames)
        return Video(f"{video.name}/{first}", self._length, video.height, video.width, keys)

    def _place(self, video: int, index: int) -> tuple[int, int]:
        if not 0 <= index < self._length:
            raise IndexError(f"frame {index} is not in a window of {self._length} frames")
        number, first = self._windows[video]
        return number, first + index
