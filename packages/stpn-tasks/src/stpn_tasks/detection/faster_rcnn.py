"""Faster R-CNN with a feature pyramid, on any list of feature maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from stpn_data.batch import BoxTargets
from stpn_tasks.detection.boxes import has_area
from stpn_tasks.detection.detections import DetectionLosses, Detections
from stpn_tasks.detection.roi_head import RoIHead
from stpn_tasks.detection.rpn import RegionProposalNetwork

# Returns logits and deltas of the boxes of each image on the maps of the pyramid.
SecondStage = Callable[[Sequence[Tensor], Sequence[Tensor]], tuple[Tensor, Tensor]]


class FasterRCNN(nn.Module):
    """Detect objects on the feature maps of any backbone (Ren et al. 2015; Lin et al. 2017).

    Built from torchvision's parts with the settings of the STPN experiments, which follow
    mmdetection; the released weights give the same detections (`convert_released_detector`).

    Args:
        in_channels: channels of each feature map, high to low resolution.
        num_classes: object classes, without background.
        strides: pixels between the cells of each feature map; the pyramid adds one level of
            twice the last stride, for proposals only.
        fpn_channels: width of the pyramid.
        fc_dim: width of the two shared layers of the second stage.
        anchor_scale: side of a square anchor in strides.
        anchor_ratios: height / width of the anchors.
        rpn_positive_iou: an anchor from this overlap on is an object.
        rpn_negative_iou: an anchor below this overlap is background.
        rpn_low_quality_iou: an object's best anchors are positive from this overlap on.
        rpn_samples: anchors per image in the loss.
        rpn_positive_fraction: at most this part of them are objects.
        candidates_per_level: best anchors of each level that enter NMS.
        proposal_nms_iou: overlap above which the weaker proposal of a level is dropped.
        num_proposals: proposals per image.
        roi_size: bins per side of a pooled region.
        finest_scale: regions smaller than twice this side (pixels) use the finest map.
        roi_box_std: the second stage predicts deltas in this unit.
        roi_positive_iou: a proposal from this overlap on is an object, otherwise background.
        roi_samples: regions per image in the loss.
        roi_positive_fraction: at most this part of them are objects.
        smooth_l1_beta: where both box losses turn from quadratic to linear.
        score_threshold: detections score more than this.
        nms_iou: overlap above which the weaker detection of a class is dropped.
        max_detections: detections per image.
        make_roi_head: makes the second stage; `SelsaRCNN` has another one.

    Raises:
        ValueError: ``in_channels`` and ``strides`` differ in length.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        strides: Sequence[int] = (4, 8, 16, 32),
        fpn_channels: int = 256,
        fc_dim: int = 1024,
        anchor_scale: float = 8.0,
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        rpn_positive_iou: float = 0.7,
        rpn_negative_iou: float = 0.3,
        rpn_low_quality_iou: float = 0.3,
        rpn_samples: int = 256,
        rpn_positive_fraction: float = 0.5,
        candidates_per_level: int = 1000,
        proposal_nms_iou: float = 0.7,
        num_proposals: int = 300,
        roi_size: int = 7,
        finest_scale: float = 56.0,
        roi_box_std: float = 0.2,
        roi_positive_iou: float = 0.5,
        roi_samples: int = 256,
        roi_positive_fraction: float = 0.25,
        smooth_l1_beta: float = 1 / 9,
        score_threshold: float = 1e-4,
        nms_iou: float = 0.5,
        max_detections: int = 100,
        make_roi_head: Callable[..., RoIHead] = RoIHead,
    ) -> None:
        super().__init__()
        if len(in_channels) != len(strides):
            raise ValueError(
                f"in_channels {tuple(in_channels)} and strides {tuple(strides)} differ in length"
            )
        self.num_classes = num_classes
        self.fpn = FeaturePyramidNetwork(list(in_channels), fpn_channels, LastLevelMaxPool())
        for module in self.fpn.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
        self.rpn = RegionProposalNetwork(
            fpn_channels,
            (*strides, 2 * strides[-1]),
            anchor_scale=anchor_scale,
            anchor_ratios=anchor_ratios,
            positive_iou=rpn_positive_iou,
            negative_iou=rpn_negative_iou,
            low_quality_iou=rpn_low_quality_iou,
            num_samples=rpn_samples,
            positive_fraction=rpn_positive_fraction,
            candidates_per_level=candidates_per_level,
            nms_iou=proposal_nms_iou,
            num_proposals=num_proposals,
            smooth_l1_beta=smooth_l1_beta,
        )
        self.roi_head = make_roi_head(
            fpn_channels,
            strides,
            num_classes,
            fc_dim=fc_dim,
            roi_size=roi_size,
            finest_scale=finest_scale,
            box_std=roi_box_std,
            positive_iou=roi_positive_iou,
            num_samples=roi_samples,
            positive_fraction=roi_positive_fraction,
            score_threshold=score_threshold,
            nms_iou=nms_iou,
            max_detections=max_detections,
            smooth_l1_beta=smooth_l1_beta,
        )

    def loss(
        self,
        features: Sequence[Float[Tensor, "B _ _ _"]],
        image_sizes: Sequence[tuple[int, int]],
        targets: Sequence[BoxTargets],
        pad_sizes: Sequence[tuple[int, int]] | None = None,
    ) -> DetectionLosses:
        """Return the losses of a batch, in float32 whatever the features are.

        Args:
            features: maps (B, C_i, H_i, W_i), high to low resolution.
            image_sizes: (height, width) of each image without padding, pixels.
            targets: objects of each image; an image may have none.
            pad_sizes: (height, width) of each image with its own padding: only anchors whose
                cell begins inside learn. By default the unpadded size, so that the loss does
                not depend on what an image is batched with.

        Raises:
            ValueError: a list has not one entry per image, or a target is not a box of positive
                area with a known class (see `check_targets`).
        """
        return self._loss(features, image_sizes, targets, pad_sizes, self.roi_head)

    def _loss(
        self,
        features: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
        targets: Sequence[BoxTargets],
        pad_sizes: Sequence[tuple[int, int]] | None,
        second_stage: SecondStage,
    ) -> DetectionLosses:
        check_count("image_sizes", image_sizes, features)
        check_count("targets", targets, features)
        check_targets(targets, self.num_classes)
        pad_sizes = image_sizes if pad_sizes is None else pad_sizes
        check_count("pad_sizes", pad_sizes, features)
        pyramid = self.pyramid(features)
        predictions = self.rpn(pyramid)
        objectness, rpn_box = self.rpn.loss(predictions, targets, pad_sizes)
        proposals = self.rpn.propose(predictions, image_sizes)
        predict = partial(second_stage, pyramid[:-1])
        classification, roi_box = self.roi_head.loss(predict, proposals, targets)
        return DetectionLosses(objectness, rpn_box, classification, roi_box)

    @torch.no_grad()
    def detect(
        self,
        features: Sequence[Float[Tensor, "B _ _ _"]],
        image_sizes: Sequence[tuple[int, int]],
        scale_factors: Sequence[tuple[float, float]] | None = None,
    ) -> list[Detections]:
        """Return the detections of each image, without gradient.

        Args:
            features: maps (B, C_i, H_i, W_i), high to low resolution.
            image_sizes: (height, width) of each image without padding, pixels.
            scale_factors: (height, width) of each image divided by those of its original; boxes
                are returned in pixels of the original. By default 1.

        Raises:
            ValueError: a list has not one entry per image.
        """
        return self._detect(features, image_sizes, scale_factors, self.roi_head)

    def _detect(
        self,
        features: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
        scale_factors: Sequence[tuple[float, float]] | None,
        second_stage: SecondStage,
    ) -> list[Detections]:
        check_count("image_sizes", image_sizes, features)
        if scale_factors is None:
            scale_factors = [(1.0, 1.0)] * len(image_sizes)
        check_count("scale_factors", scale_factors, features)
        pyramid = self.pyramid(features)
        proposals = self.rpn.propose(self.rpn(pyramid), image_sizes)
        logits, deltas = second_stage(pyramid[:-1], proposals)
        return self.roi_head.detect(logits, deltas, proposals, image_sizes, scale_factors)

    def pyramid(
        self, features: Sequence[Float[Tensor, "B _ _ _"]]
    ) -> list[Float[Tensor, "B C _ _"]]:
        """Return the pyramid: one map per feature map and one of twice the last stride."""
        return list(self.fpn({str(i): feature for i, feature in enumerate(features)}).values())


