"""A video detector: an encoder and a detection head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stpn_core import SupportFrame, VideoEncoder
from stpn_data.batch import ClipBatch
from stpn_tasks.detection.detections import DetectionLosses, Detections
from stpn_tasks.detection.faster_rcnn import FasterRCNN
from stpn_tasks.detection.selsa import References, SelsaRCNN


class VideoDetector(nn.Module):
    """Detect objects in frames with the features of a video encoder.

    With an encoder that has no predictor it is the single-frame baseline.

    Args:
        encoder: gives the feature maps of the current frame.
        head: finds the objects on them.
    """

    def __init__(self, encoder: VideoEncoder, head: FasterRCNN) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    @property
    def takes_support(self) -> bool:
        """Whether support frames have a say."""
        return self.encoder.takes_support

    def forward(self, batch: ClipBatch) -> DetectionLosses:
        """Return the losses of a batch of annotated clips.

        Raises:
            ValueError: the clips lack the support frames that the detector reads.
        """
        support = self.support(batch) if self.takes_support else None
        features = self.encoder(batch.frames, support)
        return self.head.loss(features, batch.image_sizes, batch.targets)

    def support(self, batch: ClipBatch) -> Tensor:
        """Return the support frames ``(B, K, 3, H, W)`` of a batch, which must be there."""
        if batch.support is None:
            raise ValueError("this detector reads support frames, but the clips have none")
        return batch.support

    def describe(self, images: Tensor, image_sizes: Sequence[tuple[int, int]]) -> SupportFrame:
        """Return what to remember of a support frame of B videos; asked once per frame.

        Args:
            images: ``(B, 3, H, W)``, normalised and padded.
            image_sizes: (height, width) of each image without padding, pixels.
        """
        return SupportFrame(self.encoder.embed(images))

    def detect(
        self,
        features: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
        scale_factors: Sequence[tuple[float, float]],
        notes: Sequence[Sequence[Any]] = (),
    ) -> list[Detections]:
        """Return the detections in B current frames; see `FasterRCNN.detect`.

        Args:
            features: maps ``(B, C_i, H_i, W_i)``, high to low resolution.
            image_sizes: (height, width) of each image without padding, pixels.
            scale_factors: (height, width) of each image divided by those of its original.
            notes: for each of the B what `describe` notes of each of its support frames.
        """
        return self.head.detect(features, image_sizes, scale_factors)


class SelsaDetector(VideoDetector):
    """Detect objects with prompts of the support frames, and with their regions (SELSA).

    The paper combines the two and leaves open how; the choices here are ours. By default the
    regions of a support frame are pooled from the plain pass that prompts are predicted from, so
    that they cost no further pass over the backbone.

    Args:
        encoder: gives the feature maps of the current frame; without a predictor this is SELSA
            alone.
        head: finds the objects on them.
        prompted_references: pool the regions of a support frame from a second pass, prompted by
            that frame alone: prompts of the current frame would make them depend on it.
        reference_grad: let gradients through the pass that regions of support frames are pooled
            from; pyramid and second stage learn from these regions in any case.
    """

    head: SelsaRCNN

    def __init__(
        self,
        encoder: VideoEncoder,
        head: SelsaRCNN,
        *,
        prompted_references: bool = False,
        reference_grad: bool = False,
    ) -> None:
        super().__init__(encoder, head)
        self.prompted_references = prompted_references
        self.reference_grad = reference_grad

    @property
    def takes_support(self) -> bool:
        """Whether support frames have a say: their regions do."""
        return True

    def forward(self, batch: ClipBatch) -> DetectionLosses:
        """Return the losses of a batch of annotated clips.

        Raises:
            ValueError: the clips have no support frames.
        """
        support, encoder = self.support(batch), self.encoder
        num_clips, num_support = support.shape[:2]
        sizes = [size for clip in batch.support_sizes for size in clip]
        described = self.describe(support.flatten(0, 1), sizes)
        if described.embedding is None:
            features = encoder(batch.frames, None)
        else:
            embeddings = described.embedding.unflatten(0, (num_clips, num_support))
            features = encoder.backbone(batch.frames, encoder.predict(embeddings))
        assert described.notes is not None
        clips = [described.notes[i * num_support :][:num_support] for i in range(num_clips)]
        return self.head.loss(features, batch.image_sizes, batch.targets, references=clips)

    def describe(self, images: Tensor, image_sizes: Sequence[tuple[int, int]]) -> SupportFrame:
        """Return the embeddings of a support frame of B videos; notes are its `References`."""
        encoder = self.encoder
        if not self.prompted_references:
            embedding, features = encoder.embed_with_features(
                images, features_grad=self.reference_grad
            )
        else:
            embedding = encoder.embed(images) if encoder.takes_support else None
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.reference_grad):
                if embedding is None:
                    features = encoder(images, None)
                else:
                    features = encoder.backbone(images, encoder.predict(embedding[:, None]))
        return SupportFrame(embedding, self.head.references(features, image_sizes))

    def detect(
        self,
        features: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
        scale_factors: Sequence[tuple[float, float]],
        notes: Sequence[Sequence[References]] = (),
    ) -> list[Detections]:
        """Return the detections in B current frames; see `SelsaRCNN.detect`."""
        return self.head.detect(features, image_sizes, scale_factors, notes)
