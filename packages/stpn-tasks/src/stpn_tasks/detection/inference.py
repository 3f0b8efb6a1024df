"""Detection in whole videos: streamed, or with prompts predicted once per video."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stpn_core import EncodedFrame, Sampler, SupportFrame, encode_video
from stpn_data.batch import pad_images
from stpn_data.prefetch import prefetch
from stpn_data.sampling import VideoUniformSampler
from stpn_data.transforms import resize_pixels, resized_size
from stpn_data.videos import DataError, VideoDataset
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


class PreparedFrames(NamedTuple):
    """Frames of B videos at one time, as a detector takes them.

    Attributes:
        images: ``(B, 3, H', W')``, normalised and padded.
        size: (height, width) after resizing, without padding.
        original: (height, width) of the frames as they were.
    """

    images: Tensor
    size: tuple[int, int]
    original: tuple[int, int]


@dataclass(frozen=True)
class VideoInference:
    """Run a detector over videos; B videos of one size and length go in lock-step.

    The sampler is the policy: when support frames are looked at, how often prompts are predicted
    anew, and how long a frame waits; `policies` tells what each costs. Frames are read and
    resized in a thread while the network works on those before.

    Attributes:
        detector: in eval mode.
        sampler: support frames of each frame; ``None`` detects without them: without prompts, or
            with static ones, and with no other frame's regions.
        prepare: resizes and normalises frames.
        support_video: whose frames support: the video's own, or, as a control that must gain
            nothing, those of `another_video`.
        frames_per_pass: frames of a video that pass the network together.

    Raises:
        ValueError: if ``frames_per_pass`` is below 1.
    """

    detector: VideoDetector
    sampler: TestSampler
    prepare: FramePreparation
    support_video: Literal["own", "other"] = "own"
    frames_per_pass: int = 1

    def __post_init__(self) -> None:
        """Check the count."""
        if self.frames_per_pass < 1:
            raise ValueError(f"frames_per_pass must be at least 1, got {self.frames_per_pass}")

    def stream(self, frames: Iterable[Sequence[Frame]]) -> Iterator[list[Detections]]:
        """Yield the detections of each frame, in order, as soon as they are known.

        Args:
            frames: for each time the frames ``(H, W, 3)`` of the B videos, uint8 RGB.

        Yields:
            For each time the detections in the B videos, boxes in pixels of the frames given.

        Raises:
            ValueError: if the sampler needs the whole video, or the support frames shall be
                another video's, which a stream does not have; or a frame differs in size from
                those before.
        """
        if self.sampler is not None and self.support_video == "other":
            raise ValueError("a stream has no other video: choose support_video 'own'")
        if isinstance(self.sampler, VideoUniformSampler):
            raise ValueError(
                "support frames spread over the whole video cannot be streamed: "
                'choose the test_sampler "window", "grid" or "causal"'
            )
        prepared = prefetch(self._prepared(frames))
        first = next(prepared, None)
        if first is None:
            return
        stream = self.detector.encoder.stream(
            self.sampler,
            describe=partial(self._describe, first.size),
            frames_per_pass=self.frames_per_pass,
        )
        for group in chain([first], prepared):
            yield from self._detect(stream.push(group.images), first)
        yield from self._detect(stream.flush(), first)

    def whole(
        self,
        frames: Iterable[Sequence[Frame]],
        num_frames: int,
        read_support: Callable[[int], Sequence[Frame]],
    ) -> Iterator[list[Detections]]:
        """Yield the detections of each frame of videos whose support frames lie anywhere.

        See `encode_video`: each support frame is described once.

        Args:
            frames: for each time the frames ``(H, W, 3)`` of the B videos, uint8 RGB.
            num_frames: T of the videos.
            read_support: returns the support frames of the B videos at a time.

        Raises:
            ValueError: if a frame differs in size from the first one, or there are fewer than T.
        """
        assert self.sampler is not None
        prepared = prefetch(self._prepared(frames))
        first = next(prepared, None)
        if first is None:
            return
        encoded = encode_video(
            self.detector.encoder,
            self.sampler,
            (group.images for group in chain([first], prepared)),
            num_frames,
            lambda s: _of_size(self._prepare(read_support(s)), first, s).images,
            describe=partial(self._describe, first.size),
            frames_per_pass=self.frames_per_pass,
        )
        while together := list(islice(encoded, self.frames_per_pass)):
            yield from self._detect(together, first)

    def videos(self, dataset: VideoDataset, numbers: Sequence[int]) -> list[list[Detections]]:
        """Return the detections of all frames of some videos of one size and length.

        Raises:
            ValueError: if the support frames shall be another video's and there is none, or a
                frame has not the size of its video; names the video.
        """
        num_frames = dataset.videos[numbers[0]].num_frames
        read = partial(read_frames, dataset, numbers)
        frames = map(read, range(num_frames))
        if self.sampler is not None and self.support_video == "other":
            others = [another_video(dataset, number) for number in numbers]
            by_time = list(self.whole(frames, num_frames, partial(read_frames, dataset, others)))
        elif isinstance(self.sampler, VideoUniformSampler):
            by_time = list(self.whole(frames, num_frames, read))
        else:
            by_time = list(self.stream(frames))
        return [list(video) for video in zip(*by_time, strict=True)]

    def _prepared(self, frames: Iterable[Sequence[Frame]]) -> Iterator[PreparedFrames]:
        first = None
        for index, group in enumerate(map(self._prepare, frames)):
            first = first or group
            yield _of_size(group, first, index)

    def _prepare(self, frames: Sequence[Frame]) -> PreparedFrames:
        if len({frame.shape for frame in frames}) > 1:
            sizes = ", ".join(f"{frame.shape[1]}x{frame.shape[0]}" for frame in frames)
            raise ValueError(f"videos that go together must be of one size, got {sizes}")
        height, width = frames[0].shape[:2]
        size = self.prepare.resized_size(frames[0])
        return PreparedFrames(self.prepare(frames), size, (height, width))

    @torch.no_grad()
    def _describe(self, size: tuple[int, int], images: Tensor) -> SupportFrame:
        return self.detector.describe(images, [size] * len(images))

    @torch.no_grad()
    def _detect(
        self, encoded: Sequence[EncodedFrame], group: PreparedFrames
    ) -> Iterator[list[Detections]]:
        """Detect in F frames of B videos together; yield B detections for each of the F."""
        if not encoded:
            return
        num_videos = len(group.images)
        maps = [torch.cat(level) for level in zip(*(e.features for e in encoded), strict=True)]
        notes = [
            [frame[video] for frame in e.notes if frame is not None]
            for e in encoded
            for video in range(num_videos)
        ]
        size, original = group.size, group.original
        scale = (size[0] / original[0], size[1] / original[1])
        num_images = len(maps[0])
        found = self.detector.detect(maps, [size] * num_images, [scale] * num_images, notes)
        on_cpu = [
            Detections(one.boxes_xyxy.cpu(), one.scores.cpu(), one.labels.cpu()) for one in found
        ]
        for start in range(0, num_images, num_videos):
            yield on_cpu[start : start + num_videos]


def _of_size(group: PreparedFrames, first: PreparedFrames, index: int) -> PreparedFrames:
    """Return frames after checking that they are as large as the first ones."""
    if group.original != first.original:
        raise ValueError(
            f"frame {index} is {group.original[1]}x{group.original[0]}, "
            f"the frames before it {first.original[1]}x{first.original[0]}"
        )
    return group


def read_frames(dataset: VideoDataset, numbers: Sequence[int], t: int) -> list[Frame]:
    """Read the frames of some videos at a time.

    Raises:
        DataError: a frame has not the size of its video; names both.
    """
    frames = [dataset.frame(number, t) for number in numbers]
    for number, frame in zip(numbers, frames, strict=True):
        video = dataset.videos[number]
        if frame.shape[:2] != (video.height, video.width):
            raise DataError(
                f"{video.name}: frame {t} is {frame.shape[1]}x{frame.shape[0]}, "
                f"the video {video.width}x{video.height}"
            )
    return frames


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
    """Group videos of one size and length, at most ``batch_size`` together, longest first.

    Raises:
        ValueError: if ``batch_size`` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    same: dict[tuple[int, int, int], list[int]] = {}
    for number, video in enumerate(dataset.videos):
        same.setdefault((video.num_frames, video.height, video.width), []).append(number)
    return [
        same[kind][start : start + batch_size]
        for kind in sorted(same, reverse=True)
        for start in range(0, len(same[kind]), batch_size)
    ]
