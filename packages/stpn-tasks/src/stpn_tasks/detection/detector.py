"""A video detector: an encoder and a detection head."""

from __future__ import annotations

from torch import nn

from stpn_core import VideoEncoder
from stpn_data.batch import ClipBatch
from stpn_tasks.detection.detections import DetectionLosses
from stpn_tasks.detection.faster_rcnn import FasterRCNN


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

    def forward(self, batch: ClipBatch) -> DetectionLosses:
        """Return the losses of a batch of annotated clips."""
        support = batch.support if self.encoder.takes_support else None
        if self.encoder.takes_support and support is None:
            raise ValueError("this detector has a prompt predictor, but the clips have no support")
        features = self.encoder(batch.frames, support)
        return self.head.loss(features, batch.image_sizes, batch.targets)
