"""Encoding a video frame by frame, each frame without prompts at most once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from stpn_core.batches import (
    Describe,
    EncodedFrame,
    describe_frames,
    embedding_alone,
    encode_frames,
    predict_prompts,
)
from stpn_core.images import check_images

if TYPE_CHECKING:
    from stpn_core.encoder import VideoEncoder


@runtime_checkable
class Sampler(Protocol):
    """What a stream needs to know of a support-frame sampler.

    Attributes:
        past: how many frames before the current one a support frame can lie.
        future: how many frames after it.
    """

    @property
    def past(self) -> int: ...  # noqa: D102

    @property
    def future(self) -> int: ...  # noqa: D102

    def __call__(self, frame: int, length: int | None) -> Sequence[int]:
        """Return the support frames of ``frame``; ``length`` is ``None`` while unknown."""
        ...

    def embeds(self, frame: int) -> bool:
        """Tell whether ``frame`` can be a support frame of any frame."""
        ...


class SupportMemory:
    """A preallocated ring buffer of the support embeddings of the latest frames.

    Args:
        buffer: ``(B, capacity, n, d)``, the embeddings.
        frames: the frame that each slot holds, -1 for an empty one.
        pushed: how many frames were pushed so far.
    """

    def __init__(
        self, buffer: Float[Tensor, "B slots n d"], frames: list[int], pushed: int
    ) -> None:
        self.buffer = buffer
        self.frames = frames
        self.pushed = pushed

    @classmethod
    def like(cls, embedding: Float[Tensor, "B n d"], capacity: int) -> SupportMemory:
        """Allocate an empty memory for embeddings of that shape, dtype and device."""
        num_clips, *shape = embedding.shape
        return cls(embedding.new_empty((num_clips, capacity, *shape)), [-1] * capacity, 0)

    def push(self, frame: int, embedding: Float[Tensor, "B n d"]) -> None:
        """Store the embedding of a frame in place of the oldest one."""
        slot = self.pushed % len(self.frames)
        self.buffer[:, slot] = embedding
        self.frames[slot] = frame
        self.pushed += 1

    def gather(self, frames: Sequence[int]) -> Float[Tensor, "B K n d"]:
        """Return the embeddings of some frames, in the order of their slots.

        Predictors do not depend on the order, so a run of slots is a view and costs nothing.

        Raises:
            KeyError: if a frame is no longer, or not yet, in the memory.
        """
        slot_of = {frame: slot for slot, frame in enumerate(self.frames)}
        missing = sorted(set(frames) - slot_of.keys())
        if missing:
            raise KeyError(f"support frames {missing} are not in the memory")
        slots = sorted(slot_of[frame] for frame in frames)
        if slots == list(range(slots[0], slots[0] + len(slots))):
            return self.buffer[:, slots[0] : slots[0] + len(slots)]
        return self.buffer[:, torch.tensor(slots, device=self.buffer.device)]


def memory_capacity(sampler: Sampler, frames_per_pass: int = 1) -> int:
    """Return how many support embeddings a stream keeps: the most that any frame's reach holds.

    Args:
        sampler: chooses the support frames.
        frames_per_pass: frames that are encoded together.
    """
    reach = sampler.past + sampler.future + frames_per_pass
    embeds = [sampler.embeds(index) for index in range(2 * reach)]
    return max(sum(embeds[start : start + reach]) for start in range(reach + 1))


@dataclass
class StreamState:
    """Where a stream stands between two frames; ``copy.deepcopy`` makes a snapshot.

    Attributes:
        memory: the support embeddings; ``None`` before the first support frame.
        waiting: frames ``(B, 3, H, W)`` whose support frames are still to come, by index.
        received: how many frames came in so far.
        described: how many of them were looked at as support frames.
        shape: of every frame, ``(B, 3, H, W)``; ``None`` before the first.
        support: the support frames that ``prompts`` was predicted from.
        prompts: the latest prompts, reused as long as the support frames stay the same.
        notes: the notes on the support frames within reach, by index.
        ended: the video has ended; a new one needs a new state.
    """

    memory: SupportMemory | None = None
    waiting: dict[int, Tensor] = field(default_factory=dict)
    received: int = 0
    described: int = 0
    shape: torch.Size | None = None
    support: tuple[int, ...] = ()
    prompts: list[Tensor] = field(default_factory=list)
    notes: dict[int, Any] = field(default_factory=dict)
    ended: bool = False


class VideoStream:
    """Encode the frames of a video, or of B videos in lock-step, as they come.

    Equal to encoding each frame offline with the same sampler. ``push`` returns the frames that
    became ready: with a causal sampler the pushed one, with a window those whose last support
    frame it is. ``flush`` returns the rest when the video has ended.

    Args:
        encoder: encodes; put it in eval mode first.
        sampler: chooses support frames; ``None`` encodes without them.
        state: where an earlier stream stopped; it is used on, not copied.
        describe: returns what to remember of a support frame ``(B, 3, H, W)``; each frame is
            described once. By default its embedding alone.
        frames_per_pass: F, frames that are collected before they pass the backbone together, F·B
            images at a time: better use of a GPU for up to F - 1 frames more of delay.

    Raises:
        ValueError: if the sampler cannot stream, or the encoder has no predictor and nothing
            else describes support frames, or ``frames_per_pass`` is below 1, or the state keeps
            too few support frames for it and the sampler.
    """

    def __init__(
        self,
        encoder: VideoEncoder,
        sampler: Sampler | None,
        state: StreamState | None = None,
        *,
        describe: Describe | None = None,
        frames_per_pass: int = 1,
    ) -> None:
        if sampler is not None:
            if not hasattr(sampler, "embeds"):
                raise ValueError(
                    f"{type(sampler).__name__} needs the whole video: it cannot stream"
                )
            if describe is None and not encoder.takes_support:
                raise ValueError("an encoder without a predictor streams with sampler=None")
        if frames_per_pass < 1:
            raise ValueError(f"frames_per_pass must be at least 1, got {frames_per_pass}")
        self.encoder = encoder
        self.sampler = sampler
        self.describe = describe or embedding_alone(encoder)
        self.state = StreamState() if state is None else state
        self.frames_per_pass = frames_per_pass
        memory = self.state.memory
        if sampler is not None and memory is not None:
            needed = memory_capacity(sampler, frames_per_pass)
            if len(memory.frames) < needed:
                raise ValueError(
                    f"the state keeps {len(memory.frames)} support frames, this sampler with "
                    f"{frames_per_pass} frames per pass needs {needed}"
                )

    @torch.no_grad()
    def push(self, frame: Float[Tensor, "B 3 H W"]) -> list[EncodedFrame]:
        """Take the next frame and return what became ready, in order.

        Raises:
            ValueError: if the frame is malformed or differs in size from those before, or the
                video has ended.
        """
        state = self.state
        if state.ended:
            raise ValueError("the video has ended: another one needs a new stream")
        check_images(frame, f"frame {state.received}", 4)
        if state.shape not in (None, frame.shape):
            raise ValueError(
                f"frame {state.received} has shape {tuple(frame.shape)}, "
                f"the frames before it {tuple(state.shape or ())}"
            )
        state.shape = frame.shape
        state.waiting[state.received] = frame
        state.received += 1
        if state.received - state.described < self.frames_per_pass:
            return []
        return self._advance(length=None)

    @torch.no_grad()
    def flush(self) -> list[EncodedFrame]:
        """Return the remaining frames: the video has ended with the last frame pushed."""
        self.state.ended = True
        return self._advance(length=self.state.received)

    def _advance(self, length: int | None) -> list[EncodedFrame]:
        """Describe what is new, and encode what has its support frames."""
        state = self.state
        new = range(state.described, state.received)
        if self.sampler is not None:
            self._remember([index for index in new if self.sampler.embeds(index)])
        state.described = state.received
        ready = self._ready(length)
        encoded: list[EncodedFrame] = []
        for start in range(0, len(ready), self.frames_per_pass):
            encoded += self._encode(ready[start : start + self.frames_per_pass])
        if ready and self.sampler is not None:  # no later frame reaches back to these
            for passed in [s for s in state.notes if s <= ready[-1][0] - self.sampler.past]:
                del state.notes[passed]
        return encoded

    def _remember(self, indices: list[int]) -> None:
        state = self.state
        if not indices:
            return
        assert self.sampler is not None
        described = describe_frames(self.describe, [state.waiting[index] for index in indices])
        for index, support in zip(indices, described, strict=True):
            state.notes[index] = support.notes
            embedding = support.embedding
            if embedding is None:
                continue
            if state.memory is None:
                state.memory = SupportMemory.like(
                    embedding, memory_capacity(self.sampler, self.frames_per_pass)
                )
            state.memory.push(index, embedding)

    def _ready(self, length: int | None) -> list[tuple[int, tuple[int, ...]]]:
        """Return the waiting frames whose support frames are all described, and these."""
        ready = []
        for index in self.state.waiting:
            support = () if self.sampler is None else tuple(self.sampler(index, length))
            if max(support, default=index) >= self.state.described:
                break
            ready.append((index, support))
        return ready

    def _encode(self, ready: list[tuple[int, tuple[int, ...]]]) -> Iterator[EncodedFrame]:
        state = self.state
        frames = [state.waiting.pop(index) for index, _ in ready]
        supports = [support for _, support in ready]
        prompts = None
        if self.sampler is not None and self.encoder.takes_support:
            prompts = self._prompts(supports)
        features = encode_frames(self.encoder, frames, prompts)
        for (index, support), maps in zip(ready, features, strict=True):
            yield EncodedFrame(index, maps, tuple(state.notes[s] for s in support))

    def _prompts(self, supports: list[tuple[int, ...]]) -> list[list[Tensor]]:
        """Return the prompts of each set of support frames, each set predicted once."""
        state = self.state
        assert state.memory is not None
        known = {state.support: state.prompts}
        known = predict_prompts(self.encoder, supports, state.memory.gather, known)
        state.support = supports[-1]
        state.prompts = known[state.support]
        return [known[support] for support in supports]
