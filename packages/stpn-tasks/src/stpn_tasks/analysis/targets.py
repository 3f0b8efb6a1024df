"""Targets: what about the detections of a frame a map shall explain.

EigenCAM itself does not look at a target. The paper (A.3) names two, a detection's score and its
IoU with the original boxes, and not how they enter. Here, which is our choice, a target weighs the
activations before the decomposition: each is multiplied by the gradient of the target, which shows
what of the features the target rests on (EigenGradCAM of pytorch-grad-cam).
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchvision.ops import box_iou

from stpn_tasks.analysis.frame_features import FrameFeatures
from stpn_tasks.detection.detections import Detections
from stpn_tasks.detection.detector import SelsaDetector, VideoDetector
from stpn_tasks.report.frame_score import MIN_IOU, MIN_SCORE

Target = Literal["score", "iou"]


def detect_on_pyramid(
    detector: VideoDetector, pyramid: list[Tensor], frame: FrameFeatures
) -> Detections:
    """Return what the detector finds in a frame; scores and boxes carry gradients to the pyramid.

    The proposals carry none, as in training. Boxes are in pixels of the frame itself.
    """
    head, sizes = detector.head, [frame.size]
    proposals = head.rpn.propose(head.rpn(pyramid), sizes)
    second_stage = partial(head.roi_head)
    if isinstance(detector, SelsaDetector):
        second_stage = partial(head.roi_head, references=[[note[0] for note in frame.notes]])
    logits, deltas = second_stage(pyramid[:-1], proposals)
    return head.roi_head.detect(logits, deltas, proposals, sizes, [frame.scale])[0]


def target_value(
    target: Target,
    found: Detections,
    boxes_xyxy: Float[Tensor, "n 4"],
    labels: Int64[Tensor, " n"],
) -> Tensor | None:
    """Return the value of a target; ``None`` where no detection has a part in it.

    Detections below `MIN_SCORE` have none. "score" is the sum of the other detections' scores.
    "iou" is, summed over the original boxes, the IoU of that detection of the same class that
    covers the box best, if it does by more than 0.5 (as ``FasterRCNNBoxScoreTarget`` counts).
    Original boxes are the annotated ones: with a detection's own box its IoU is 1, which is
    largest, so that the gradient would be zero.

    Args:
        target: which.
        found: detections of a frame.
        boxes_xyxy: the original boxes, in pixels of the frame.
        labels: their classes.
    """
    kept = found.scores >= MIN_SCORE
    if target == "score":
        return found.scores[kept].sum() if kept.any() else None
    if not kept.any() or not len(labels):
        return None
    overlap = box_iou(boxes_xyxy, found.boxes_xyxy[kept])  # (n, detections)
    same = labels[:, None] == found.labels[kept]
    best = (overlap * same).max(dim=1).values  # (n,)
    covered = best > MIN_IOU
    return best[covered].sum() if covered.any() else None


def weigh_by_target(
    detector: VideoDetector,
    frame: FrameFeatures,
    target: Target,
    boxes_xyxy: Float[Tensor, "n 4"],
    labels: Int64[Tensor, " n"],
) -> tuple[list[Tensor] | None, Detections]:
    """Return the levels of the pyramid times the gradient of a target, and the detections.

    Args:
        detector: in eval mode.
        frame: its features.
        target: see `target_value`.
        boxes_xyxy: the original boxes, in pixels of the frame.
        labels: their classes.

    Returns:
        The levels ``(1, C, H_i, W_i)``, ``None`` where no detection has a part in the target; and
        the detections without gradient.
    """
    with torch.no_grad():
        plain = detector.head.pyramid(frame.features)
    pyramid = [level.detach().requires_grad_() for level in plain]
    with torch.enable_grad():
        found = detect_on_pyramid(detector, pyramid, frame)
        value = target_value(target, found, boxes_xyxy, labels)
    detached = Detections(found.boxes_xyxy.detach(), found.scores.detach(), found.labels)
    if value is None:
        return None, detached
    # The last level serves proposals only, which carry no gradient.
    gradients = torch.autograd.grad(value, pyramid, allow_unused=True, materialize_grads=True)
    return [(a * g).detach() for a, g in zip(pyramid, gradients, strict=True)], detached
