"""The region proposal network: a score and a box at every anchor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import batched_nms, box_iou

from stpn_data.batch import BoxTargets
from stpn_tasks.detection.anchors import anchors_inside, grid_anchors
from stpn_tasks.detection.boxes import clip_boxes, decode_boxes, encode_boxes, has_area
from stpn_tasks.detection.matching import (
    IGNORED,
    assign_objects,
    image_weights,
    sample_assignment,
)


@dataclass(frozen=True)
class AnchorPredictions:
    """Hold what the network says of every anchor, in the order (level, y, x, ratio).

    Attributes:
        logits: objectness before the sigmoid, float32.
        deltas: from the anchor to the object, float32.
        anchors: the same for all images of the batch.
        grid_sizes: (height, width) of each level.
    """

    logits: Float[Tensor, "B A"]
    deltas: Float[Tensor, "B A 4"]
    anchors: Float[Tensor, "A 4"]
    grid_sizes: list[tuple[int, int]]


class RegionProposalNetwork(nn.Module):
    """Propose object boxes from a pyramid (Faster R-CNN, Ren et al. 2015).

    `FasterRCNN` describes the settings.
    """

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        *,
        anchor_scale: float,
        anchor_ratios: Sequence[float],
        positive_iou: float,
        negative_iou: float,
        low_quality_iou: float,
        num_samples: int,
        positive_fraction: float,
        candidates_per_level: int,
        nms_iou: float,
        num_proposals: int,
        smooth_l1_beta: float,
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.anchor_scale = anchor_scale
        self.anchor_ratios = tuple(anchor_ratios)
        self.positive_iou = positive_iou
        self.negative_iou = negative_iou
        self.low_quality_iou = low_quality_iou
        self.num_samples = num_samples
        self.positive_fraction = positive_fraction
        self.candidates_per_level = candidates_per_level
        self.nms_iou = nms_iou
        self.num_proposals = num_proposals
        self.smooth_l1_beta = smooth_l1_beta
        self.head = RPNHead(channels, len(self.anchor_ratios))  # N(0, 0.01), biases 0

    def forward(self, pyramid: Sequence[Float[Tensor, "B C _ _"]]) -> AnchorPredictions:
        """Predict objectness and deltas at every anchor of the pyramid."""
        logits, deltas = self.head(list(pyramid))
        grid_sizes = [(level.shape[2], level.shape[3]) for level in pyramid]
        return AnchorPredictions(
            torch.cat([level.permute(0, 2, 3, 1).flatten(1) for level in logits], dim=1).float(),
            torch.cat(
                [level.permute(0, 2, 3, 1).reshape(len(level), -1, 4) for level in deltas], dim=1
            ).float(),
            grid_anchors(
                grid_sizes, self.strides, self.anchor_scale, self.anchor_ratios, pyramid[0].device
            ),
            grid_sizes,
        )

    @torch.no_grad()
    def propose(
        self, predictions: AnchorPredictions, image_sizes: Sequence[tuple[int, int]]
    ) -> list[Tensor]:
        """Return the proposals (n, 4) of each image, best first, without gradient.

        Args:
            predictions: of the batch.
            image_sizes: (height, width) without padding; proposals are clipped to it.
        """
        boxes, logits, levels = self.candidates(predictions)
        proposals = []
        for image_boxes, image_logits, size in zip(boxes, logits, image_sizes, strict=True):
            clipped = clip_boxes(image_boxes, size)
            keep = has_area(clipped)
            clipped = clipped[keep]
            # Logits rank as probabilities do, without the ties of a saturated sigmoid.
            best = batched_nms(clipped, image_logits[keep], levels[keep], self.nms_iou)
            proposals.append(clipped[best[: self.num_proposals]])
        return proposals

    def candidates(
        self, predictions: AnchorPredictions
    ) -> tuple[Float[Tensor, "B M 4"], Float[Tensor, "B M"], Int64[Tensor, " M"]]:
        """Return the best boxes of each level, their logits and their levels, before NMS.

        A level with fewer boxes than the limit keeps all of them, in grid order.
        """
        lengths = [h * w * len(self.anchor_ratios) for h, w in predictions.grid_sizes]
        boxes, logits, levels = [], [], []
        for level, (level_logits, deltas, anchors) in enumerate(
            zip(
                predictions.logits.split(lengths, dim=1),
                predictions.deltas.split(lengths, dim=1),
                predictions.anchors.split(lengths),
                strict=True,
            )
        ):
            level_anchors = anchors.expand_as(deltas)
            if lengths[level] > self.candidates_per_level:
                level_logits, best = level_logits.topk(self.candidates_per_level)
                best = best[..., None].expand(-1, -1, 4)
                deltas, level_anchors = deltas.gather(1, best), level_anchors.gather(1, best)
            boxes.append(decode_boxes(level_anchors, deltas))
            logits.append(level_logits)
            levels.append(torch.full_like(level_logits[0], level, dtype=torch.int64))
        return torch.cat(boxes, dim=1), torch.cat(logits, dim=1), torch.cat(levels)

    def loss(
        self,
        predictions: AnchorPredictions,
        targets: Sequence[BoxTargets],
        pad_sizes: Sequence[tuple[int, int]],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the objectness and the box loss.

        Both are means over the images of the sums over their sampled anchors, divided by the
        number of these (an image without positives counts one, as in the released code).
        """
        anchors = predictions.anchors
        positives, negatives, deltas, num_samples = [], [], [], []
        for image, (target, pad_size) in enumerate(zip(targets, pad_sizes, strict=True)):
            assigned = self.assign(predictions, target.boxes_xyxy, pad_size)
            positive, negative = sample_assignment(
                assigned, self.num_samples, self.positive_fraction
            )
            deltas.append(encode_boxes(anchors[positive], target.boxes_xyxy[assigned[positive]]))
            positives.append(positive + image * len(anchors))
            negatives.append(negative + image * len(anchors))
            num_samples.append(max(len(positive), 1) + max(len(negative), 1))
        positive, negative = torch.cat(positives), torch.cat(negatives)
        positive_weight, negative_weight = (
            image_weights(num_samples, [len(anchor) for anchor in sampled], anchors.device)
            for sampled in (positives, negatives)
        )
        logits = predictions.logits.flatten()[torch.cat((positive, negative))]
        is_object = torch.zeros_like(logits)
        is_object[: len(positive)] = 1
        objectness = F.binary_cross_entropy_with_logits(
            logits,
            is_object,
            weight=torch.cat((positive_weight, negative_weight)),
            reduction="sum",
        )
        box = F.smooth_l1_loss(
            predictions.deltas.flatten(0, 1)[positive],
            torch.cat(deltas),
            reduction="none",
            beta=self.smooth_l1_beta,
        )
        return objectness, (box * positive_weight[:, None]).sum()

    def assign(
        self,
        predictions: AnchorPredictions,
        boxes_xyxy: Float[Tensor, "G 4"],
        pad_size: tuple[int, int],
    ) -> Int64[Tensor, " A"]:
        """Assign the objects of one image to the anchors whose cell lies inside ``pad_size``."""
        inside = anchors_inside(
            predictions.grid_sizes,
            self.strides,
            len(self.anchor_ratios),
            pad_size,
            boxes_xyxy.device,
        )
        assigned = torch.full_like(inside, IGNORED, dtype=torch.int64)
        assigned[inside] = assign_objects(
            box_iou(boxes_xyxy, predictions.anchors[inside]),
            self.positive_iou,
            self.negative_iou,
            self.low_quality_iou,
        )
        return assigned
