"""A video segmenter: an encoder and a Mask2Former head, frame by frame, as MinVIS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from stpn_core import VideoEncoder
from stpn_data.batch import BoxTargets, ClipBatch
from stpn_tasks.segmentation.head import Mask2FormerHead
from stpn_tasks.segmentation.losses import MaskCriterion, SegmentationLosses
from stpn_tasks.segmentation.masked_decoder import Segmented


class MinVIS(nn.Module):
    """Segment objects in frames with the features of a video encoder (Huang et al. 2022).

    Each frame is segmented for itself; what makes tracks of its queries is their embeddings. With
    an encoder that has a predictor, prompts of the support frames enter the backbone (STPN) and
    end there: the head reads the maps alone. Backbones here end every stage in an output norm, as
    detectron2's Swin does, so the head adds none.

    Args:
        encoder: gives the feature maps of the current frame.
        head: finds the objects on them.
        criterion: compares them with the true ones in training; the original's if not given.
    """

    def __init__(
        self,
        encoder: VideoEncoder,
        head: Mask2FormerHead,
        criterion: MaskCriterion | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.criterion = criterion or MaskCriterion()

    @property
    def takes_support(self) -> bool:
        """Whether support frames have a say."""
        return self.encoder.takes_support

    def forward(self, batch: ClipBatch) -> SegmentationLosses:
        """Return the losses of a batch of annotated clips, padded to multiples of 32.

        Raises:
            ValueError: the clips lack masks, or the support frames that the segmenter reads.
        """
        return self.compare(self.segment(self.encode(batch)), batch)

    def encode(self, batch: ClipBatch) -> list[Tensor]:
        """Return maps ``(B, C_i, H_i, W_i)`` of the current frames, high to low resolution.

        Raises:
            ValueError: the clips lack the support frames that the segmenter reads.
        """
        if self.takes_support and batch.support is None:
            raise ValueError("this segmenter reads support frames, but the clips have none")
        maps: list[Tensor] = self.encoder(
            batch.frames, batch.support if self.takes_support else None
        )
        return maps

    def compare(self, segmented: Segmented, batch: ClipBatch) -> SegmentationLosses:
        """Return the losses of what was found in the current frames of annotated clips.

        Raises:
            ValueError: the clips lack masks.
        """
        labels = [targets.labels for targets in batch.targets]
        masks = [_masks_of(targets) for targets in batch.targets]
        return self.criterion(segmented, labels, masks)

    def segment(self, features: Sequence[Float[Tensor, "B _ _ _"]]) -> Segmented:
        """Return what the queries find in B current frames; see `Segmented`.

        Args:
            features: maps ``(B, C_i, H_i, W_i)``, high to low resolution, that `encoder` or its
                stream gives.
        """
        return cast("Segmented", self.head(features))


def _masks_of(targets: BoxTargets) -> Tensor:
    if targets.masks is None:
        raise ValueError("a segmenter is trained on masks, but the clips come without them")
    return targets.masks
