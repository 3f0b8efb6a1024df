"""What a tracker is trained with: CIoU and L1 of its box, then the cross entropy of its score."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

CIOU_WEIGHT, L1_WEIGHT = 2.0, 5.0
_EPSILON = 1e-7  # of areas and squared lengths that are shares of the crop


@dataclass(frozen=True)
class BoxLosses:
    """Hold the losses of boxes, each with its weight in it.

    Attributes:
        ciou: scalar, `CIOU_WEIGHT` times the mean of 1 - CIoU.
        l1: scalar, `L1_WEIGHT` times the mean distance of the coordinates.
    """

    ciou: Float[Tensor, ""]
    l1: Float[Tensor, ""]

    @property
    def total(self) -> Tensor:
        """Their sum."""
        return self.ciou + self.l1


@dataclass(frozen=True)
class PlacedBoxLosses(BoxLosses):
    """Hold the losses of boxes and that of the places of their corners.

    Attributes:
        place: scalar, the cross entropy of the corners' cells, with its weight in it.
    """

    place: Float[Tensor, ""]

    @property
    def total(self) -> Tensor:
        """Their sum."""
        return super().total + self.place


@dataclass(frozen=True)
class ScoreLosses:
    """Hold the loss of scores.

    Attributes:
        score: scalar, the mean binary cross entropy.
    """

    score: Float[Tensor, ""]

    @property
    def total(self) -> Tensor:
        """The only one."""
        return self.score


def box_losses(boxes_cxcywh: Float[Tensor, "B 4"], targets_xyxy: Float[Tensor, "B 4"]) -> BoxLosses:
    """Return MixFormer's losses of its first stage.

    Args:
        boxes_cxcywh: predicted boxes as shares of the crop.
        targets_xyxy: true boxes as shares of the crop; cut to it here, the predicted ones are not.
    """
    centres, sizes = boxes_cxcywh.split(2, dim=1)  # (B, 2)
    predicted = torch.cat((centres - sizes / 2, centres + sizes / 2), dim=1)  # (B, 4)
    targets = targets_xyxy.clamp(0.0, 1.0)
    return BoxLosses(
        ciou=CIOU_WEIGHT * (1 - complete_iou(predicted, targets)).mean(),
        l1=L1_WEIGHT * F.l1_loss(predicted, targets),
    )


def place_loss(
    corner_logits: Float[Tensor, "B 2 h w"], targets_xyxy: Float[Tensor, "B 4"]
) -> Float[Tensor, ""]:
    """Return the cross entropy of the cells in which the corners lie; not of MixFormer, but ours.

    The losses of boxes see the mean of a corner's places alone. Among objects that look alike the
    mean is best between them all, and it takes long until one is preferred; cross entropy prefers
    the places of objects at once. A corner counts as in the four cells around it, by as much as
    makes their mean place its own.

    Args:
        corner_logits: over all cells, of the top left and of the bottom right corner.
        targets_xyxy: true boxes as shares of the crop; cut to it here.
    """
    rows, columns = corner_logits.shape[2:]
    corners = targets_xyxy.clamp(0.0, 1.0).unflatten(1, (2, 2))  # (B, corner, xy)
    across, down = _shares(corners[..., 0], columns), _shares(corners[..., 1], rows)
    cells = (down.unsqueeze(3) * across.unsqueeze(2)).flatten(2)  # (B, corner, h*w)
    precise = corner_logits.to(cells.dtype)  # (B, 2, h, w)
    return -(cells * precise.flatten(2).log_softmax(2)).sum(2).mean()


def _shares(places: Tensor, count: int) -> Tensor:
    """Share places, in 0 .. 1, out to the two cells beside each: (..., count)."""
    distance = (places * count).clamp(max=count - 1).unsqueeze(-1) - torch.arange(count).to(places)
    return (1 - distance.abs()).clamp(min=0)


def score_losses(scores: Float[Tensor, " B"], is_positive: Bool[Tensor, " B"]) -> ScoreLosses:
    """Return MixFormer's loss of its second stage.

    Args:
        scores: logits of the target being in the box.
        is_positive: whether it is.
    """
    return ScoreLosses(F.binary_cross_entropy_with_logits(scores, is_positive.to(scores.dtype)))


def iou(boxes_xyxy: Float[Tensor, "B 4"], others_xyxy: Float[Tensor, "B 4"]) -> Float[Tensor, " B"]:
    """Return the IoU of boxes with others, pair by pair.

    A box whose right lower corner is left of or above its left upper one has no area, and the IoU
    of two boxes without an area is 0.
    """
    (upper, lower), (other_upper, other_lower) = _corners(boxes_xyxy), _corners(others_xyxy)
    shared = torch.minimum(lower, other_lower) - torch.maximum(upper, other_upper)  # (B, 2)
    intersection = shared.clamp(min=0).prod(1)  # (B,)
    area = (lower - upper).clamp(min=0).prod(1)
    other_area = (other_lower - other_upper).clamp(min=0).prod(1)
    return intersection / (area + other_area - intersection).clamp(min=_EPSILON)


def complete_iou(
    boxes_xyxy: Float[Tensor, "B 4"], others_xyxy: Float[Tensor, "B 4"]
) -> Float[Tensor, " B"]:
    """Return the complete IoU of boxes with true ones, pair by pair, in -1 .. 1.

    IoU - (distance of the centres / diagonal of the box around both)^2 - alpha v, where v compares
    the aspects and its weight alpha, through which no gradient goes, is v / (1 - IoU + v) where
    the IoU is above 0.5 and 0 elsewhere (Zheng et al., AAAI 2020, in MixFormer's variant). Nothing
    is divided by zero, whatever the boxes.
    """
    overlap = iou(boxes_xyxy, others_xyxy)
    (upper, lower), (other_upper, other_lower) = _corners(boxes_xyxy), _corners(others_xyxy)
    between = ((upper + lower - other_upper - other_lower) / 2).square().sum(1)  # (B,)
    around = torch.maximum(lower, other_lower) - torch.minimum(upper, other_upper)  # (B, 2)
    distance = between / around.square().sum(1).clamp(min=_EPSILON)
    turn = _angle(other_lower - other_upper) - _angle(lower - upper)
    v = 4 / math.pi**2 * turn.square()
    with torch.no_grad():
        alpha = torch.where(overlap > 0.5, v / (1 - overlap + v).clamp(min=_EPSILON), 0.0)
    return (overlap - distance - alpha * v).clamp(-1.0, 1.0)


def _corners(boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    return boxes_xyxy[:, :2], boxes_xyxy[:, 2:]


def _angle(sides: Tensor) -> Tensor:
    """Return the angle of the diagonal (B,) of boxes with these widths and heights (B, 2)."""
    width, height = sides.clamp(min=0).unbind(1)
    return torch.atan(width / height.clamp(min=_EPSILON))
