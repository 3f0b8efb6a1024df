"""Transforms of clips: one draw for the current frame, its objects and its support frames.

Every transform is called with a clip and a `torch.Generator` and returns a new clip; the clip
given stays as it was. Sizes and pixels follow the pipelines with which the released weights were
trained (mmdetection: opencv, linear, uint8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from stpn_data.clips import Clip, Transform

# Short sides of the released training; the long side is capped at 1333.
PAPER_SHORT_SIDES = tuple(range(480, 801, 32))


@dataclass(frozen=True)
class Compose:
    """Apply transforms one after the other."""

    transforms: Sequence[Transform]

    def __call__(self, clip: Clip, generator: Generator) -> Clip:
        """Transform a clip; advances `generator`."""
        for transform in self.transforms:
            clip = transform(clip, generator)
        return clip


@dataclass(frozen=True)
class RandomChoice:
    """Apply one of several transforms, all equally likely."""

    transforms: Sequence[Transform]

    def __post_init__(self) -> None:
        """Check that there is a choice.

        Raises:
            ValueError: no transforms.
        """
        if not self.transforms:
            raise ValueError("RandomChoice needs at least one transform")

    def __call__(self, clip: Clip, generator: Generator) -> Clip:
        """Transform a clip; advances `generator`."""
        return self.transforms[_draw(0, len(self.transforms) - 1, generator)](clip, generator)


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Mirror the whole clip left to right with probability p."""

    p: float = 0.5

    def __post_init__(self) -> None:
        """Check the probability.

        Raises:
            ValueError: `p` outside 0 .. 1.
        """
        if not 0 <= self.p <= 1:
            raise ValueError(f"p must be in 0 .. 1, got {self.p}")

    def __call__(self, clip: Clip, generator: Generator) -> Clip:
        """Transform a clip; advances `generator`."""
        if torch.rand((), generator=generator).item() >= self.p:
            return clip
        return replace(
            clip,
            frame=F.horizontal_flip(clip.frame),
            support=tuple(map(F.horizontal_flip, clip.support)),
            boxes=F.horizontal_flip(clip.boxes),
            masks=None if clip.masks is None else F.horizontal_flip(clip.masks),
        )


@dataclass(frozen=True)
class ResizeShortestEdge:
    """Scale all frames so that the short side has one of `sizes`, the long one at most `max_size`.

    The new sides are int(side * scale + 0.5), pixels come from opencv's linear interpolation on
    uint8, and boxes are scaled by the ratio of the rounded sides, as mmdetection does. A pixel of a
    mask is that of the mask given at its centre.

    Args:
        sizes: short sides to draw from, in pixels; the clip draws once.
        max_size: cap of the long side, in pixels.

    Raises:
        ValueError: no sizes, or sizes not in 1 .. `max_size`.
    """

    sizes: tuple[int, ...]
    max_size: int

    def __post_init__(self) -> None:
        """Check the sizes."""
        if not self.sizes or not all(1 <= size <= self.max_size for size in self.sizes):
            raise ValueError(f"sizes must be in 1 .. max_size={self.max_size}, got {self.sizes}")

    def __call__(self, clip: Clip, generator: Generator) -> Clip:
        """Transform a clip; advances `generator`."""
        short = self.sizes[_draw(0, len(self.sizes) - 1, generator)]
        size = resized_size(clip.size, short, self.max_size)
        return replace(
            clip,
            frame=_resize(clip.frame, size),
            support=tuple(
                _resize(image, resized_size(_size_of(image), short, self.max_size))
                for image in clip.support
            ),
            boxes=F.resize(clip.boxes, list(size)),
            masks=None if clip.masks is None else _resize_masks(clip.masks, size),
        )


@dataclass(frozen=True)
class RandomCrop:
    """Cut a random region out of every frame, each with its own size and place.

    Each side of a region is drawn from `min_size` .. `max_size` ("absolute_range"), or less where
    the frame is smaller. Boxes are clipped to the region; those it does not touch remain with no
    area until `SanitizeBoxes` drops them, so a crop may lose every object.

    Args:
        min_size: shortest side of a region in pixels.
        max_size: longest side of a region in pixels.

    Raises:
        ValueError: unless 1 <= `min_size` <= `max_size`.
    """

    min_size: int = 384
    max_size: int = 600

    def __post_init__(self) -> None:
        """Check the sides."""
        if not 1 <= self.min_size <= self.max_size:
            raise ValueError(
                f"need 1 <= min_size <= max_size, got {self.min_size} and {self.max_size}"
            )

    def __call__(self, clip: Clip, generator: Generator) -> Clip:
        """Transform a clip; advances `generator`."""
        region = self._draw_region(clip.frame, generator)
        return replace(
            clip,
            frame=F.crop(clip.frame, *region),
            support=tuple(
                F.crop(image, *self._draw_region(image, generator)) for image in clip.support
            ),
            boxes=F.crop(clip.boxes, *region),
            masks=None if clip.masks is None else F.crop(clip.masks, *region),
        )

    def _draw_region(self, image: Tensor, generator: Generator) -> tuple[int, int, int, int]:
        """Draw top, left, height, width."""
        sides = [
            _draw(min(side, self.min_size), min(side, self.max_size), generator)
            for side in _size_of(image)
        ]
        top, left = (
            _draw(0, whole - side, generator)
            for whole, side in zip(_size_of(image), sides, strict=True)
        )
        return top, left, sides[0], sides[1]


