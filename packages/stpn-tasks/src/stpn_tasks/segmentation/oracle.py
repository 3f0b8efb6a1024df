"""The order of queries that annotations would give: how much a better association could gain."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from stpn_tasks.segmentation.association import mask_iou


def oracle_permutations(
    masks: Float[Tensor, "T Q h w"],
    objects: Bool[Tensor, "T G h w"],
    objectness: Float[Tensor, "T Q"],
) -> Int[Tensor, "T Q"]:
    """Order the queries of each frame so that track g is the one that fits object g best.

    The sum over the objects is made largest, of the IoU of an object that is seen, times the
    probability that the query says is an object, and of minus the part of the frame that the
    query's mask takes for one that is not. Without that probability, queries that see an object but
    do not claim it would take part in its track, and their logits in its class. The other queries
    follow in their order. AP with this order in place of an association's tells what association
    costs; nothing that a detector can do without annotations. It is no bound: the best order of
    each frame need not be that of the best mean of logits.

    Args:
        masks: logits of the queries.
        objects: masks of the annotated objects, of the same size; empty where one is not seen.
        objectness: probability of each query of being any object.

    Returns:
        Permutations, int64 on the CPU, to be used as those of `Associator.push`.

    Raises:
        ValueError: there are more objects than queries, or sizes differ.
    """
    num_frames, num_queries, num_objects = *masks.shape[:2], objects.shape[1]
    if num_objects > num_queries or (num_frames, masks.shape[2:]) != (
        len(objects),
        objects.shape[2:],
    ):
        raise ValueError(
            f"masks {tuple(masks.shape)} of queries and {tuple(objects.shape)} of objects: "
            "frames and sizes have to agree, with as many queries as objects or more"
        )
    frames = zip(masks.detach() > 0, objects, objectness.detach(), strict=True)
    orders = [_order(*frame) for frame in frames]
    return torch.from_numpy(np.array(orders, np.int64).reshape(num_frames, num_queries))


def _order(masks: Tensor, objects: Tensor, objectness: Tensor) -> np.ndarray:
    """Return the order (Q,) of the queries of one frame."""
    seen = objects.flatten(1).any(1)
    parts = masks.flatten(1).float().mean(1)  # (Q,) of the frame
    gain = torch.where(seen[:, None], mask_iou(objects, masks) * objectness, -parts)  # (G, Q)
    taken = linear_sum_assignment(gain.cpu().numpy(), maximize=True)[1]
    others = np.setdiff1d(np.arange(len(masks)), taken)
    order: np.ndarray = np.concatenate([taken, others])
    return order
