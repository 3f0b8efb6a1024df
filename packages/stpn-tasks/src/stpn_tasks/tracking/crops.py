"""Square crops around a box, and boxes into them and back, pixel for pixel as MixFormer makes them.

Boxes of frames are x, y, width, height in pixels; boxes in a crop are shares of its side. Training
and inference put the centre of a crop in different places, half a pixel of the crop apart: the
released weights were trained with `CropWindow.to_crop` and are tested with `CropWindow.to_frame`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor, from_numpy

from stpn_data.batch import pad_images

Box = tuple[float, float, float, float]
Image = NDArray[np.uint8]
_LARGEST_SQUARE = 8192  # pixels, 200 MB: jittered boxes and 4K frames ask for gigabytes
_LARGEST_SIDE = 2**24  # pixels; far beyond any video, and OpenCV counts in float32 and int32


@dataclass(frozen=True)
class CropWindow:
    """Say which square of a frame is cut out, and how large it becomes.

    Attributes:
        centre: (x, y) of the box that it was placed around; not rounded, so the square, whose
            corner is a whole pixel, lies up to half a pixel beside it.
        left: first column of the square; may lie outside the frame, as all of it may.
        top: first row.
        side: rows and columns of the square in the frame.
        size: rows and columns of the crop.
    """

    centre: tuple[float, float]
    left: int
    top: int
    side: int
    size: int

    @classmethod
    def around(cls, box_xywh: Sequence[float], factor: float, size: int) -> CropWindow:
        """Place the square around a box: `factor` times as long as the box's mean side.

        Args:
            box_xywh: x, y, width, height in pixels of the frame.
            factor: side of the square by the geometric mean of width and height, then rounded up.
            size: rows and columns of the crop.

        Raises:
            ValueError: the box has no area or is not finite, or the square would have a side of
                less than one pixel or more than 2**24.
        """
        x, y, width, height = (float(value) for value in box_xywh)
        if not (width > 0 and height > 0 and all(map(math.isfinite, (x, y, width, height)))):
            raise ValueError(f"a crop needs a box with an area, got {[x, y, width, height]}")
        length = math.sqrt(width * height) * factor  # 0 or infinite where the product leaves floats
        middle = (x + 0.5 * width, y + 0.5 * height)
        if not (0 < length <= _LARGEST_SIDE and all(map(math.isfinite, middle))):
            raise ValueError(
                f"a crop needs a side of 1 to {_LARGEST_SIDE} pixels and a centre: around the box "
                f"{[x, y, width, height]} they are {length:.3g} and {middle}"
            )
        side = math.ceil(length)
        # round() takes halves to the even number, as in the released code.
        left, top = (round(centre - side * 0.5) for centre in middle)
        return cls(middle, left, top, side, size)

    @property
    def scale(self) -> float:
        """Pixels of the crop per pixel of the frame."""
        return self.size / self.side

    def cut(self, frame: Image) -> Image:
        """Return the crop (size, size, 3), black where there is no frame.

        The frame's last row and column count as outside, as in the released code. A square too
        large to be held in memory is sampled instead, which rounds differently.

        Args:
            frame: (H, W, 3) uint8 RGB.
        """
        if self.side > _LARGEST_SQUARE:
            return self._sample(frame)
        (top, bottom), (left, right) = self._inside(frame.shape[0], frame.shape[1])
        square = np.zeros((self.side, self.side, 3), np.uint8)
        square[top - self.top : bottom - self.top, left - self.left : right - self.left] = frame[
            top:bottom, left:right
        ]
        return np.asarray(cv2.resize(square, (self.size, self.size)), np.uint8)

    def padding(self, frame_size: tuple[int, int]) -> NDArray[np.bool_]:
        """Tell which pixels of the crop are not from the frame alone: (size, size) bool.

        Args:
            frame_size: (height, width) of the frame.
        """
        ranges = self._inside(*frame_size)
        rows, columns = (
            self._mixed(start - first, stop - first)
            for (start, stop), first in zip(ranges, (self.top, self.left), strict=True)
        )
        return rows[:, None] | columns

    def to_crop(self, box_xywh: Sequence[float]) -> Box:
        """Map a box of the frame into the crop as training does: to x1, y1, x2, y2.

        The centre of the crop is (size - 1) / 2 there. What sticks out of the crop has
        coordinates outside 0 .. 1.
        """
        x, y, width, height = box_xywh
        centre_x, centre_y = (
            (0.5 * (self.size - 1) + (middle - own) * self.scale) / self.size
            for middle, own in zip((x + 0.5 * width, y + 0.5 * height), self.centre, strict=True)
        )
        half_width, half_height = 0.5 * width / self.side, 0.5 * height / self.side
        return (
            centre_x - half_width,
            centre_y - half_height,
            centre_x + half_width,
            centre_y + half_height,
        )

    def to_frame(self, box_cxcywh: Sequence[float]) -> Box:
        """Map a box cx, cy, w, h in the crop into the frame, as inference does: to x, y, w, h.

        The centre of the crop is size / 2 there.
        """
        centre_x, centre_y, width, height = (value * self.side for value in box_cxcywh)
        left = centre_x + self.centre[0] - 0.5 * self.side - 0.5 * width
        top = centre_y + self.centre[1] - 0.5 * self.side - 0.5 * height
        return left, top, width, height

    def _sample(self, frame: Image) -> Image:
        """Interpolate where `cut` would, without making the square."""
        step = self.side / self.size
        across, down = (0.5 * step - 0.5 + first for first in (self.left, self.top))
        to_source = np.array([[step, 0.0, across], [0.0, step, down]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        inside = np.ascontiguousarray(frame[:-1, :-1])
        if not inside.size:  # of one row or column, which counts as outside
            return np.zeros((self.size, self.size, 3), np.uint8)
        crop = cv2.warpAffine(inside, to_source, (self.size, self.size), flags=flags)
        return np.asarray(crop, np.uint8)

    def _inside(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the rows and the columns, from and to, that the square shares with the frame."""
        rows, columns = (
            (min(max(first, 0), last), min(max(first + self.side, 0), last))
            for first, last in ((self.top, height - 1), (self.left, width - 1))
        )
        return rows, columns

    def _mixed(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Tell which rows (or columns) of the crop take from outside rows start .. stop - 1."""
        outside = np.ones((self.side, 1), np.float32)
        outside[start:stop] = 0.0
        return cv2.resize(outside, (1, self.size)).reshape(-1) > 0


def clip_box(box_xywh: Sequence[float], frame_size: tuple[int, int], margin: int) -> Box:
    """Move and cut a box so that it lies on the frame and has sides of at least `margin` pixels.

    Args:
        box_xywh: x, y, width, height in pixels.
        frame_size: (height, width) of the frame; the margin is at most its sides.
        margin: 10 in the released tracker.
    """
    x, y, w, h = box_xywh
    height, width = frame_size
    left, new_width = _clip_side(x, w, width, min(margin, width))
    top, new_height = _clip_side(y, h, height, min(margin, height))
    return left, top, new_width, new_height


def _clip_side(start: float, length: float, limit: int, margin: int) -> tuple[float, float]:
    stop = min(max(margin, start + length), limit)
    start = min(max(0.0, start), limit - margin)
    return float(start), float(max(margin, stop - start))


def to_input(crops: Sequence[Image]) -> Float32[Tensor, "n 3 S S"]:
    """Normalise crops (S, S, 3) uint8 RGB with ImageNet's mean and deviation: (n, 3, S, S)."""
    return pad_images([from_numpy(crop).permute(2, 0, 1) for crop in crops], size_divisor=1)
