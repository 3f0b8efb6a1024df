"""What a detector returns: boxes of one image, and the losses of a batch."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Detections:
    """Hold the detections of one image, best score first.

    Attributes:
        boxes_xyxy: float32 absolute pixels.
        scores: probability of the label, float32.
        labels: class indices from 0.
    """

    boxes_xyxy: Float[Tensor, "n 4"]
    scores: Float[Tensor, " n"]
    labels: Int64[Tensor, " n"]


@dataclass(frozen=True)
class DetectionLosses:
    """Hold the four losses of a batch, float32 scalars.

    Attributes:
        rpn_objectness: binary cross entropy of the sampled anchors.
        rpn_box: smooth L1 of the positive anchors.
        roi_classification: cross entropy of the sampled regions.
        roi_box: smooth L1 of the positive regions, in the row of their class.
    """

    rpn_objectness: Float[Tensor, ""]
    rpn_box: Float[Tensor, ""]
    roi_classification: Float[Tensor, ""]
    roi_box: Float[Tensor, ""]

    @property
    def total(self) -> Tensor:
        """Sum the four losses, each with weight 1."""
        return self.rpn_objectness + self.rpn_box + self.roi_classification + self.roi_box
