"""What a segmenter is trained with: classes of all queries, masks of those that match objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from stpn_tasks.segmentation.masked_decoder import Segmented
from stpn_tasks.segmentation.matcher import assign, matching_costs
from stpn_tasks.segmentation.points import at_points, on_grid, random_points, uncertain_points

# For each image the queries, and the objects that they stand for.
_Pairs = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class SegmentationLosses:
    """Hold the losses of a batch, float32 scalars, each with its weight in it.

    Attributes:
        classification: cross entropy of the classes and no-object, of all queries.
        mask: binary cross entropy of the masks of queries that stand for an object.
        dice: dice loss of the same.
    """

    classification: Float[Tensor, ""]
    mask: Float[Tensor, ""]
    dice: Float[Tensor, ""]

    @property
    def total(self) -> Tensor:
        """Their sum."""
        return self.classification + self.mask + self.dice


@dataclass(frozen=True)
class MaskCriterion:
    """Compare what queries find with the objects of each image (Cheng et al., CVPR 2022).

    The predictions after every layer are matched and compared for themselves, all with the same
    weight. Everything is float32, also under autocast.

    Attributes:
        class_weight: of the classes, in matching and loss.
        mask_weight: of the masks' binary cross entropy, in both.
        dice_weight: of their dice loss, in both.
        no_object_weight: of queries that stand for nothing, in the mean of the cross entropy.
        num_points: points of each mask, for matching drawn evenly, for the loss by
            `uncertain_points`; ``None`` compares every cell of the predictions' grid with the share
            of it that is object: exact, and cheaper for small images.
        oversample_ratio: see `uncertain_points`.
        importance_ratio: see `uncertain_points`.

    Raises:
        ValueError: if ``num_points`` is below 1, ``oversample_ratio`` below 1, or
            ``importance_ratio`` not in 0 .. 1.
    """

    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    no_object_weight: float = 0.1
    num_points: int | None = 112 * 112
    oversample_ratio: float = 3.0
    importance_ratio: float = 0.75

    def __post_init__(self) -> None:
        """Check what tells the points."""
        if self.num_points is not None and self.num_points < 1:
            raise ValueError(f"num_points must be at least 1, got {self.num_points}")
        if self.oversample_ratio < 1:
            raise ValueError(f"oversample_ratio must be at least 1, got {self.oversample_ratio}")
        if not 0 <= self.importance_ratio <= 1:
            raise ValueError(f"importance_ratio must be in 0 .. 1, got {self.importance_ratio}")

    def __call__(
        self,
        segmented: Segmented,
        labels: Sequence[Int64[Tensor, " _"]],
        masks: Sequence[Bool[Tensor, "_ H W"] | Float[Tensor, "_ H W"]],
        generator: torch.Generator | None = None,
    ) -> SegmentationLosses:
        """Return the losses of B images, each summed over the layers.

        Args:
            segmented: the predictions.
            labels: of the objects of each image, from 0; there may be none.
            masks: of the same objects, on the padded images: what is padding belongs to none.
            generator: draws the points, so that the same seed gives the same losses; torch's
                generator of the device if not given.

        Raises:
            ValueError: if an image has not as many labels as masks, there are not targets for
                every image, or a label is no class; the image is named.
        """
        _check_targets(segmented, labels, masks)
        with torch.autocast(segmented.masks.device.type, enabled=False):
            objects = [mask.float() for mask in masks]
            if self.num_points is None:
                grid = (segmented.masks.shape[2], segmented.masks.shape[3])
                objects = [on_grid(mask, grid) for mask in objects]
            num_masks = _masks_per_process(labels, segmented.masks.device)
            terms = torch.stack(
                [
                    self._compare(
                        each.logits.float(), each.masks.float(), labels, objects, generator
                    )
                    for each in (segmented, *segmented.auxiliary)
                ]
            )  # (layers, 3)
            classification, mask, dice = terms.sum(0)
        return SegmentationLosses(
            self.class_weight * classification,
            self.mask_weight * mask / num_masks,
            self.dice_weight * dice / num_masks,
        )

    def _compare(
        self,
        logits: Tensor,
        masks: Tensor,
        labels: Sequence[Tensor],
        objects: Sequence[Tensor],
        generator: torch.Generator | None,
    ) -> Tensor:
        """Return the three terms of one layer, those of masks summed over the objects."""
        pairs = self._match(logits, masks, labels, objects, generator)
        classification = self._classification(logits, labels, pairs)
        predicted = torch.cat(
            [image[queries] for image, (queries, _) in zip(masks, pairs, strict=True)]
        )
        true = torch.cat([image[found] for image, (_, found) in zip(objects, pairs, strict=True)])
        if self.num_points is None:
            x, t = predicted.flatten(1), true.flatten(1)  # (m, h * w)
        else:
            with torch.no_grad():
                points = uncertain_points(
                    predicted,
                    self.num_points,
                    self.oversample_ratio,
                    self.importance_ratio,
                    generator,
                )
                t = at_points(true[:, None], points)[:, 0]  # (m, P)
            x = at_points(predicted[:, None], points)[:, 0]
        entropy = F.binary_cross_entropy_with_logits(x, t, reduction="none").mean(1).sum()
        probabilities = x.sigmoid()
        shared = 2 * (probabilities * t).sum(1)
        dice = (1 - (shared + 1) / (probabilities.sum(1) + t.sum(1) + 1)).sum()
        return torch.stack((classification, entropy, dice))

    @torch.no_grad()
    def _match(
        self,
        logits: Tensor,
        masks: Tensor,
        labels: Sequence[Tensor],
        objects: Sequence[Tensor],
        generator: torch.Generator | None,
    ) -> _Pairs:
        costs = []
        for image in range(len(logits)):
            predicted, true = masks[image], objects[image]
            if self.num_points is None:
                x, t = predicted.flatten(1), true.flatten(1)
            else:
                points = random_points(1, self.num_points, masks, generator)
                x = at_points(predicted[None], points)[0]  # (Q, P)
                t = at_points(true[None], points)[0] if len(true) else true.new_zeros(0, x.shape[1])
            weights = (self.class_weight, self.mask_weight, self.dice_weight)
            costs.append(matching_costs(logits[image], x, labels[image], t, weights))
        return [assign(each) for each in costs]

    def _classification(self, logits: Tensor, labels: Sequence[Tensor], pairs: _Pairs) -> Tensor:
        num_classes = logits.shape[2] - 1
        targets = torch.full(logits.shape[:2], num_classes, device=logits.device)
        for row, image_labels, (queries, found) in zip(targets, labels, pairs, strict=True):
            row[queries] = image_labels[found]
        weight = logits.new_ones(num_classes + 1)
        weight[-1] = self.no_object_weight
        return F.cross_entropy(logits.transpose(1, 2), targets, weight)


def _masks_per_process(labels: Sequence[Tensor], device: torch.device) -> Tensor:
    """Return how many objects a process has on average, at least 1."""
    count = torch.tensor(float(sum(map(len, labels))), device=device)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(count)
        count = count / dist.get_world_size()
    return count.clamp(min=1)


def _check_targets(segmented: Segmented, labels: Sequence[Tensor], masks: Sequence[Tensor]) -> None:
    num_images, num_classes = len(segmented.logits), segmented.logits.shape[2] - 1
    if not num_images == len(labels) == len(masks):
        raise ValueError(
            f"{num_images} images need labels and masks each, got {len(labels)} and {len(masks)}"
        )
    for image, (own_labels, own_masks) in enumerate(zip(labels, masks, strict=True)):
        if own_masks.ndim != 3 or len(own_labels) != len(own_masks):
            raise ValueError(
                f"image {image}: masks must be (n, H, W) of its n = {len(own_labels)} labels, "
                f"got {tuple(own_masks.shape)}"
            )
        if (
            len(own_labels)
            and not 0 <= int(own_labels.min()) <= int(own_labels.max()) < num_classes
        ):
            raise ValueError(
                f"image {image}: labels must be in 0 .. {num_classes - 1}, "
                f"got {own_labels.tolist()}"
            )
