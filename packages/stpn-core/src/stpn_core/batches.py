"""Several frames of a video in one pass, each with what belongs to it.

F frames of B videos go together as one batch of F·B images, frame-major.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from stpn_core.encoder import VideoEncoder


@dataclass(frozen=True)
class SupportFrame:
    """What is remembered of a support frame of B videos.

    Attributes:
        embedding: ``(B, n, d)``, what prompts are predicted from; ``None`` without a predictor.
        notes: what else a head wants to know of the frame, one note for each of the B; ``None``
            for nothing.
    """

    embedding: Float[Tensor, "B n d"] | None
    notes: Sequence[Any] | None = None


@dataclass(frozen=True)
class EncodedFrame:
    """The features of one frame of B videos.

    Attributes:
        index: which frame of the video, from 0.
        features: maps ``(B, C_i, H_i, W_i)``, high to low resolution.
        notes: on each of its support frames, in the sampler's order.
    """

    index: int
    features: list[Tensor]
    notes: tuple[Sequence[Any] | None, ...] = ()


Describe = Callable[[Tensor], SupportFrame]


def embedding_alone(encoder: VideoEncoder) -> Describe:
    """Return what describes support frames by their embeddings alone."""
    return lambda images: SupportFrame(encoder.embed(images))


def describe_frames(
    describe: Describe, frames: Sequence[Float[Tensor, "B 3 H W"]]
) -> list[SupportFrame]:
    """Describe F support frames in one pass over the backbone."""
    described = describe(_join(frames))
    size = len(frames[0])
    embeddings = [None] * len(frames)
    if described.embedding is not None:
        embeddings = described.embedding.split(size)
    notes: list[Sequence[Any] | None] = [None] * len(frames)
    if described.notes is not None:
        notes = [described.notes[i * size :][:size] for i in range(len(frames))]
    return [SupportFrame(*pair) for pair in zip(embeddings, notes, strict=True)]


def predict_prompts(
    encoder: VideoEncoder,
    supports: Sequence[tuple[int, ...]],
    gather: Callable[[tuple[int, ...]], Float[Tensor, "B K n d"]],
    known: dict[tuple[int, ...], list[Tensor]],
) -> dict[tuple[int, ...], list[Tensor]]:
    """Predict the prompts of several sets of support frames together, each set once.

    Args:
        encoder: with a predictor.
        supports: the support frames of each frame.
        gather: returns the embeddings of a set of K support frames.
        known: prompts that are known already, by their support frames.

    Returns:
        The prompts of each set and those known: one tensor ``(B, P, D_i)`` per prompted layer.
    """
    new = [support for support in dict.fromkeys(supports) if support not in known]
    if not new:
        return known
    embeddings = [gather(support) for support in new]
    layers = encoder.predict(_join(embeddings))  # (sets*B, P, D_i)
    prompts = zip(*map(_splitter(embeddings), layers), strict=True)
    return known | dict(zip(new, map(list, prompts), strict=True))


def encode_frames(
    encoder: VideoEncoder,
    frames: Sequence[Float[Tensor, "B 3 H W"]],
    prompts: Sequence[Sequence[Tensor]] | None,
) -> Iterator[list[Tensor]]:
    """Encode F frames in one pass over the backbone.

    Args:
        encoder: with its backbone.
        frames: of B videos each.
        prompts: of each frame, one tensor ``(B, P, D_i)`` per prompted layer; ``None`` encodes
            without prompts, or with the static ones of the encoder.

    Yields:
        The feature maps ``(B, C_i, H_i, W_i)`` of each frame.
    """
    images = _join(frames)
    if prompts is not None:
        layers = [_join(layer) for layer in zip(*prompts, strict=True)]  # (F*B, P, D_i)
        maps = encoder.backbone(images, layers)
    else:
        maps = encoder(images, None)
    for features in zip(*map(_splitter(frames), maps), strict=True):
        yield list(features)


def _join(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


def _splitter(parts: Sequence[Tensor]) -> Callable[[Tensor], tuple[Tensor, ...]]:
    return lambda joined: joined.split(len(parts[0]))
