"""Box arithmetic: deltas between boxes, clipping. All boxes are x1, y1, x2, y2 in pixels."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# A box may grow or shrink by at most this factor in one step (16 to 1000 pixels).
MAX_LOG_RATIO = math.log(1000 / 16)


def encode_boxes(
    boxes: Float[Tensor, "n 4"], targets: Float[Tensor, "n 4"], std: float = 1.0
) -> Float[Tensor, "n 4"]:
    """Return the deltas (dx, dy, log dw, log dh) / std that move each box onto its target.

    The first two are relative to the size of the box (R-CNN, Girshick et al. 2014, appendix C).
    """
    size = boxes[:, 2:] - boxes[:, :2]
    center = (boxes[:, :2] + boxes[:, 2:]) * 0.5
    target_size = targets[:, 2:] - targets[:, :2]
    target_center = (targets[:, :2] + targets[:, 2:]) * 0.5
    shift = (target_center - center) / size
    return torch.cat((shift, torch.log(target_size / size)), dim=1) / std


def decode_boxes(
    boxes: Float[Tensor, "*#n 4"], deltas: Float[Tensor, "*n 4"], std: float = 1.0
) -> Float[Tensor, "*n 4"]:
    """Move boxes by deltas: the inverse of `encode_boxes`, in float32.

    The log size ratios are clamped to ±log(1000 / 16). Boxes broadcast, so that one box can be
    moved by the deltas of every class.
    """
    deltas = deltas.float() * std
    size = boxes[..., 2:] - boxes[..., :2]
    center = (boxes[..., :2] + boxes[..., 2:]) * 0.5
    new_center = center + size * deltas[..., :2]
    half = size * deltas[..., 2:].clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp() * 0.5
    return torch.cat((new_center - half, new_center + half), dim=-1)


def clip_boxes(boxes: Float[Tensor, "*n 4"], image_size: tuple[int, int]) -> Float[Tensor, "*n 4"]:
    """Clip boxes to an image of (height, width): x to [0, width], y to [0, height]."""
    height, width = image_size
    limits = boxes.new_tensor((width, height, width, height))
    return torch.minimum(boxes.clamp(min=0), limits)


def has_area(boxes: Float[Tensor, "*n 4"]) -> Bool[Tensor, " *n"]:
    """Tell which boxes have a positive width and a positive height."""
    return (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
