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
from stpn_tasks.metrics.ytvis import (
    YtvisCurves,
    YtvisPrecision,
    ytvis_average_precision,
    ytvis_by_condition,
    ytvis_curves,
)
from stpn_tasks.metrics.ytvis_tracks import VideoObject, VideoPrediction, VideoTruth
from stpn_tasks.metrics.ytvis_variants import (
    frame_average_precision,
    predictions_of_frames,
    without_classes,
)

__all__ = [
    "AveragePrecision",
    "FrameDetections",
    "FrameTruth",
    "TrackTruth",
    "TrackingReport",
    "TrackingSuccess",
    "VidPrecision",
    "VideoObject",
    "VideoPrediction",
    "VideoTruth",
    "YtvisCurves",
    "YtvisPrecision",
    "coco_average_precision",
    "coco_average_precision_by_condition",
    "frame_average_precision",
    "frames_per_second",
    "got10k_success",
    "motion_iou",
    "predictions_of_frames",
    "vid_average_precision",
    "without_classes",
    "ytvis_average_precision",
    "ytvis_by_condition",
    "ytvis_curves",
]