def check_targets(targets: Sequence[BoxTargets], num_classes: int) -> None:
    """Raise ValueError, naming image and value, unless all boxes and labels are usable.

    Boxes are finite with x2 > x1 and y2 > y1; labels lie in [0, num_classes).
    """
    for image, target in enumerate(targets):
        boxes, labels = target.boxes_xyxy, target.labels
        if boxes.ndim != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
            raise ValueError(
                f"targets of image {image}: want boxes (n, 4) and labels (n,), "
                f"got {tuple(boxes.shape)} and {tuple(labels.shape)}"
            )
    boxes = torch.cat([target.boxes_xyxy for target in targets])
    labels = torch.cat([target.labels for target in targets])
    bad_box = ~(has_area(boxes) & boxes.isfinite().all(dim=1))
    bad_label = (labels < 0) | (labels >= num_classes)
    if not (bad_box | bad_label).any():  # the one synchronisation of a sound batch
        return
    index = int((bad_box | bad_label).nonzero()[0, 0])
    image = [i for i, target in enumerate(targets) for _ in target.labels][index]
    if bad_box[index]:
        raise ValueError(
            f"targets of image {image}: box {boxes[index].tolist()} is not finite with "
            "x2 > x1 and y2 > y1"
        )
    raise ValueError(
        f"targets of image {image}: label {int(labels[index])} is not in [0, {num_classes})"
    )


def check_count(name: str, values: Sequence[object], features: Sequence[Tensor]) -> None:
    """Raise ValueError unless a list has one entry per image; ``name`` is what it is called."""
    if len(values) != len(features[0]):
        raise ValueError(f"{name} has {len(values)} entries for {len(features[0])} images")
