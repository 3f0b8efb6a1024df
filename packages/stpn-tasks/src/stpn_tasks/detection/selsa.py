"""SELSA: regions are refined by the regions of other frames (Wu et al., ICCV 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stpn_data.batch import BoxTargets
from stpn_tasks.detection.detections import DetectionLosses, Detections
from stpn_tasks.detection.faster_rcnn import FasterRCNN, check_count
from stpn_tasks.detection.roi_head import RoIHead


@dataclass(frozen=True)
class References:
    """Hold the regions of one frame as other frames look at them.

    They depend on that frame alone, so they are made once and kept: 4 * fc_dim numbers a region,
    4.9 MB for the 300 proposals of a frame at full size in float32.

    Attributes:
        keys: of each of the two aggregators.
        values: of each of the two aggregators.
    """

    keys: tuple[Float[Tensor, "m C"], ...]
    values: tuple[Float[Tensor, "m C"], ...]

    @classmethod
    def join(cls, frames: Sequence[References]) -> References:
        """Return the regions of several frames, one at least, as one set."""
        return cls(
            tuple(map(torch.cat, zip(*(frame.keys for frame in frames), strict=True))),
            tuple(map(torch.cat, zip(*(frame.values for frame in frames), strict=True))),
        )


class SelsaAggregator(nn.Module):
    """Collect for each region what similar regions of other frames say: multi-head attention.

    Softmax of the scaled products over all references, without norms, dropout, position or
    residual, as mmtracking has it. The layers keep torch's default initialisation, as there.

    Args:
        dim: width C of a region's feature.
        num_heads: heads; each is dim / num_heads wide.

    Raises:
        ValueError: if the heads do not share out the width.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"the width {dim} cannot be shared out over {num_heads} SELSA heads")
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)
        # It cancels in the softmax; its gradient is rounding, which Adam would make steps of.
        self.key.bias.requires_grad_(False)

    def forward(
        self,
        regions: Float[Tensor, "n C"],
        keys: Float[Tensor, "m C"],
        values: Float[Tensor, "m C"],
    ) -> Float[Tensor, "n C"]:
        """Return what m references say to n regions; of no reference, the output's bias."""
        query, key, value = (
            tokens.unflatten(1, (self.num_heads, -1)).transpose(0, 1)[None]  # (1, heads, n, d)
            for tokens in (self.query(regions), keys, values)
        )
        heads = F.scaled_dot_product_attention(query, key, value)[0]
        return cast("Tensor", self.output(heads.transpose(0, 1).flatten(1)))


class SelsaHead(RoIHead):
    """Classify proposals whose features an aggregator refines after each shared layer.

    The order is mmtracking's: the layer, then x + aggregator(x, references) on what comes before
    the ReLU, then the ReLU. References pass the same layers but are not refined themselves, so
    they do not depend on the current frame.

    Args:
        channels: of the pyramid.
        strides: pixels between the cells of each level.
        num_classes: object classes, without background.
        num_heads: heads of each aggregator.
        fc_dim: width of the two shared layers.
        settings: see `FasterRCNN`.
    """

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        num_classes: int,
        *,
        num_heads: int,
        fc_dim: int,
        **settings: Any,
    ) -> None:
        super().__init__(channels, strides, num_classes, fc_dim=fc_dim, **settings)
        self.aggregators = nn.ModuleList(SelsaAggregator(fc_dim, num_heads) for _ in range(2))

    def forward(
        self,
        features: Sequence[Float[Tensor, "B C _ _"]],
        boxes: Sequence[Float[Tensor, "_ 4"]],
        references: Sequence[Sequence[References]] | None = None,
        with_own: bool = True,
    ) -> tuple[Float[Tensor, "R num_logits"], Float[Tensor, "R num_classes 4"]]:
        """Return logits (background last) and deltas, float32, of the regions of all images.

        Args:
            features: the maps of the pyramid.
            boxes: regions of each image.
            references: of the other frames that each image looks at; none by default.
            with_own: let the regions of an image join its references.
        """
        pooled, counts = self.pool(features, boxes), [len(b) for b in boxes]
        frames = [list(others) for others in references or [()] * len(counts)]
        if with_own:
            for others, own in zip(frames, self.project(pooled, counts), strict=True):
                others.append(own)
        return self.predict(self.refine(pooled, counts, list(map(References.join, frames))))

    def project(self, pooled: Float[Tensor, "R C S S"], counts: Sequence[int]) -> list[References]:
        """Return regions as other frames look at them, by image.

        Args:
            pooled: regions of all images, one image after the other.
            counts: regions of each image.
        """
        first = self.shared.fc6(pooled.flatten(1))  # (R, fc_dim)
        second = self.shared.fc7(F.relu(first))
        keys, values = [], []  # of each aggregator, by image
        for module, regions in zip(self.aggregators, (first, second), strict=True):
            aggregator = cast("SelsaAggregator", module)
            keys.append(aggregator.key(regions).split(list(counts)))
            values.append(aggregator.value(regions).split(list(counts)))
        return list(map(References, zip(*keys, strict=True), zip(*values, strict=True)))

    def refine(
        self,
        pooled: Float[Tensor, "R C S S"],
        counts: Sequence[int],
        references: Sequence[References],
    ) -> Float[Tensor, "R fc_dim"]:
        """Return what the shared layers give of regions, with the references of their images.

        Args:
            pooled: regions of all images, one image after the other.
            counts: regions of each image.
            references: of each image.
        """
        x = self.shared.fc6(pooled.flatten(1))  # (R, fc_dim)
        x = F.relu(x + self._aggregate(0, x, counts, references))
        x = self.shared.fc7(x)
        return F.relu(x + self._aggregate(1, x, counts, references))

    def _aggregate(
        self, stage: int, x: Tensor, counts: Sequence[int], references: Sequence[References]
    ) -> Tensor:
        images = zip(x.split(list(counts)), references, strict=True)
        said = [
            self.aggregators[stage](regions, frames.keys[stage], frames.values[stage])
            for regions, frames in images
        ]
        return torch.cat(said)


