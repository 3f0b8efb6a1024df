"""One sample of training or evaluation: the current frame, its objects, its support frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from stpn_data.sampling import RandomSampler, SupportSampler
from stpn_data.videos import VideoDataset


@dataclass(frozen=True)
class Clip:
    """Hold one current frame with its support frames and objects; pixels are uint8 RGB.

    Attributes:
        frame: (3, H, W), the current frame.
        support: K support frames, each (3, H', W').
        boxes: (n, 4) XYXY float32, absolute pixels of `frame`.
        labels: (n,) int64, 0-based.
        track_ids: (n,) int64.
        masks: (n, H, W) bool, or None where the data set has none.
        video: number of the video in the data set.
        index: number of the current frame in the video.
        original_size: (height, width) of the frame as the data set stores it.
    """

    frame: tv_tensors.Image
    support: tuple[tv_tensors.Image, ...]
    boxes: tv_tensors.BoundingBoxes
    labels: Tensor
    track_ids: Tensor
    masks: tv_tensors.Mask | None
    video: int
    index: int
    original_size: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the current frame as it is now."""
        height, width = self.frame.shape[-2:]
        return height, width

    @property
    def support_sizes(self) -> list[tuple[int, int]]:
        """(height, width) of each support frame as it is now."""
        return [(image.shape[-2], image.shape[-1]) for image in self.support]


Transform = Callable[[Clip, torch.Generator], Clip]


class ClipDataset(Dataset[Clip]):
    """Offer the key frames of all videos as clips, one after the other.

    Everything random about clip i is a function of (seed, epoch, i) alone: neither the order of
    reading nor the number of workers changes it. Crowd regions are left out of the objects.

    Args:
        dataset: the annotated videos.
        sampler: chooses the support frames; None for clips without any.
        transform: applied to every clip, such as `paper_training_transforms()`.
        seed: seed of the draws of sampler and transform.
        support_video: whose frames support: the video's "own", or those of an "other" video,
            drawn anew for every clip: a control, from which nothing can be learned.

    Raises:
        ValueError: support frames of another video are asked for and there is only one.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        sampler: SupportSampler | RandomSampler | None = None,
        transform: Transform | None = None,
        seed: int = 0,
        support_video: Literal["own", "other"] = "own",
    ) -> None:
        """Index the key frames."""
        if support_video == "other" and len(dataset.videos) < 2:
            raise ValueError("support frames of another video need at least two videos")
        self.dataset = dataset
        self.support_video = support_video
        self.sampler = sampler
        self.transform = transform
        self.seed = seed
        self.places = [
            (number, index)
            for number, video in enumerate(dataset.videos)
            for index in video.key_frames
        ]
        # In shared memory, so that workers that outlive an epoch see the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose the draws of an epoch; call it before the epoch's loader is iterated."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        """Return the number of key frames."""
        return len(self.places)

    def __getitem__(self, i: int) -> Clip:
        """Read, sample and transform clip i.

        Raises:
            IndexError: i is not in 0 .. len - 1.
            DataError: a frame or an annotation cannot be used.
        """
        if not 0 <= i < len(self):
            raise IndexError(f"clip {i} is not one of {len(self)}")
        video, index = self.places[i]
        random = Random(f"{self.seed}/{int(self._epoch)}/{i}")
        # Drawn first, so that clips with and without support frames are transformed alike.
        generator = torch.Generator().manual_seed(random.getrandbits(63))
        clip = self._read(video, index, self._support(video, index, random))
        return clip if self.transform is None else self.transform(clip, generator)

    def _support(self, video: int, index: int, random: Random) -> list[tuple[int, int]]:
        """Return the places, video and frame, of the support frames of a frame."""
        if self.sampler is None:
            return []
        if self.support_video == "other":
            video = (video + random.randrange(1, len(self.dataset.videos))) % len(
                self.dataset.videos
            )
            index = min(index, self.dataset.videos[video].num_frames - 1)
        length = self.dataset.videos[video].num_frames
        if isinstance(self.sampler, RandomSampler):
            frames = self.sampler(index, length, random)
        else:
            frames = self.sampler(index, length)
        return [(video, frame) for frame in frames]

    def _read(self, video: int, index: int, support: list[tuple[int, int]]) -> Clip:
        places = dict.fromkeys([(video, index), *support])
        images = {place: _image(self.dataset.frame(*place)) for place in places}
        frame = images[video, index]
        height, width = frame.shape[-2:]
        objects = self.dataset.objects(video, index)
        kept = ~objects.is_crowd
        return Clip(
            frame=frame,
            support=tuple(images[place] for place in support),
            boxes=tv_tensors.BoundingBoxes(
                torch.from_numpy(objects.boxes_xyxy[kept]),
                format="XYXY",
                canvas_size=(height, width),
            ),
            labels=torch.from_numpy(objects.labels[kept]),
            track_ids=torch.from_numpy(objects.track_ids[kept]),
            masks=None
            if objects.masks is None
            else tv_tensors.Mask(torch.from_numpy(objects.masks[kept])),
            video=video,
            index=index,
            original_size=(height, width),
        )


def _image(pixels: NDArray[np.uint8]) -> tv_tensors.Image:
    # Own memory: a data set may hand out read-only views of its cache.
    return tv_tensors.Image(torch.from_numpy(np.array(pixels)).permute(2, 0, 1))
