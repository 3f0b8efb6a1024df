"""A data set of videos from any layout: frames and usable objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stpn_data.annotations import DataReport, frame_objects
from stpn_data.images import read_image
from stpn_data.layout import Layout
from stpn_data.videos import DataError, FrameObjects, Video


class AnnotatedVideos:
    """Read frames and objects of a layout; satisfies `VideoDataset`.

    Attributes:
        classes: names of the classes, in the order of the labels.
        report: what was left out so far, counted. `check` completes it.

    Args:
        layout: an opened layout.
        classes: names of the classes, in the order of its labels.
        report: that of the layout.
        with_masks: its objects have masks.
    """

    classes: tuple[str, ...]

    def __init__(
        self,
        layout: Layout,
        classes: tuple[str, ...],
        report: DataReport,
        *,
        with_masks: bool = False,
    ) -> None:
        """Wrap an opened layout."""
        self._layout, self._with_masks = layout, with_masks
        self.classes = classes
        self.report = report

    @property
    def videos(self) -> Sequence[Video]:
        """All videos, in the order of the list."""
        return self._layout.videos

    def frame(self, video: int, index: int) -> NDArray[np.uint8]:
        """Read a frame as (H, W, 3) uint8 RGB.

        Raises:
            IndexError: the video has no such frame.
            DataError: the file is missing or damaged, or its size is not the annotated one.
        """
        self._check_index(video, index)
        path, size = self._layout.image_path(video, index), self._layout.image_size(video, index)
        pixels = read_image(path)
        if pixels.shape[:2] != size:
            raise DataError(
                f"{path}: the image is {pixels.shape[1]}x{pixels.shape[0]}, "
                f"its annotations are for {size[1]}x{size[0]}"
            )
        return pixels

    def objects(self, video: int, index: int) -> FrameObjects:
        """Return the usable objects of a frame; the others are counted in `report`.

        Raises:
            IndexError: the video has no such frame.
            DataError: there are no annotations, or a field is missing or wrong.
        """
        self._check_index(video, index)
        return frame_objects(
            self._layout.boxes(video, index),
            self._layout.image_size(video, index),
            f"{self.videos[video].name} frame {index}",
            self.report,
            with_masks=self._with_masks,
        )

    def conditions(self, video: int, index: int) -> frozenset[str]:
        """Name the conditions of a frame: none are annotated."""
        return frozenset()

    def check(self) -> DataReport:
        """Read the annotations of every frame, not the images, and return the full report.

        Raises:
            DataError: the first field that is missing or wrong.
        """
        for number, video in enumerate(self.videos):
            for index in range(video.num_frames):
                self.objects(number, index)
        return self.report

    def _check_index(self, video: int, index: int) -> None:
        if not 0 <= video < len(self.videos):
            raise IndexError(f"video {video} is not one of {len(self.videos)}")
        if not 0 <= index < self.videos[video].num_frames:
            raise IndexError(
                f"frame {index} is not in {self.videos[video].name} of "
                f"{self.videos[video].num_frames} frames"
            )
