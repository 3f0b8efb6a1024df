"""Several data sets as one, such as the videos of ImageNet VID and the images of DET."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from stpn_data.annotations import DataReport
from stpn_data.videos import DataError, FrameObjects, Video, VideoDataset


class JointVideos:
    """Offer the videos of several data sets with the same classes, one after the other.

    Args:
        parts: the data sets.

    Raises:
        DataError: there are none, their classes differ, or two videos have the same name.
    """

    def __init__(self, parts: Sequence[VideoDataset]) -> None:
        """Join the lists of videos."""
        if not parts:
            raise DataError("no data sets to join")
        self._parts = tuple(parts)
        self.classes: tuple[str, ...] = tuple(parts[0].classes)
        for part in parts[1:]:
            if tuple(part.classes) != self.classes:
                raise DataError(
                    "data sets are joined only where their classes and the order of these are the "
                    f"same: {self.classes} and {tuple(part.classes)}"
                )
        self.videos: Sequence[Video] = [video for part in parts for video in part.videos]
        names = Counter(video.name for video in self.videos)
        if doubled := [name for name, count in names.items() if count > 1]:
            raise DataError(
                f"{len(doubled)} names of videos occur more than once in the joined data sets, "
                f"such as {doubled[0]}"
            )
        self._ends = list(accumulate(len(part.videos) for part in parts))

    def frame(self, video: int, index: int) -> NDArray[np.uint8]:
        """Read frame `index` of video number `video` as (H, W, 3) RGB uint8."""
        part, number = self._place(video)
        return part.frame(number, index)

    def objects(self, video: int, index: int) -> FrameObjects:
        """Return the objects of frame `index` of video number `video`."""
        part, number = self._place(video)
        return part.objects(number, index)

    def conditions(self, video: int, index: int) -> frozenset[str]:
        """Name what is special about a frame."""
        part, number = self._place(video)
        return part.conditions(number, index)

    @property
    def report(self) -> DataReport:
        """What the parts left out so far, together."""
        return DataReport.merged(report_of(part) for part in self._parts)

    def _place(self, video: int) -> tuple[VideoDataset, int]:
        if not 0 <= video < len(self.videos):
            raise IndexError(f"video {video} is not one of {len(self.videos)}")
        part = bisect_right(self._ends, video)
        return self._parts[part], video - (self._ends[part - 1] if part else 0)


def report_of(dataset: VideoDataset) -> DataReport:
    """Return the report of a data set; an empty one of data sets that leave nothing out."""
    report = getattr(dataset, "report", None)
    return report if isinstance(report, DataReport) else DataReport()