@dataclass(frozen=True)
class PadToLargest:
    """Pad all frames with zeros, at the bottom and the right, to the largest height and width."""

    def __call__(self, clip: Clip, generator: Generator) -> Clip:
        """Transform a clip; draws nothing."""
        sizes = [_size_of(image) for image in (clip.frame, *clip.support)]
        height, width = (max(sides) for sides in zip(*sizes, strict=True))
        padding = [0, 0, width - clip.size[1], height - clip.size[0]]
        return replace(
            clip,
            frame=F.pad(clip.frame, padding),
            support=tuple(
                F.pad(image, [0, 0, width - image.shape[-1], height - image.shape[-2]])
                for image in clip.support
            ),
            boxes=F.pad(clip.boxes, padding),
            masks=None if clip.masks is None else F.pad(clip.masks, padding),
        )


@dataclass(frozen=True)
class SanitizeBoxes:
    """Clip boxes to the frame and drop the objects of which nothing is left.

    An object goes with its label, track id and mask when its box has no area, or when it has a
    mask and the mask is empty.
    """

    def __call__(self, clip: Clip, generator: Generator) -> Clip:
        """Transform a clip; draws nothing."""
        boxes = F.clamp_bounding_boxes(clip.boxes)
        kept = (boxes[:, 2:] > boxes[:, :2]).all(dim=1).as_subclass(Tensor)
        if clip.masks is not None:
            kept = kept & clip.masks.as_subclass(Tensor).flatten(1).any(dim=1)
        return replace(
            clip,
            boxes=tv_tensors.wrap(boxes.as_subclass(Tensor)[kept], like=clip.boxes),
            labels=clip.labels[kept],
            track_ids=clip.track_ids[kept],
            masks=None
            if clip.masks is None
            else tv_tensors.Mask(clip.masks.as_subclass(Tensor)[kept]),
        )


def random_resize_crop() -> Compose:
    """Build the released second policy: resize, crop every frame on its own, pad, resize again."""
    return Compose(
        (
            ResizeShortestEdge((400, 500, 600), 1333),
            RandomCrop(384, 600),
            PadToLargest(),
            ResizeShortestEdge(PAPER_SHORT_SIDES, 1333),
        )
    )


def paper_training_transforms() -> Compose:
    """Build the released training augmentation: flip, then resize or `random_resize_crop`."""
    return Compose(
        (
            RandomHorizontalFlip(0.5),
            RandomChoice((ResizeShortestEdge(PAPER_SHORT_SIDES, 1333), random_resize_crop())),
            SanitizeBoxes(),
        )
    )


def paper_test_transform() -> ResizeShortestEdge:
    """Build the released test preprocessing: short side 600, long side at most 1000."""
    return ResizeShortestEdge((600,), 1000)


def segmentation_training_transforms(short_sides: tuple[int, ...] = (360, 480)) -> Compose:
    """Build MinVIS's training augmentation: one short side for the whole clip, and a flip.

    Objects of which nothing is left go with their boxes, labels and track ids.
    """
    return Compose(
        (ResizeShortestEdge(short_sides, 1333), RandomHorizontalFlip(0.5), SanitizeBoxes())
    )


def resized_size(size: tuple[int, int], short_side: int, max_size: int) -> tuple[int, int]:
    """Return (height, width) for a short side, or less where the long side would pass its cap."""
    scale = min(max_size / max(size), short_side / min(size))
    height, width = (max(1, int(side * scale + 0.5)) for side in size)
    return height, width


def resize_pixels(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize (H, W, 3) uint8 pixels to (height, width) with opencv's linear interpolation."""
    resized = cv2.resize(pixels, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)


def _draw(low: int, high: int, generator: Generator) -> int:
    """Draw a whole number from low .. high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _size_of(image: Tensor) -> tuple[int, int]:
    height, width = image.shape[-2:]
    return height, width


def _resize(image: Tensor, size: tuple[int, int]) -> tv_tensors.Image:
    resized = resize_pixels(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), size)
    return tv_tensors.Image(torch.from_numpy(resized).permute(2, 0, 1))


def _resize_masks(masks: tv_tensors.Mask, size: tuple[int, int]) -> tv_tensors.Mask:
    # torchvision's own resizing of masks looks half a pixel beside the centres that images have.
    pixels = masks.as_subclass(Tensor).view(torch.uint8)
    nearest = InterpolationMode.NEAREST_EXACT
    return tv_tensors.Mask(F.resize(pixels, list(size), interpolation=nearest).view(torch.bool))
