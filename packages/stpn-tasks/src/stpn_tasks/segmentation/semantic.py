"""The class of every pixel, which a segmenter is asked for in training only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from stpn_tasks.segmentation.losses import SegmentationLosses
from stpn_tasks.segmentation.points import on_grid


@dataclass(frozen=True)
class SemanticLosses(SegmentationLosses):
    """Hold the losses of a batch, float32 scalars, each with its weight in it.

    Attributes:
        semantic: cross entropy of the classes of pixels, the mean over the levels.
    """

    semantic: Float[Tensor, ""]

    @property
    def total(self) -> Tensor:
        """Their sum."""
        return super().total + self.semantic


class SemanticHead(nn.Module):
    """Say the class of every cell of every level of the memory by a 1x1 convolution.

    Args:
        dim: width of the memory.
        num_levels: of the memory.
        num_classes: K; class K is the background.
    """

    def __init__(self, dim: int, num_levels: int, num_classes: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv2d(dim, num_classes + 1, 1) for _ in range(num_levels))

    def forward(
        self,
        memory: Sequence[Float[Tensor, "B C _ _"]],
        labels: Sequence[Int64[Tensor, " _"]],
        masks: Sequence[Bool[Tensor, "_ H W"]],
    ) -> Float[Tensor, ""]:
        """Return the mean over the levels of the mean cross entropy of their cells.

        A cell's true probability of a class is the share of the cell that its objects have.

        Args:
            memory: as many maps as announced.
            labels: of the objects of each image.
            masks: of the same objects, on the padded images.
        """
        entropies = []
        for level, maps in zip(self.levels, memory, strict=True):
            logits = level(maps).float()  # (B, K + 1, h, w)
            shares = torch.stack(
                [
                    _shares(own_labels, own_masks, logits[i])
                    for i, (own_labels, own_masks) in enumerate(zip(labels, masks, strict=True))
                ]
            )
            entropies.append(F.cross_entropy(logits, shares))
        return torch.stack(entropies).mean()


def _shares(
    labels: Int64[Tensor, " n"], masks: Bool[Tensor, "n H W"], like: Float[Tensor, "classes h w"]
) -> Float[Tensor, "classes h w"]:
    """Return the share of every cell that each class has, the background last."""
    shares = torch.zeros_like(like)
    if len(labels):
        cells = on_grid(masks.float(), (like.shape[1], like.shape[2]))  # (n, h, w)
        shares.index_add_(0, labels, cells)
    of_objects = shares.sum(0)
    shares = shares / of_objects.clamp(min=1)  # where masks overlap
    shares[-1] = 1 - of_objects.clamp(max=1)
    return shares
