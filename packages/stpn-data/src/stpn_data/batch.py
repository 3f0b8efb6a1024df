"""Stack clips into the tensors that a network takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from stpn_data.clips import Clip

# ImageNet's mean and standard deviation of RGB values in 0 .. 1.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class BoxTargets:
    """Hold the objects that a detector or a segmenter should find in one frame.

    Attributes:
        boxes_xyxy: (n, 4) float32, pixels of the unpadded network input.
        labels: (n,) int64, 0-based.
        masks: (n, H, W) bool on the padded network input, or None where they are not asked for.
    """

    boxes_xyxy: Float32[Tensor, "n 4"]
    labels: Int64[Tensor, " n"]
    masks: Bool[Tensor, "n H W"] | None = None

    def to(self, device: torch.device | str) -> BoxTargets:
        """Return the targets on a device."""
        return BoxTargets(
            self.boxes_xyxy.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
            None if self.masks is None else self.masks.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class ClipBatch:
    """Hold B clips, normalised and padded with zeros at the bottom and the right.

    Attributes:
        frames: (B, 3, H, W) float32, the current frames.
        support: (B, K, 3, H', W') float32, or None where clips have no support frames.
        image_sizes: (height, width) of every current frame without its padding.
        support_sizes: the same of the K support frames of every clip.
        targets: the objects of every clip.
        videos: number of the video of every clip.
        indices: number of every current frame in its video.
        original_sizes: (height, width) of every current frame as the data set stores it.
    """

    frames: Float32[Tensor, "B 3 H W"]
    support: Float32[Tensor, "B K 3 H_support W_support"] | None
    image_sizes: list[tuple[int, int]]
    support_sizes: list[list[tuple[int, int]]]
    targets: list[BoxTargets]
    videos: list[int]
    indices: list[int]
    original_sizes: list[tuple[int, int]]

    def __len__(self) -> int:
        """Return B."""
        return len(self.frames)

    def to(self, device: torch.device | str) -> ClipBatch:
        """Return the batch with its tensors on a device."""
        return replace(
            self,
            frames=self.frames.to(device, non_blocking=True),
            support=None if self.support is None else self.support.to(device, non_blocking=True),
            targets=[targets.to(device) for targets in self.targets],
        )

    def pin_memory(self) -> ClipBatch:
        """Return the batch in pinned memory; called by a loader with ``pin_memory=True``."""
        return replace(
            self,
            frames=self.frames.pin_memory(),
            support=None if self.support is None else self.support.pin_memory(),
        )


def collate(
    clips: Sequence[Clip], size_divisor: int = 32, *, with_masks: bool = False
) -> ClipBatch:
    """Normalise, pad and stack clips; the `collate_fn` of a loader of clips.

    Args:
        clips: B clips with the same number K of support frames.
        size_divisor: heights and widths are padded to multiples of it (16 in the released code).
        with_masks: give the targets their masks, padded as the frames.

    Raises:
        ValueError: no clips, clips with different K, `size_divisor` below 1, or masks are asked
            for and a clip has none.
    """
    if not clips:
        raise ValueError("a batch needs at least one clip")
    if size_divisor < 1:
        raise ValueError(f"size_divisor must be at least 1, got {size_divisor}")
    counts = [len(clip.support) for clip in clips]
    if len(set(counts)) > 1:
        raise ValueError(f"all clips of a batch need as many support frames, got {counts}")
    frames = pad_images([clip.frame for clip in clips], size_divisor)
    support = None
    if counts[0]:
        support = pad_images([image for clip in clips for image in clip.support], size_divisor)
        support = support.reshape(len(clips), -1, *support.shape[1:])  # (B, K, 3, H', W')
    return ClipBatch(
        frames=frames,
        support=support,
        image_sizes=[clip.size for clip in clips],
        support_sizes=[clip.support_sizes for clip in clips],
        targets=[
            BoxTargets(
                clip.boxes.as_subclass(Tensor),
                clip.labels,
                _padded_masks(clip, frames.shape[-2:]) if with_masks else None,
            )
            for clip in clips
        ],
        videos=[clip.video for clip in clips],
        indices=[clip.index for clip in clips],
        original_sizes=[clip.original_size for clip in clips],
    )


def pad_images(
    images: Sequence[UInt8[Tensor, "3 _ _"]], size_divisor: int = 32
) -> Float32[Tensor, "N 3 H W"]:
    """Normalise (3, H, W) uint8 images and pad them with zeros to one (N, 3, H, W) float32.

    Args:
        images: N RGB images of any sizes.
        size_divisor: height and width are padded to a multiple of it.

    Raises:
        ValueError: an image that is not (3, H, W) uint8.
    """
    for image in images:
        if image.ndim != 3 or image.shape[0] != 3 or image.dtype != torch.uint8:
            raise ValueError(
                f"expected images (3, H, W) uint8, got {tuple(image.shape)} {image.dtype}"
            )
    height, width = (max(image.shape[axis] for image in images) for axis in (-2, -1))
    padded = torch.zeros(
        len(images), 3, height + -height % size_divisor, width + -width % size_divisor
    )
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    for target, image in zip(padded, images, strict=True):
        pixels = image.as_subclass(Tensor).float() / 255
        target[:, : image.shape[-2], : image.shape[-1]] = (pixels - mean) / std
    return padded


def _padded_masks(clip: Clip, size: Sequence[int]) -> Bool[Tensor, "n H W"]:
    """Return the masks of a clip, padded to (height, width) at the bottom and the right."""
    if clip.masks is None:
        raise ValueError(f"frame {clip.index} of video {clip.video} comes without masks")
    height, width = clip.size
    return F.pad(clip.masks.as_subclass(Tensor), (0, size[1] - width, 0, size[0] - height))
