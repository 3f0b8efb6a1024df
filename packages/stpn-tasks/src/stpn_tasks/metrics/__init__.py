"""Metrics: pure numpy functions, one file each."""

from stpn_tasks.metrics.coco import (
    AveragePrecision,
    coco_average_precision,
    coco_average_precision_by_condition,
)
from stpn_tasks.metrics.frames import FrameDetections, FrameTruth
from stpn_tasks.metrics.got10k import (
    TrackingReport,
    TrackingSuccess,
    TrackTruth,
    frames_per_second,
    got10k_success,
)
from stpn_tasks.metrics.motion_iou import motion_iou
from stpn_tasks.metrics.vid import VidPrecision, vid_average_precision

__all__ = [
    "AveragePrecision",
    "FrameDetections",
    "FrameTruth",
    "TrackTruth",
    "TrackingReport",
    "TrackingSuccess",
    "VidPrecision",
    "coco_average_precision",
    "coco_average_precision_by_condition",
    "frames_per_second",
    "got10k_success",
    "motion_iou",
    "vid_average_precision",
]
