"""The second stage: a class and a refined box for every proposal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.ops import batched_nms, box_iou

from stpn_data.batch import BoxTargets
from stpn_tasks.detection.boxes import clip_boxes, decode_boxes, encode_boxes
from stpn_tasks.detection.detections import Detections
from stpn_tasks.detection.matching import assign_objects, image_weights, sample_assignment
from stpn_tasks.detection.roi_align import align_regions


@dataclass(frozen=True)
class RegionTargets:
    """Hold the sampled regions of one image, positives first.

    Attributes:
        boxes_xyxy: the regions.
        labels: class index from 0, or the number of classes for background.
        deltas: from each of the p positive regions to its object.
    """

    boxes_xyxy: Float[Tensor, "n 4"]
    labels: Int64[Tensor, " n"]
    deltas: Float[Tensor, "p 4"]


class RoIHead(nn.Module):
    """Classify proposals with two shared layers (Fast R-CNN; FPN, Lin et al. 2017).

    Background is the last class; every class has its own box. `FasterRCNN` describes the
    settings.
    """

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        num_classes: int,
        *,
        fc_dim: int,
        roi_size: int,
        finest_scale: float,
        box_std: float,
        positive_iou: float,
        num_samples: int,
        positive_fraction: float,
        score_threshold: float,
        nms_iou: float,
        max_detections: int,
        smooth_l1_beta: float,
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.num_classes = num_classes
        self.roi_size = roi_size
        self.finest_scale = finest_scale
        self.box_std = box_std
        self.positive_iou = positive_iou
        self.num_samples = num_samples
        self.positive_fraction = positive_fraction
        self.score_threshold = score_threshold
        self.nms_iou = nms_iou
        self.max_detections = max_detections
        self.smooth_l1_beta = smooth_l1_beta
        self.shared = TwoMLPHead(channels * roi_size**2, fc_dim)
        self.classifier = nn.Linear(fc_dim, num_classes + 1)
        self.regressor = nn.Linear(fc_dim, num_classes * 4)
        for layer in (self.shared.fc6, self.shared.fc7):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer, std in ((self.classifier, 0.01), (self.regressor, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(
        self, features: Sequence[Float[Tensor, "B C _ _"]], boxes: Sequence[Float[Tensor, "_ 4"]]
    ) -> tuple[Float[Tensor, "R num_logits"], Float[Tensor, "R num_classes 4"]]:
        """Return logits (background last) and deltas, float32, of the regions of all images."""
        return self.predict(self.shared(self.pool(features, boxes)))

    def predict(
        self, shared: Float[Tensor, "R fc_dim"]
    ) -> tuple[Float[Tensor, "R num_logits"], Float[Tensor, "R num_classes 4"]]:
        """Return logits and deltas, float32, of regions by what the shared layers give."""
        deltas = self.regressor(shared).float().unflatten(1, (self.num_classes, 4))
        return self.classifier(shared).float(), deltas

    def pool(
        self, features: Sequence[Float[Tensor, "B C _ _"]], boxes: Sequence[Float[Tensor, "_ 4"]]
    ) -> Float[Tensor, "R C S S"]:
        """Crop every region from the level that suits its size, to S x S bins (RoIAlign)."""
        counts = torch.tensor([len(b) for b in boxes], device=features[0].device)
        images = torch.arange(len(boxes), device=counts.device).repeat_interleave(counts)
        regions = torch.cat((images[:, None], torch.cat(list(boxes))), dim=1)  # (R, 5)
        levels = self.levels(regions[:, 1:])
        indices, crops = [], []
        for level, (feature, stride) in enumerate(zip(features, self.strides, strict=True)):
            index = (levels == level).nonzero()[:, 0]
            indices.append(index)
            crops.append(align_regions(feature, regions[index], self.roi_size, 1 / stride))
        return torch.cat(crops)[torch.cat(indices).argsort()]

    def levels(self, boxes_xyxy: Float[Tensor, "R 4"]) -> Int64[Tensor, " R"]:
        """Return the level of each region: 0 up to twice ``finest_scale``, doubling with each."""
        scale = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(dim=1).sqrt()
        level = torch.floor(torch.log2(scale / self.finest_scale + 1e-6))
        return level.clamp(0, len(self.strides) - 1).long()

    def loss(
        self,
        predict: Callable[[list[Tensor]], tuple[Tensor, Tensor]],
        proposals: Sequence[Float[Tensor, "_ 4"]],
        targets: Sequence[BoxTargets],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the classification and the box loss.

        Both are means over the images of the sums over their sampled regions, divided by the
        number of these.

        Args:
            predict: returns what `forward` does of the boxes of each image, on their features.
            proposals: of each image.
            targets: objects of each image.
        """
        regions = [self.sample(p, t) for p, t in zip(proposals, targets, strict=True)]
        logits, deltas = predict([r.boxes_xyxy for r in regions])
        labels = torch.cat([r.labels for r in regions])
        positive = (labels < self.num_classes).nonzero()[:, 0]
        counts = [len(r.labels) for r in regions]
        weight = image_weights([max(count, 1) for count in counts], counts, labels.device)
        box = F.smooth_l1_loss(
            deltas[positive, labels[positive]],
            torch.cat([r.deltas for r in regions]),
            reduction="none",
            beta=self.smooth_l1_beta,
        )
        classification = F.cross_entropy(logits, labels, reduction="none")
        return (classification * weight).sum(), (box * weight[positive, None]).sum()

    def sample(self, proposals: Float[Tensor, "n 4"], target: BoxTargets) -> RegionTargets:
        """Draw the regions of one image that enter the loss.

        The objects themselves join the proposals, in front of them.
        """
        objects = target.boxes_xyxy
        assigned = torch.cat(
            (
                torch.arange(len(objects), device=objects.device),
                assign_objects(box_iou(objects, proposals), *(self.positive_iou,) * 3),
            )
        )
        boxes = torch.cat((objects, proposals))
        positive, negative = sample_assignment(assigned, self.num_samples, self.positive_fraction)
        matched = assigned[positive]
        background = torch.full_like(negative, self.num_classes)
        return RegionTargets(
            torch.cat((boxes[positive], boxes[negative])),
            torch.cat((target.labels[matched], background)),
            encode_boxes(boxes[positive], objects[matched], self.box_std),
        )

    def detect(
        self,
        logits: Float[Tensor, "R num_logits"],
        deltas: Float[Tensor, "R num_classes 4"],
        proposals: Sequence[Float[Tensor, "_ 4"]],
        image_sizes: Sequence[tuple[int, int]],
        scale_factors: Sequence[tuple[float, float]],
    ) -> list[Detections]:
        """Turn the predictions for the proposals into detections; see `FasterRCNN.detect`."""
        probs = logits.softmax(dim=1)[:, :-1]
        boxes = decode_boxes(torch.cat(list(proposals))[:, None], deltas, self.box_std)
        counts = [len(p) for p in proposals]
        return [
            self.select(clip_boxes(b, size), p, factors)
            for b, p, size, factors in zip(
                boxes.split(counts), probs.split(counts), image_sizes, scale_factors, strict=True
            )
        ]

    def select(
        self,
        boxes_xyxy: Float[Tensor, "n num_classes 4"],
        probs: Float[Tensor, "n num_classes"],
        scale_factors: tuple[float, float],
    ) -> Detections:
        """Choose the detections of one image: threshold, NMS within each class, the best."""
        region, labels = (probs > self.score_threshold).nonzero(as_tuple=True)
        y, x = scale_factors
        boxes = boxes_xyxy[region, labels] / boxes_xyxy.new_tensor((x, y, x, y))
        scores = probs[region, labels]
        keep = batched_nms(boxes, scores, labels, self.nms_iou)[: self.max_detections]
        return Detections(boxes[keep], scores[keep], labels[keep])
