"""Single objects cut out of frames: what a backbone learns the textures from."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from stpn_data.videos import VideoDataset


class ObjectCrops(Dataset[tuple[Tensor, int]]):
    """Offer every object of a video data set as a square crop with its label.

    The square is as wide as the longer side of the box and shares its centre, but moves to stay
    inside the frame; only an object longer than the frame is high or wide is stretched.

    Args:
        dataset: where the objects come from.
        size: side of the resized crops in pixels.
        only: take only frames with this condition; None for all frames.
        min_side: leave out boxes with a shorter side than this, in pixels.

    Raises:
        ValueError: no object is left.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        *,
        size: int = 48,
        only: str | None = "clean",
        min_side: float = 12.0,
    ) -> None:
        self.dataset = dataset
        self.size = size
        crops: list[tuple[int, int, tuple[int, int, int, int], int]] = []
        for i, video in enumerate(dataset.videos):
            for t in video.key_frames:
                if only is not None and only not in dataset.conditions(i, t):
                    continue
                objects = dataset.objects(i, t)
                for box, label in zip(objects.boxes_xyxy, objects.labels, strict=True):
                    if min(box[2] - box[0], box[3] - box[1]) >= min_side:
                        square = _square(box, video.height, video.width)
                        crops.append((i, t, square, int(label)))
        if not crops:
            raise ValueError(f"no object of {min_side} pixels in a frame with condition {only!r}")
        self._crops = crops

    def __len__(self) -> int:
        """Return the number of crops."""
        return len(self._crops)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return a crop, (3, size, size) uint8 RGB, and its label."""
        video, t, (left, top, right, bottom), label = self._crops[index]
        crop = self.dataset.frame(video, t)[top:bottom, left:right]
        shrinks = self.size < min(crop.shape[:2])
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        resized = cv2.resize(crop, (self.size, self.size), interpolation=interpolation)
        return torch.from_numpy(resized).permute(2, 0, 1).contiguous(), label


def _square(box: NDArray[np.float32], height: int, width: int) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of the square around a box, moved into the frame."""
    left, top, right, bottom = (float(edge) for edge in box)
    side = max(round(max(right - left, bottom - top)), 1)
    x = round((left + right - side) / 2)
    y = round((top + bottom - side) / 2)
    x, y = max(min(x, width - side), 0), max(min(y, height - side), 0)
    return x, y, min(x + side, width), min(y + side, height)
