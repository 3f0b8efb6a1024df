"""What a stream says as it goes: the masks of each frame, with identities that persist."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stpn_tasks.segmentation.association import Associator, check_finite
from stpn_tasks.segmentation.mask_resize import FrameSizes
from stpn_tasks.segmentation.video_output import TrackLogits


@dataclass(frozen=True)
class FrameTracks:
    """Hold the tracks that are told of a frame, on the device of the masks.

    Attributes:
        ids: (n,) int64, ascending: an object keeps its number through the video.
        labels: (n,) int64, class from 0.
        scores: (n,) float32, probability of that class.
        masks: (n, H, W) bool, of the video's size; a track may have an empty one.
    """

    ids: Int[Tensor, " n"]
    labels: Int[Tensor, " n"]
    scores: Float[Tensor, " n"]
    masks: Bool[Tensor, "n H W"]


class StreamOutput:
    """Take the frames of one video as they come; return the masks of each at once.

    Tracks are those of the whole video. Classes and scores are of the mean of the logits so far,
    so that in the last frame they are those of the whole video too. What is kept is one embedding
    and one row of logits per track, however long the stream is.

    Args:
        sizes: of the frames.
        threshold: tracks with a lower score are not told of.
        associator: orders the queries; MinVIS' own if not given.
    """

    def __init__(
        self, sizes: FrameSizes, threshold: float, associator: Associator | None = None
    ) -> None:
        """Begin a stream."""
        self._sizes, self._threshold = sizes, threshold
        self._associator = associator or Associator()
        self._logits = TrackLogits()
        self._num_frames = 0

    def push(
        self,
        logits: Float[Tensor, "T Q classes"],
        masks: Float[Tensor, "T Q h w"],
        embeddings: Float[Tensor, "T Q C"],
    ) -> list[FrameTracks]:
        """Take the next T frames, mostly one, and return their tracks.

        Args:
            logits: of the K classes and, last, no object.
            masks: logits.
            embeddings: of the queries.

        Raises:
            ValueError: the tensors do not fit the frames before, or a number is not finite; the
                frame is named.
        """
        permutations = self._associator.push(embeddings, masks)
        return [
            self._next(logits[t][order.to(logits.device)], masks[t], order)
            for t, order in enumerate(permutations)
        ]

    def _next(self, logits: Tensor, masks: Tensor, permutation: Tensor) -> FrameTracks:
        check_finite("mask", masks, self._num_frames)
        self._num_frames += 1
        self._logits.add(logits)
        scores, labels = self._logits.probabilities().max(dim=1)
        ids = torch.nonzero(scores >= self._threshold).flatten()
        device = masks.device
        chosen = masks[permutation[ids].to(device)]
        return FrameTracks(
            ids.to(device),
            labels[ids].to(device),
            scores[ids].to(device),
            self._sizes.masks(chosen.detach()),
        )
