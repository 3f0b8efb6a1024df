"""Metrics: pure numpy functions, one file each."""

from stpn_tasks.metrics.coco import (
    AveragePrecision,
    FrameDetections,
    FrameTruth,
    coco_average_precision,
    coco_average_precision_by_condition,
)

__all__ = [
    "AveragePrecision",
    "FrameDetections",
    "FrameTruth",
    "coco_average_precision",
    "coco_average_precision_by_condition",
]