class SelsaRCNN(FasterRCNN):
    """Detect objects with the help of the regions of other frames (SELSA, Wu et al. 2019).

    Faster R-CNN whose second stage is a `SelsaHead`. With the paper's widths the aggregators add
    8,396,800 parameters; all other weights have the names that `FasterRCNN` gives them.

    Args:
        in_channels: channels of each feature map, high to low resolution.
        num_classes: object classes, without background.
        num_heads: heads of each aggregator; mmtracking has 16 of width 64.
        settings: see `FasterRCNN`.
    """

    roi_head: SelsaHead

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        num_heads: int = 16,
        **settings: Any,
    ) -> None:
        make_roi_head = partial(SelsaHead, num_heads=num_heads)
        super().__init__(in_channels, num_classes, make_roi_head=make_roi_head, **settings)

    def references(
        self,
        features: Sequence[Float[Tensor, "B _ _ _"]],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[References]:
        """Return the proposals of each image as other frames look at them.

        Boxes carry no gradient, what is pooled in them does.

        Args:
            features: maps (B, C_i, H_i, W_i), high to low resolution.
            image_sizes: (height, width) of each image without padding, pixels.

        Raises:
            ValueError: ``image_sizes`` has not one entry per image.
        """
        check_count("image_sizes", image_sizes, features)
        pyramid = self.pyramid(features)
        with torch.no_grad():
            proposals = self.rpn.propose(self.rpn(pyramid), image_sizes)
        pooled = self.roi_head.pool(pyramid[:-1], proposals)
        return self.roi_head.project(pooled, [len(boxes) for boxes in proposals])

    def loss(
        self,
        features: Sequence[Float[Tensor, "B _ _ _"]],
        image_sizes: Sequence[tuple[int, int]],
        targets: Sequence[BoxTargets],
        pad_sizes: Sequence[tuple[int, int]] | None = None,
        references: Sequence[Sequence[References]] = (),
    ) -> DetectionLosses:
        """Return the losses of a batch; see `FasterRCNN.loss`.

        As in mmtracking, an image's own proposals are not among its references in training.

        Args:
            features: maps (B, C_i, H_i, W_i), high to low resolution.
            image_sizes: (height, width) of each image without padding, pixels.
            targets: objects of each image; an image may have none.
            pad_sizes: see `FasterRCNN.loss`.
            references: of the support frames of each image, one frame at least.

        Raises:
            ValueError: an image has no references, or see `FasterRCNN.loss`.
        """
        check_count("references", references, features)
        if not all(references):
            raise ValueError("an image has no references: SELSA learns from support frames")
        second_stage = partial(self.roi_head, references=references, with_own=False)
        return self._loss(features, image_sizes, targets, pad_sizes, second_stage)

    @torch.no_grad()
    def detect(
        self,
        features: Sequence[Float[Tensor, "B _ _ _"]],
        image_sizes: Sequence[tuple[int, int]],
        scale_factors: Sequence[tuple[float, float]] | None = None,
        references: Sequence[Sequence[References]] | None = None,
    ) -> list[Detections]:
        """Return the detections of each image, without gradient; see `FasterRCNN.detect`.

        As in mmtracking, an image's own proposals join its references in testing.

        Args:
            features: maps (B, C_i, H_i, W_i), high to low resolution.
            image_sizes: (height, width) of each image without padding, pixels.
            scale_factors: see `FasterRCNN.detect`.
            references: of the support frames of each image; by default none, and an image looks
                at its own proposals only.

        Raises:
            ValueError: a list has not one entry per image.
        """
        if references is not None:
            check_count("references", references, features)
        second_stage = partial(self.roi_head, references=references)
        return self._detect(features, image_sizes, scale_factors, second_stage)
