"""Detection in whole videos: streamed, or with prompts predicted once per video."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from stpn_core import SupportFrame
from stpn_data.videos import VideoDataset
from stpn_tasks.detection.detections import Detections
from stpn_tasks.detection.detector import VideoDetector
from stpn_tasks.video_encoding import (
    EncodedGroup,
    Frame,
    FramePreparation,
    TestSampler,
    VideoEncoding,
)


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
        _ = self.encoding

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
        for group in self.encoding.stream(frames):
            yield from self.detect(group)

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
        for group in self.encoding.whole(frames, num_frames, read_support):
            yield from self.detect(group)

    def videos(self, dataset: VideoDataset, numbers: Sequence[int]) -> list[list[Detections]]:
        """Return the detections of all frames of some videos of one size and length.

        Raises:
            ValueError: if the support frames shall be another video's and there is none, or a
                frame has not the size of its video; names the video.
        """
        groups = self.encoding.videos(dataset, numbers)
        by_time = [found for group in groups for found in self.detect(group)]
        return [list(video) for video in zip(*by_time, strict=True)]

    @property
    def encoding(self) -> VideoEncoding:
        """What encodes the frames."""
        return VideoEncoding(
            self.detector.encoder,
            self.sampler,
            self.prepare,
            self.support_video,
            self.frames_per_pass,
            self._describe,
        )

    @torch.no_grad()
    def _describe(self, size: tuple[int, int], images: Tensor) -> SupportFrame:
        return self.detector.describe(images, [size] * len(images))

    @torch.no_grad()
    def detect(self, group: EncodedGroup) -> Iterator[list[Detections]]:
        """Detect in F frames of B videos together; yield B detections for each of the F."""
        if not group.frames:
            return
        num_videos, maps = len(group.first.images), group.maps()
        notes = [
            [frame[video] for frame in e.notes if frame is not None]
            for e in group.frames
            for video in range(num_videos)
        ]
        size, original = group.first.size, group.first.original
        scale = (size[0] / original[0], size[1] / original[1])
        num_images = len(maps[0])
        found = self.detector.detect(maps, [size] * num_images, [scale] * num_images, notes)
        on_cpu = [
            Detections(one.boxes_xyxy.cpu(), one.scores.cpu(), one.labels.cpu()) for one in found
        ]
        for start in range(0, num_images, num_videos):
            yield on_cpu[start : start + num_videos]
