"""Encoding a video frame by frame, each frame without prompts at most once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

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


@dataclass(frozen=True)
class SupportFrame:
    """What is remembered of a support frame of B videos.

    Attributes:
        embedding: ``(B, n, d)``, what prompts are predicted from; ``None`` without a predictor.
        notes: what else a head wants to know of the frame.
    """

    embedding: Float[Tensor, "B n d"] | None
    notes: Any = None


@dataclass
class StreamState:
    """Where a stream stands between two frames; ``copy.deepcopy`` makes a snapshot.

    Attributes:
        memory: the support embeddings; ``None`` before the first support frame.
        waiting: frames ``(B, 3, H, W)`` whose support frames are still to come, by index.
        received: how many frames came in so far.
        support: the support frames that ``prompts`` was predicted from.
        prompts: the latest prompts, reused as long as the support frames stay the same.
        notes: the notes on the support frames within reach, by index.
        ended: the video has ended; a new one needs a new state.
    """

    memory: SupportMemory | None = None
    waiting: dict[int, Tensor] = field(default_factory=dict)
    received: int = 0
    support: tuple[int, ...] = ()
    prompts: list[Tensor] = field(default_factory=list)
    notes: dict[int, Any] = field(default_factory=dict)
    ended: bool = False


@dataclass(frozen=True)
class EncodedFrame:
    """The features of one frame of a stream.

    Attributes:
        index: which frame of the video, from 0.
        features: maps ``(B, C_i, H_i, W_i)``, high to low resolution.
        notes: on each of its support frames, in the sampler's order.
    """

    index: int
    features: list[Tensor]
    notes: tuple[Any, ...] = ()


class VideoStream:
    """Encode the frames of a video, or of B videos in lock-step, as they come.

    Equal to encoding each frame offline with the same sampler. ``push`` returns the frames that
    became ready: with a causal sampler the pushed one, with a window those whose last support
    frame it is. ``flush`` returns the rest when the video has ended.

    Args:
        encoder: encodes; put it in eval mode first.
        sampler: chooses support frames; ``None`` encodes without them.
        state: where an earlier stream stopped; it is used on, not copied.
        describe: returns what to remember of a support frame ``(B, 3, H, W)``; called once per
            frame, when it is pushed. By default its embedding alone.

    Raises:
        ValueError: if the sampler cannot stream, or the encoder has no predictor and nothing
            else describes support frames.
    """

    def __init__(
        self,
        encoder: VideoEncoder,
        sampler: Sampler | None,
        state: StreamState | None = None,
        *,
        describe: Callable[[Tensor], SupportFrame] | None = None,
    ) -> None:
        if sampler is not None:
            if not hasattr(sampler, "embeds"):
                raise ValueError(
                    f"{type(sampler).__name__} needs the whole video: it cannot stream"
                )
            if describe is None and not encoder.takes_support:
                raise ValueError("an encoder without a predictor streams with sampler=None")
        self.encoder = encoder
        self.sampler = sampler
        self.describe = describe or (lambda frame: SupportFrame(encoder.embed(frame)))
        self.state = StreamState() if state is None else state

    @torch.no_grad()
    def push(self, frame: Float[Tensor, "B 3 H W"]) -> list[EncodedFrame]:
        """Take the next frame and return what became ready, in order.

        Raises:
            ValueError: if the frame is malformed or differs in size from those before, or the
                video has ended.
        """
        if self.state.ended:
            raise ValueError("the video has ended: another one needs a new stream")
        check_images(frame, f"frame {self.state.received}", 4)
        index = self.state.received
        if self.sampler is None:
            self.state.received += 1
            return [EncodedFrame(index, self.encoder(frame, None))]
        for waiting in self.state.waiting.values():
            if waiting.shape != frame.shape:
                raise ValueError(
                    f"frame {index} has shape {tuple(frame.shape)}, "
                    f"the frames before it {tuple(waiting.shape)}"
                )
        if self.sampler.embeds(index):
            self._remember(index, frame)
        self.state.waiting[index] = frame
        self.state.received += 1
        return list(self._ready(length=None))

    @torch.no_grad()
    def flush(self) -> list[EncodedFrame]:
        """Return the remaining frames: the video has ended with the last frame pushed."""
        self.state.ended = True
        return [] if self.sampler is None else list(self._ready(length=self.state.received))

    def _remember(self, index: int, frame: Tensor) -> None:
        described = self.describe(frame)
        self.state.notes[index] = described.notes
        if described.embedding is None:
            return
        embedding = described.embedding
        memory = self.state.memory
        if memory is None:
            memory = self.state.memory = SupportMemory.like(embedding, self._capacity())
        if embedding.shape != memory.buffer[:, 0].shape:
            raise ValueError(
                f"frame {index} has an embedding of shape {tuple(embedding.shape)}, "
                f"the frames before it {tuple(memory.buffer[:, 0].shape)}: sizes differ"
            )
        memory.push(index, embedding)

    def _capacity(self) -> int:
        # The most support frames that any frame's reach, past to future, can hold.
        assert self.sampler is not None
        reach = self.sampler.past + self.sampler.future + 1
        embeds = [self.sampler.embeds(index) for index in range(2 * reach)]
        return max(sum(embeds[start : start + reach]) for start in range(reach + 1))

    def _ready(self, length: int | None) -> Iterator[EncodedFrame]:
        assert self.sampler is not None
        state = self.state
        for index in list(state.waiting):
            support = tuple(self.sampler(index, length))
            if max(support) >= state.received:
                return
            frame = state.waiting.pop(index)
            if self.encoder.takes_support:
                features = self.encoder.backbone(frame, self._prompts(support))
            else:
                features = self.encoder(frame, None)
            notes = tuple(state.notes[s] for s in support)
            # No later frame reaches back to these.
            for passed in [s for s in state.notes if s <= index - self.sampler.past]:
                del state.notes[passed]
            yield EncodedFrame(index, features, notes)

    def _prompts(self, support: tuple[int, ...]) -> list[Tensor]:
        state = self.state
        if support != state.support:
            assert state.memory is not None
            state.prompts = self.encoder.predict(state.memory.gather(support))
            state.support = support
        return state.prompts
