"""Encoding a video whose frames can be read at any time: any sampler, other support frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from stpn_core.batches import (
    Describe,
    EncodedFrame,
    SupportFrame,
    describe_frames,
    embedding_alone,
    encode_frames,
    predict_prompts,
)
from stpn_core.stream import Sampler

if TYPE_CHECKING:
    from stpn_core.encoder import VideoEncoder


@runtime_checkable
class OfflineSampler(Protocol):
    """What `encode_video` needs to know of a sampler: the support frames of each frame."""

    def __call__(self, frame: int, length: int) -> Sequence[int]:
        """Return the support frames of ``frame`` in a video of ``length`` frames."""
        ...


def encode_video(
    encoder: VideoEncoder,
    sampler: OfflineSampler,
    frames: Iterable[Float[Tensor, "B 3 H W"]],
    num_frames: int,
    read_support: Callable[[int], Float[Tensor, "B 3 H W"]],
    *,
    describe: Describe | None = None,
    frames_per_pass: int = 1,
) -> Iterator[EncodedFrame]:
    """Encode the frames of B videos of known length, with support frames read where they lie.

    Each support frame is read and described once, and kept as long as it is within reach; prompts
    are predicted anew whenever the support frames change. So a sampler that spreads support
    frames over the whole video costs its K passes once.

    Args:
        encoder: encodes; put it in eval mode first.
        sampler: chooses the support frames of each frame.
        frames: the current frames, in order.
        num_frames: T of the videos.
        read_support: returns the support frames of a time; of other videos, if they shall support.
        describe: returns what to remember of support frames; by default their embeddings alone.
        frames_per_pass: F, frames that pass the backbone together, F·B images at a time.

    Raises:
        ValueError: if there are fewer frames than ``num_frames``, or ``frames_per_pass`` is
            below 1.
    """
    if frames_per_pass < 1:
        raise ValueError(f"frames_per_pass must be at least 1, got {frames_per_pass}")
    describe = describe or embedding_alone(encoder)
    described: dict[int, SupportFrame] = {}
    latest: dict[tuple[int, ...], list[Tensor]] = {}  # the prompts of the frame before
    iterator = iter(frames)
    for start in range(0, num_frames, frames_per_pass):
        times = range(start, min(start + frames_per_pass, num_frames))
        current = list(islice(iterator, len(times)))
        if len(current) < len(times):
            raise ValueError(f"a video of {num_frames} frames ended after {start + len(current)}")
        supports = [tuple(sampler(t, num_frames)) for t in times]
        with torch.no_grad():
            missing = sorted({s for support in supports for s in support} - described.keys())
            for first in range(0, len(missing), frames_per_pass):
                new = missing[first : first + frames_per_pass]
                found = describe_frames(describe, [read_support(s) for s in new])
                described.update(zip(new, found, strict=True))
            prompts: list[list[Tensor]] | None = None
            if encoder.takes_support:
                gather = partial(_gather, described)
                known = predict_prompts(encoder, supports, gather, latest)
                prompts = [known[support] for support in supports]
                latest = {supports[-1]: prompts[-1]}
            encoded = list(encode_frames(encoder, current, prompts))
        for t, support, features in zip(times, supports, encoded, strict=True):
            yield EncodedFrame(t, features, tuple(described[s].notes for s in support))
        if isinstance(sampler, Sampler):  # no later frame reaches back to these
            for passed in [s for s in described if s <= times[-1] - sampler.past]:
                del described[passed]


def _gather(
    described: Mapping[int, SupportFrame], support: Sequence[int]
) -> Float[Tensor, "B K n d"]:
    embeddings = [described[s].embedding for s in support]
    return torch.stack([e for e in embeddings if e is not None], dim=1)
