"""Object detection: Faster R-CNN and SELSA on the feature maps of any backbone."""

from stpn_tasks.detection.detections import DetectionLosses, Detections
from stpn_tasks.detection.faster_rcnn import FasterRCNN
from stpn_tasks.detection.selsa import SelsaRCNN
from stpn_tasks.detection.weights import convert_released_detector

__all__ = [
    "DetectionLosses",
    "Detections",
    "FasterRCNN",
    "SelsaRCNN",
    "convert_released_detector",
]
