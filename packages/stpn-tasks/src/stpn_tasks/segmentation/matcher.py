"""Which query stands for which object."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def matching_costs(
    logits: Float[Tensor, "Q classes"],
    mask_logits: Float[Tensor, "Q P"],
    labels: Int64[Tensor, " n"],
    masks: Float[Tensor, "n P"],
    weights: tuple[float, float, float],
) -> Float[Tensor, "Q n"]:
    """Return what it costs to let each query stand for each object of an image.

    The cost is a weighted sum of minus the probability of the object's class, the mean binary
    cross entropy of the masks, and their dice loss.

    Args:
        logits: of classes and no-object.
        mask_logits: predicted masks at P points.
        labels: of the objects.
        masks: the objects' at the same points, 0 .. 1.
        weights: of the three terms.
    """
    of_class = -logits.softmax(-1)[:, labels]
    # softplus(x) - x t is the binary cross entropy of x with t; summed over the points.
    entropy = F.softplus(mask_logits).sum(-1, keepdim=True) - mask_logits @ masks.T
    probabilities = mask_logits.sigmoid()
    shared = 2 * probabilities @ masks.T
    dice = 1 - (shared + 1) / (probabilities.sum(-1, keepdim=True) + masks.sum(-1) + 1)
    class_weight, mask_weight, dice_weight = weights
    return (
        class_weight * of_class + mask_weight * entropy / mask_logits.shape[1] + dice_weight * dice
    )


def assign(costs: Float[Tensor, "Q n"]) -> tuple[Int64[Tensor, " m"], Int64[Tensor, " m"]]:
    """Return queries and the objects that they stand for, of the least cost in all.

    Each stands for one other at most, so of more objects than queries some stay alone. Costs that
    are not finite are taken last: the loss then tells that training has gone astray.
    """
    largest = torch.finfo(costs.dtype).max
    finite = costs.detach().nan_to_num(nan=largest, posinf=largest, neginf=largest)
    queries, objects = linear_sum_assignment(finite.cpu().numpy())
    return torch.from_numpy(queries).to(costs.device), torch.from_numpy(objects).to(costs.device)
