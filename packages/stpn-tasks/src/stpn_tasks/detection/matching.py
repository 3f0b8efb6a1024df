"""Which boxes learn which object, and which of them enter the loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

# Values of an assignment other than the index of an object.
BACKGROUND = -1
IGNORED = -2


def assign_objects(
    ious: Float[Tensor, "G n"], positive_iou: float, negative_iou: float, low_quality_iou: float
) -> Int64[Tensor, " n"]:
    """Assign to each of n boxes one of G objects, `BACKGROUND` or `IGNORED`.

    A box takes its best object from ``positive_iou`` on and is background below
    ``negative_iou``. Then each object claims the boxes that overlap it most, all of them when
    exactly tied, if that overlap reaches ``low_quality_iou``; a box claimed by several objects
    goes to the last. This is the rule of the released code; torchvision's `Matcher` has no
    minimum and gives a claimed box its own best object instead.
    """
    num_objects, num_boxes = ious.shape
    if ious.numel() == 0:
        return ious.new_full((num_boxes,), BACKGROUND, dtype=torch.int64)
    best_iou, assigned = ious.max(dim=0)
    assigned[best_iou < positive_iou] = IGNORED
    assigned[best_iou < negative_iou] = BACKGROUND
    best_of_object = ious.amax(dim=1, keepdim=True)
    claims = (ious == best_of_object) & (best_of_object >= low_quality_iou)
    objects = torch.arange(num_objects, device=ious.device)[:, None]
    last_claim = torch.where(claims, objects, -1).amax(dim=0)
    return torch.where(last_claim >= 0, last_claim, assigned)


def sample_assignment(
    assigned: Int64[Tensor, " n"], num_samples: int, positive_fraction: float
) -> tuple[Int64[Tensor, " p"], Int64[Tensor, " q"]]:
    """Draw the positive and the background boxes that enter the loss, as sorted indices.

    At most ``num_samples * positive_fraction`` are positive; background fills the rest. The
    draw is uniform without replacement, from torch's global generator.
    """
    positives = _draw((assigned >= 0).nonzero()[:, 0], int(num_samples * positive_fraction))
    background = (assigned == BACKGROUND).nonzero()[:, 0]
    return positives, _draw(background, num_samples - len(positives))


def image_weights(
    num_samples: Sequence[int], num_boxes: Sequence[int], device: torch.device
) -> Float[Tensor, " n"]:
    """Return the weights that turn a sum over the boxes of a batch into the mean of its images.

    So a loss does not depend on which images share a batch, a micro-batch or a process.

    Args:
        num_samples: by which the sum of each image is divided.
        num_boxes: of each image, whose losses follow each other.
        device: of the losses.
    """
    weights = torch.tensor([1 / (number * len(num_samples)) for number in num_samples])
    return weights.repeat_interleave(torch.tensor(num_boxes)).to(device)


def _draw(indices: Tensor, count: int) -> Tensor:
    if len(indices) <= count:
        return indices
    chosen = torch.randperm(len(indices), device=indices.device)[:count]
    return indices[chosen].sort().values
