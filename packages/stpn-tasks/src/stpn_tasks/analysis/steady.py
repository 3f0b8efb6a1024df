"""A network in the middle of a video: what is timed of each inference policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stpn_core import (
    Sampler,
    StreamState,
    SupportFrame,
    SupportMemory,
    VideoEncoder,
    memory_capacity,
)
from stpn_tasks.detection.build import build_detector, build_preparation
from stpn_tasks.recipes import DetectionRecipe
from stpn_tasks.segmentation.association import Associator
from stpn_tasks.segmentation.build import build_preparation as build_segmenter_preparation
from stpn_tasks.segmentation.build import build_segmenter
from stpn_tasks.segmentation.recipes import SegmentationRecipe


class TimedNetwork(ABC):
    """A network with a frame, prompts and what it notes of support frames at hand.

    Args:
        encoder: its encoder, in eval mode.
        frame: ``(1, 3, H, W)``, padded.
        num_support: support frames that the prompts at hand are predicted from.

    Attributes:
        encoder: the same.
        frame: the same.
        support: a support frame as it was described.
        prompts: of as many of these as asked for; ``None`` without a predictor.
        notes: on these support frames.
    """

    def __init__(self, encoder: VideoEncoder, frame: Tensor, num_support: int) -> None:
        self.encoder = encoder
        self.frame = frame
        self.support, self.prompts = SupportFrame(None), None
        if self.takes_support:
            self.support = self.describe(frame)
        if (embedding := self.support.embedding) is not None:
            self.prompts = encoder.predict(torch.stack([embedding] * num_support, dim=1))
        notes = self.support.notes
        self.notes: list[Any] = [] if notes is None else list(notes) * num_support

    @property
    def takes_support(self) -> bool:
        """Whether support frames have a say."""
        return self.encoder.takes_support

    def describe(self, images: Tensor) -> SupportFrame:
        """Describe support frames ``(B, 3, H, W)``."""
        return SupportFrame(self.encoder.embed(images))

    @abstractmethod
    def run_in(self, features: Sequence[Tensor], notes: Sequence[Any]) -> None:
        """Find what there is in a frame's feature maps."""

    def run(self) -> None:
        """Find what there is in one frame with the prompts and notes at hand."""
        self.run_in(self.encoder.backbone(self.frame, self.prompts), self.notes)

    def run_first(self, num_support: int) -> None:
        """Describe the support frames of a whole video, predict prompts, run in a frame."""
        support = [self.describe(self.frame) for _ in range(num_support)]
        embeddings = [one.embedding for one in support if one.embedding is not None]
        prompts = self.encoder.predict(torch.stack(embeddings, dim=1))
        notes = [note for one in support for note in one.notes or ()]
        self.run_in(self.encoder.backbone(self.frame, prompts), notes)


class TimedDetector(TimedNetwork):
    """A detector with random weights, and a random frame.

    Args:
        recipe: what to build.
        num_classes: of the detector.
        size: (height, width) of the frame in pixels, before padding.
        device: where to run.
    """

    def __init__(
        self,
        recipe: DetectionRecipe,
        num_classes: int,
        size: tuple[int, int],
        device: torch.device,
    ) -> None:
        self.detector = build_detector(recipe, num_classes, load_weights=False).eval().to(device)
        self.size = size
        divisor = build_preparation(recipe, device).size_divisor
        frame = _random_frame(size, divisor, recipe.seed, device)
        super().__init__(self.detector.encoder, frame, recipe.prompts.test_support)

    @property
    def takes_support(self) -> bool:
        """Whether support frames have a say."""
        return self.detector.takes_support

    def describe(self, images: Tensor) -> SupportFrame:
        """Describe support frames."""
        return self.detector.describe(images, [self.size] * len(images))

    def run_in(self, features: Sequence[Tensor], notes: Sequence[Any]) -> None:
        """Detect in a frame's feature maps."""
        self.detector.detect(features, [self.size], [(1.0, 1.0)], [notes])


class TimedSegmenter(TimedNetwork):
    """A segmenter with random weights, and a random frame; its queries are associated.

    Args:
        recipe: what to build.
        num_classes: of the segmenter.
        size: (height, width) of the frame in pixels, before padding.
        device: where to run.
    """

    def __init__(
        self,
        recipe: SegmentationRecipe,
        num_classes: int,
        size: tuple[int, int],
        device: torch.device,
    ) -> None:
        built = build_segmenter(recipe, num_classes, load_weights=False)
        self.segmenter = built.eval().to(device)
        self.associator = Associator()
        divisor = build_segmenter_preparation(recipe, device).size_divisor
        frame = _random_frame(size, divisor, recipe.seed, device)
        super().__init__(self.segmenter.encoder, frame, recipe.prompts.test_support)

    def run_in(self, features: Sequence[Tensor], notes: Sequence[Any]) -> None:
        """Segment a frame by its feature maps, and go on with the tracks."""
        self.associator.push(self.segmenter.segment(features).embeddings)


def _random_frame(size: tuple[int, int], divisor: int, seed: int, device: torch.device) -> Tensor:
    """Return a frame ``(1, 3, H, W)`` of random pixels, padded."""
    height, width = (side + -side % divisor for side in size)
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, height, width, generator=generator).to(device)


class SteadyStream:
    """A stream that is past the first frames of its video and goes on as long as it is asked.

    Args:
        timed: the network.
        sampler: of the support frames.
        num_frames: that `advance` takes: a period of the sampler, so that all are alike.
    """

    def __init__(self, timed: TimedNetwork, sampler: Sampler, num_frames: int) -> None:
        self.timed = timed
        self.sampler = sampler
        self.num_frames = num_frames
        self.stream = timed.encoder.stream(sampler, self._state(), describe=timed.describe)

    def _state(self) -> StreamState:
        """Return the state after a multiple of the period, all support frames being one frame."""
        sampler, timed = self.sampler, self.timed
        reach = sampler.past + sampler.future
        received = -(-2 * reach // self.num_frames) * self.num_frames
        support = [t for t in range(received - reach, received) if sampler.embeds(t)]
        memory = None
        if (embedding := timed.support.embedding) is not None:
            memory = SupportMemory.like(embedding, memory_capacity(sampler))
            for t in support:
                memory.push(t, embedding)
        waiting = [
            t for t in range(received - reach, received) if max(sampler(t, None)) >= received
        ]
        return StreamState(
            memory,
            waiting=dict.fromkeys(waiting, timed.frame),
            received=received,
            described=received,
            shape=timed.frame.shape,
            notes=dict.fromkeys(support, timed.support.notes),
        )

    def advance(self) -> None:
        """Push the next frames and run in as many."""
        done = 0
        for _ in range(self.num_frames):
            for encoded in self.stream.push(self.timed.frame):
                notes = [note for one in encoded.notes for note in one or ()]
                self.timed.run_in(encoded.features, notes)
                done += 1
        assert done == self.num_frames
