"""Choose among the key frames of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stpn_data.annotations import DataReport
from stpn_data.joint import report_of
from stpn_data.videos import DataError, FrameObjects, Video, VideoDataset

MIN_SIDE = 32


class KeyFramesWithObjects:
    """Leave out key frames that the released code does not train on.

    Those are frames without a usable object, and those of videos with a side below 32 pixels
    (1,773 of the 57,834 key frames of ImageNet VID and 18 of the 53,639 images of DET, says its
    log). Without this, they are trained on as background. They stay in their videos and support
    other frames.

    Opening reads the annotations of all key frames.

    Args:
        dataset: the annotated videos.

    Raises:
        DataError: a field is missing or wrong, or no key frame is left.
    """

    def __init__(self, dataset: VideoDataset) -> None:
        """Read the objects of all key frames."""
        self._dataset = dataset
        self._report = DataReport()
        self.classes: tuple[str, ...] = tuple(dataset.classes)
        self.videos: Sequence[Video] = [
            replace(video, key_frames=self._kept(number, video))
            for number, video in enumerate(dataset.videos)
        ]
        if not any(video.key_frames for video in self.videos):
            raise DataError("no key frame has objects, so there is nothing to train on")

    def frame(self, video: int, index: int) -> NDArray[np.uint8]:
        """Read frame `index` of video number `video` as (H, W, 3) RGB uint8."""
        return self._dataset.frame(video, index)

    def objects(self, video: int, index: int) -> FrameObjects:
        """Return the objects of frame `index` of video number `video`."""
        return self._dataset.objects(video, index)

    def conditions(self, video: int, index: int) -> frozenset[str]:
        """Name what is special about a frame."""
        return self._dataset.conditions(video, index)

    @property
    def report(self) -> DataReport:
        """What the data set left out so far, and the key frames left out here."""
        return DataReport.merged((report_of(self._dataset), self._report))

    def _kept(self, number: int, video: Video) -> tuple[int, ...]:
        if min(video.height, video.width) < MIN_SIDE:
            reason = f"video with a side below {MIN_SIDE} pixels, not for training"
            self._report.add(reason, video.name)
            return ()
        kept = []
        for index in video.key_frames:
            if len(self._dataset.objects(number, index)):
                kept.append(index)
            else:
                place = f"{video.name} frame {index}"
                self._report.add("key frame without objects, not for training", place)
        return tuple(kept)
