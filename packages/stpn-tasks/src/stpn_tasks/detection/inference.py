"""Detection in whole videos: streamed, or with prompts predicted once per video."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stpn_core import Sampler, SupportFrame
from stpn_data.batch import pad_images
from stpn_data.sampling import VideoUniformSampler
from stpn_data.transforms import resize_pixels, resized_size
from stpn_data.videos import VideoDataset
from stpn_tasks.detection.detections import Detections
from stpn_tasks.detection.detector import VideoDetector

Frame = NDArray[np.uint8]
TestSampler = Sampler | VideoUniformSampler | None


@dataclass(frozen=True)
class FramePreparation:
    """Turn raw frames into what a detector takes, as the paper tests.

    Attributes:
        size: short side in pixels after resizing.
        max_size: longest long side.
        size_divisor: the batch is padded to multiples of it.
        device: where the batch goes.
    """

    size: int = 600
    max_size: int = 1000
    size_divisor: int = 16
    device: torch.device = torch.device("cpu")

    def __call__(self, frames: Sequence[Frame]) -> Tensor:
        """Return frames ``(H, W, 3)`` uint8 RGB of one size as a batch ``(B, 3, H', W')``."""
        size = self.resized_size(frames[0])
        resized = (torch.from_numpy(resize_pixels(frame, size)) for frame in frames)
        images = [pixels.permute(2, 0, 1) for pixels in resized]
        return pad_images(images, self.size_divisor).to(self.device)

    def resized_size(self, frame: Frame) -> tuple[int, int]:
        """Return height and width of a frame after resizing, without padding."""
        return resized_size((frame.shape[0], frame.shape[1]), self.size, self.max_size)


@dataclass(frozen=True)
class VideoInference:
    """Run a detector over videos; B videos of one size and length go in lock-step.

    Attributes:
        detector: in eval mode.
        sampler: support frames of each frame; ``None`` detects without them: without prompts, or
            with static ones, and with no other frame's regions.
        prepare: resizes and normalises frames.
        support_video: whose frames support: the video's own, or, as a control that must gain
            nothing, those of `another_video`.
    """

    detector: VideoDetector
    sampler: TestSampler
    prepare: FramePreparation
    support_video: Literal["own", "other"] = "own"

    def stream(self, frames: Iterable[Sequence[Frame]]) -> Iterator[list[Detections]]:
        """Yield the detections of each frame, in order, as soon as they are known.

        Args:
            frames: for each time the frames ``(H, W, 3)`` of the B videos, uint8 RGB.

        Yields:
            For each time the detections in the B videos, boxes in pixels of the frames given.

        Raises:
            ValueError: if the sampler needs the whole video, or the support frames shall be
                another video's, which a stream does not have.
        """
        if self.sampler is not None and self.support_video == "other":
            raise ValueError("a stream has no other video: choose support_video 'own'")
        if isinstance(self.sampler, VideoUniformSampler):
            raise ValueError(
                "support frames spread over the whole video cannot be streamed: "
                'choose the test_sampler "window", "grid" or "causal"'
            )
        sizes: list[tuple[int, int]] = []
        stream = self.detector.encoder.stream(
            self.sampler, describe=lambda images: self._describe(images, sizes[0])
        )
        for group in frames:
            if not sizes:
                sizes = [self.prepare.resized_size(group[0]), group[0].shape[:2]]
            for encoded in stream.push(self.prepare(group)):
                yield self._detect(encoded.features, sizes[0], sizes[1], encoded.notes)
        for encoded in stream.flush():
            yield self._detect(encoded.features, sizes[0], sizes[1], encoded.notes)

    def whole(
        self,
        read: Callable[[int], Sequence[Frame]],
        num_frames: int,
        read_support: Callable[[int], Sequence[Frame]] | None = None,
    ) -> Iterator[list[Detections]]:
        """Yield the detections of each frame of videos that can be read at any time.

        Each support frame is described once, and kept as long as it is within reach; prompts are
        predicted anew whenever the support frames change.

        Args:
            read: returns the frames of the B videos at a time.
            num_frames: T of the videos.
            read_support: returns their support frames; ``read`` if not given.
        """
        assert self.sampler is not None
        encoder = self.detector.encoder
        known: dict[int, SupportFrame] = {}
        latest: list[int] = []
        prompts: list[Tensor] = []
        with torch.no_grad():
            for t in range(num_frames):
                support = list(self.sampler(t, num_frames))
                for s in sorted(set(support) - known.keys()):
                    frames = (read_support or read)(s)
                    size = self.prepare.resized_size(frames[0])
                    known[s] = self._describe(self.prepare(frames), size)
                if encoder.takes_support and support != latest:
                    embeddings = [e for s in support if (e := known[s].embedding) is not None]
                    prompts, latest = encoder.predict(torch.stack(embeddings, dim=1)), support
                frames = read(t)
                images, size = self.prepare(frames), self.prepare.resized_size(frames[0])
                if encoder.takes_support:
                    features = encoder.backbone(images, prompts)
                else:
                    features = encoder(images, None)
                notes = [known[s].notes for s in support]
                if isinstance(self.sampler, Sampler):  # no later frame reaches back to these
                    for passed in [s for s in known if s <= t - self.sampler.past]:
                        del known[passed]
                yield self._detect(features, size, frames[0].shape[:2], notes)

    def videos(self, dataset: VideoDataset, numbers: Sequence[int]) -> list[list[Detections]]:
        """Return the detections of all frames of some videos of one size and length.

        Raises:
            ValueError: if the support frames shall be another video's and there is none.
        """
        num_frames = dataset.videos[numbers[0]].num_frames
        read = partial(_read, dataset, numbers)
        if self.sampler is None:
            by_time = list(self.stream(map(read, range(num_frames))))
        elif self.support_video == "other":
            others = [another_video(dataset, number) for number in numbers]
            by_time = list(self.whole(read, num_frames, partial(_read, dataset, others)))
        elif isinstance(self.sampler, VideoUniformSampler):
            by_time = list(self.whole(read, num_frames))
        else:
            by_time = list(self.stream(map(read, range(num_frames))))
        return [list(video) for video in zip(*by_time, strict=True)]

    def _describe(self, images: Tensor, size: tuple[int, int]) -> SupportFrame:
        return self.detector.describe(images, [size] * len(images))

    def _detect(
        self,
        features: list[Tensor],
        size: tuple[int, int],
        original: tuple[int, ...],
        notes: Sequence[Any],
    ) -> list[Detections]:
        num_videos = features[0].shape[0]
        scale = (size[0] / original[0], size[1] / original[1])
        found = self.detector.detect(features, [size] * num_videos, [scale] * num_videos, notes)
        return [
            Detections(one.boxes_xyxy.cpu(), one.scores.cpu(), one.labels.cpu()) for one in found
        ]


def _read(dataset: VideoDataset, numbers: Sequence[int], t: int) -> list[Frame]:
    return [dataset.frame(number, t) for number in numbers]


def another_video(dataset: VideoDataset, number: int) -> int:
    """Return the number of the next video of the same size and length, the first after the last.

    Raises:
        ValueError: if there is no other; names the video.
    """
    own = dataset.videos[number]
    for step in range(1, len(dataset.videos)):
        other = (number + step) % len(dataset.videos)
        video = dataset.videos[other]
        if (video.num_frames, video.height, video.width) == (own.num_frames, own.height, own.width):
            return other
    raise ValueError(f"no other video has the size and length of {own.name}")


def group_videos(dataset: VideoDataset, batch_size: int) -> list[list[int]]:
    """Group videos of one size and length, at most ``batch_size`` together, longest first."""
    same: dict[tuple[int, int, int], list[int]] = {}
    for number, video in enumerate(dataset.videos):
        same.setdefault((video.num_frames, video.height, video.width), []).append(number)
    return [
        same[kind][start : start + batch_size]
        for kind in sorted(same, reverse=True)
        for start in range(0, len(same[kind]), batch_size)
    ]
