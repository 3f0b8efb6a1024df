"""MinVIS association: a query of this frame goes on with the track whose embedding is most alike.

The network sees frame by frame; its queries have no memory of which object was whose. Tracks start
as the queries of the first frame. In every later frame the assignment of all Q queries to all Q
tracks with the least sum of 1 - cosine goes on with them (Huang et al., *MinVIS*, NeurIPS 2022).
No track ends and none begins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor


@dataclass(frozen=True)
class AssociationOptions:
    """Choose how tracks go on; as they stand it is MinVIS. What else there is goes beyond it.

    Attributes:
        mask_weight: of 1 - IoU with the track's mask in the frame before, added to the cost;
            finite.
        momentum: in [0, 1): what remains of a running mean of a track's embeddings after a frame.
    """

    mask_weight: float = 0.0
    momentum: float = 0.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: a value out of its range.
        """
        self.associator()

    def associator(self) -> Associator:
        """Return what follows the objects of one video."""
        return Associator(self.mask_weight, self.momentum)


class Associator:
    """Order the queries of one video by their tracks, window after window, or frame by frame.

    What it keeps of the frames before is one embedding of each track (with ``mask_weight`` one
    mask too), so windows of any length, also of one frame, give the permutations of the whole
    video bit for bit. Costs are float32 and taken on the CPU, whatever the embeddings are.

    The two options go beyond MinVIS; as they stand it is MinVIS.

    Args:
        mask_weight: of 1 - IoU of the track's mask in the frame before and the query's, which is
            added to the cost.
        momentum: in [0, 1), of a running mean of each track's embeddings, which takes the place of
            that in the frame before: what remains of it after a frame.
    """

    def __init__(self, mask_weight: float = 0.0, momentum: float = 0.0) -> None:
        """Begin a video."""
        if not 0 <= mask_weight < math.inf or not 0 <= momentum < 1:
            raise ValueError(
                f"mask_weight is {mask_weight} and momentum {momentum}, expected a finite number "
                "of 0 or more, and one in [0, 1)"
            )
        self._mask_weight, self._momentum = mask_weight, momentum
        self._embeddings: np.ndarray | None = None  # (Q, C) of the tracks
        self._masks: Tensor | None = None  # (Q, h, w) of the tracks in the frame before
        self._num_frames = 0

    def push(
        self,
        embeddings: Float[Tensor, "T Q C"],
        masks: Float[Tensor, "T Q h w"] | None = None,
    ) -> Int[Tensor, "T Q"]:
        """Take the next T frames of the video.

        Args:
            embeddings: of the queries.
            masks: logits of the queries, which only ``mask_weight`` needs.

        Returns:
            Permutations, int64 on the CPU: ``[t, i]`` is the query of frame t that goes on with
            track i, so that ``masks[t][permutations[t]]`` are the masks of the tracks.

        Raises:
            ValueError: another number of queries or channels than in the frame before, masks that
                are missing, or an embedding, or a mask that is needed, that is not finite; the
                frame is named.
        """
        if self._mask_weight and masks is None:
            raise ValueError(f"mask_weight is {self._mask_weight}, which needs masks: got None")
        values = embeddings.detach().float().cpu().numpy()
        permutations = [
            self._next(frame, masks[t].detach() if self._mask_weight else None)  # type: ignore[index]
            for t, frame in enumerate(values)
        ]
        stacked = np.array(permutations, np.int64).reshape(embeddings.shape[:2])
        return torch.from_numpy(stacked)

    def _next(self, embeddings: np.ndarray, logits: Tensor | None) -> np.ndarray:
        """Return the permutation (Q,) of one frame, and keep its tracks."""
        if logits is not None:
            check_finite("mask", logits, self._num_frames)
        masks = None if logits is None else logits > 0
        if not np.isfinite(embeddings).all():
            raise ValueError(f"an embedding of frame {self._num_frames} is not finite")
        permutation = np.arange(len(embeddings))
        if self._embeddings is not None:
            if embeddings.shape != self._embeddings.shape:
                raise ValueError(
                    f"the embeddings of frame {self._num_frames} are {embeddings.shape}, those of "
                    f"the frame before {self._embeddings.shape}"
                )
            cost = 1 - _unit(self._embeddings) @ _unit(embeddings).T  # (tracks, queries)
            if masks is not None and self._masks is not None:
                cost += self._mask_weight * (1 - mask_iou(self._masks, masks).cpu().numpy())
            permutation = linear_sum_assignment(cost)[1]
        now = embeddings[permutation]
        if self._embeddings is None or self._momentum == 0:
            self._embeddings = now
        else:
            kept = np.float32(self._momentum)
            self._embeddings = kept * self._embeddings + (1 - kept) * now
        self._masks = None if masks is None else masks[torch.from_numpy(permutation)]
        self._num_frames += 1
        return permutation


def check_finite(name: str, logits: Tensor, frame: int) -> None:
    """Raise ValueError, with the frame's number, if a logit of a frame is not finite.

    NaN is in no mask, and of no class: nothing else would tell it from an object not seen.
    """
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(f"a {name} logit of frame {frame} is not finite")


def _unit(embeddings: np.ndarray) -> np.ndarray:
    """Return vectors (Q, C) of length 1; one of length 0 stays, and is like no other."""
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit: np.ndarray = embeddings / np.where(norms > 0, norms, 1)
    return unit


def mask_iou(masks: Bool[Tensor, "n h w"], others: Bool[Tensor, "m h w"]) -> Float[Tensor, "n m"]:
    """Return the IoU of every two masks, float32 also under autocast; 0 of two empty ones."""
    mine, theirs = masks.flatten(1).float(), others.flatten(1).float()
    with torch.autocast(masks.device.type, enabled=False):
        shared = mine @ theirs.T  # whole numbers, exact up to 2**24 pixels
    united = mine.sum(1)[:, None] + theirs.sum(1) - shared
    return shared / united.clamp(min=1)
