"""From the frames of whole videos to their features: streamed, or prompted once per video."""

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

from stpn_core import EncodedFrame, Sampler, SupportFrame, VideoEncoder, encode_video
from stpn_data.batch import pad_images
from stpn_data.prefetch import prefetch
from stpn_data.sampling import VideoUniformSampler
from stpn_data.transforms import resize_pixels, resized_size
from stpn_data.videos import DataError, VideoDataset

Frame = NDArray[np.uint8]
TestSampler = Sampler | VideoUniformSampler | None
# What to remember of support frames (B, 3, H, W), given their (height, width) without padding.
DescribeSized = Callable[[tuple[int, int], Tensor], SupportFrame]


@dataclass(frozen=True)
class FramePreparation:
    """Turn raw frames into what a network takes, as the paper tests.

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
    """Frames of B videos at one time, as a network takes them.

    Attributes:
        images: ``(B, 3, H', W')``, normalised and padded.
        size: (height, width) after resizing, without padding.
        original: (height, width) of the frames as they were.
    """

    images: Tensor
    size: tuple[int, int]
    original: tuple[int, int]


class EncodedGroup(NamedTuple):
    """Frames of B videos that were encoded together.

    Attributes:
        frames: features and notes of each, in their order; there may be none.
        first: the first frames of the videos, whose sizes are those of all.
    """

    frames: Sequence[EncodedFrame]
    first: PreparedFrames

    def maps(self) -> list[Tensor]:
        """Return maps ``(F·B, C_i, H_i, W_i)`` of the F frames, frame after frame."""
        return [torch.cat(level) for level in zip(*(e.features for e in self.frames), strict=True)]


@dataclass(frozen=True)
class VideoEncoding:
    """Encode the frames of videos; B videos of one size and length go in lock-step.

    The sampler is the policy: when support frames are looked at, how often prompts are predicted
    anew, and how long a frame waits. Frames are read and resized in a thread while the network
    works on those before.

    Attributes:
        encoder: in eval mode.
        sampler: support frames of each frame; ``None`` encodes without them.
        prepare: resizes and normalises frames.
        support_video: whose frames support: the video's own, or, as a control that must gain
            nothing, those of `another_video`.
        frames_per_pass: frames of a video that pass the network together.
        describe: what to remember of support frames; their embeddings alone if not given.

    Raises:
        ValueError: if ``frames_per_pass`` is below 1.
    """

    encoder: VideoEncoder
    sampler: TestSampler
    prepare: FramePreparation
    support_video: Literal["own", "other"] = "own"
    frames_per_pass: int = 1
    describe: DescribeSized | None = None

    def __post_init__(self) -> None:
        """Check the count."""
        if self.frames_per_pass < 1:
            raise ValueError(f"frames_per_pass must be at least 1, got {self.frames_per_pass}")

    def stream(self, frames: Iterable[Sequence[Frame]]) -> Iterator[EncodedGroup]:
        """Yield the features of frames, in order, as soon as their support frames are there.

        Args:
            frames: for each time the frames ``(H, W, 3)`` of the B videos, uint8 RGB.

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
        stream = self.encoder.stream(
            self.sampler,
            describe=self._describe(first.size),
            frames_per_pass=self.frames_per_pass,
        )
        for group in chain([first], prepared):
            yield EncodedGroup(stream.push(group.images), first)
        yield EncodedGroup(stream.flush(), first)

    def whole(
        self,
        frames: Iterable[Sequence[Frame]],
        num_frames: int,
        read_support: Callable[[int], Sequence[Frame]],
    ) -> Iterator[EncodedGroup]:
        """Yield the features of the frames of videos whose support frames lie anywhere.

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
            self.encoder,
            self.sampler,
            (group.images for group in chain([first], prepared)),
            num_frames,
            lambda s: _of_size(self._prepare(read_support(s)), first, s).images,
            describe=self._describe(first.size),
            frames_per_pass=self.frames_per_pass,
        )
        while together := list(islice(encoded, self.frames_per_pass)):
            yield EncodedGroup(together, first)

    def videos(self, dataset: VideoDataset, numbers: Sequence[int]) -> Iterator[EncodedGroup]:
        """Yield the features of all frames of some videos of one size and length.

        Raises:
            ValueError: if the support frames shall be another video's and there is none for one of
                the data set, or a frame has not the size of its video; names the video.
        """
        num_frames = dataset.videos[numbers[0]].num_frames
        read = partial(read_frames, dataset, numbers)
        frames = map(read, range(num_frames))
        if self.sampler is not None and self.support_video == "other":
            # Of all videos, so that a run over them fails at its first group, not in the middle.
            of_all = other_videos(dataset)
            others = [of_all[number] for number in numbers]
            yield from self.whole(frames, num_frames, partial(read_frames, dataset, others))
        elif isinstance(self.sampler, VideoUniformSampler):
            yield from self.whole(frames, num_frames, read)
        else:
            yield from self.stream(frames)

    def _describe(self, size: tuple[int, int]) -> Callable[[Tensor], SupportFrame] | None:
        return None if self.describe is None else partial(self.describe, size)

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
    alike = next(numbers for numbers in _alike(dataset).values() if number in numbers)
    return _next_of_each(dataset, alike)[number]


def other_videos(dataset: VideoDataset) -> dict[int, int]:
    """Return `another_video` of every video of a data set.

    Raises:
        ValueError: if there is no other for one of them; names the first such video.
    """
    others: dict[int, int] = {}
    for numbers in _alike(dataset).values():
        others |= _next_of_each(dataset, numbers)
    return others


def _next_of_each(dataset: VideoDataset, alike: Sequence[int]) -> dict[int, int]:
    """Return the next one of each of the videos of one size and length, by their numbers."""
    if len(alike) == 1:
        name = dataset.videos[alike[0]].name
        raise ValueError(f"no other video has the size and length of {name}")
    return dict(zip(alike, [*alike[1:], alike[0]], strict=True))


def _alike(dataset: VideoDataset) -> dict[tuple[int, int, int], list[int]]:
    """Return the numbers of the videos by their length and size."""
    same: dict[tuple[int, int, int], list[int]] = {}
    for number, video in enumerate(dataset.videos):
        same.setdefault((video.num_frames, video.height, video.width), []).append(number)
    return same


def group_videos(dataset: VideoDataset, batch_size: int) -> list[list[int]]:
    """Group videos of one size and length, at most ``batch_size`` together, longest first.

    Raises:
        ValueError: if ``batch_size`` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    same = _alike(dataset)
    return [
        same[kind][start : start + batch_size]
        for kind in sorted(same, reverse=True)
        for start in range(0, len(same[kind]), batch_size)
    ]
