"""A detector in the middle of a video: what is timed of each inference policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stpn_core import Sampler, StreamState, SupportFrame, SupportMemory, memory_capacity
from stpn_tasks.detection.build import build_detector, build_preparation
from stpn_tasks.detection.detector import VideoDetector
from stpn_tasks.recipes import DetectionRecipe


@dataclass(frozen=True)
class TimedDetector:
    """A detector with a frame, prompts and, with SELSA, regions of support frames at hand.

    Attributes:
        detector: in eval mode.
        frame: ``(1, 3, H, W)``, padded.
        size: (height, width) of the frame without padding.
        support: a support frame as it was described.
        prompts: of as many such support frames as the recipe tests with; ``None`` without.
        notes: on these support frames.
    """

    detector: VideoDetector
    frame: Tensor
    size: tuple[int, int]
    support: SupportFrame
    prompts: list[Tensor] | None
    notes: list[Any]

    @classmethod
    def build(
        cls,
        recipe: DetectionRecipe,
        num_classes: int,
        size: tuple[int, int],
        device: torch.device,
    ) -> TimedDetector:
        """Build the detector of a recipe with random weights, and a random frame.

        Args:
            recipe: what to build.
            num_classes: of the detector.
            size: (height, width) of the frame in pixels, before padding.
            device: where to run.
        """
        detector = build_detector(recipe, num_classes, load_weights=False).eval().to(device)
        divisor = build_preparation(recipe, device).size_divisor
        height, width = (side + -side % divisor for side in size)
        generator = torch.Generator().manual_seed(recipe.seed)
        frame = torch.rand(1, 3, height, width, generator=generator).to(device)
        support, prompts, number = SupportFrame(None), None, recipe.prompts.test_support
        if detector.takes_support:
            support = detector.describe(frame, [size])
        if support.embedding is not None:
            prompts = detector.encoder.predict(torch.stack([support.embedding] * number, dim=1))
        notes = [] if support.notes is None else list(support.notes) * number
        return cls(detector, frame, size, support, prompts, notes)

    def detect(self) -> None:
        """Detect in one frame with the prompts and notes at hand."""
        self.detect_in(self.detector.encoder.backbone(self.frame, self.prompts), self.notes)

    def detect_in(self, features: Sequence[Tensor], notes: Sequence[Any]) -> None:
        """Detect in a frame's feature maps."""
        self.detector.detect(features, [self.size], [(1.0, 1.0)], [notes])

    def describe(self, images: Tensor) -> SupportFrame:
        """Describe support frames."""
        return self.detector.describe(images, [self.size] * len(images))

    def detect_first(self, num_support: int) -> None:
        """Describe the support frames of a whole video, predict prompts, detect in a frame."""
        support = [self.describe(self.frame) for _ in range(num_support)]
        embeddings = [one.embedding for one in support if one.embedding is not None]
        prompts = self.detector.encoder.predict(torch.stack(embeddings, dim=1))
        notes = [note for one in support for note in one.notes or ()]
        self.detect_in(self.detector.encoder.backbone(self.frame, prompts), notes)


class SteadyStream:
    """A stream that is past the first frames of its video and goes on as long as it is asked.

    Args:
        timed: the detector.
        sampler: of the support frames.
        num_frames: that `advance` takes: a period of the sampler, so that all are alike.
    """

    def __init__(self, timed: TimedDetector, sampler: Sampler, num_frames: int) -> None:
        self.timed = timed
        self.sampler = sampler
        self.num_frames = num_frames
        self.stream = timed.detector.encoder.stream(sampler, self._state(), describe=timed.describe)

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
        """Push the next frames and detect in as many."""
        detected = 0
        for _ in range(self.num_frames):
            for encoded in self.stream.push(self.timed.frame):
                notes = [note for one in encoded.notes for note in one or ()]
                self.timed.detect_in(encoded.features, notes)
                detected += 1
        assert detected == self.num_frames
