"""Object detection: Faster R-CNN on the feature maps of any backbone."""

from stpn_tasks.detection.detections import DetectionLosses, Detections
from stpn_tasks.detection.faster_rcnn import FasterRCNN
from stpn_tasks.detection.weights import convert_released_detector

__all__ = ["DetectionLosses", "Detections", "FasterRCNN", "convert_released_detector"]
