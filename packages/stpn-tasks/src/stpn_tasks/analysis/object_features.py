"""Features of annotated objects, pooled from the maps that the detection head sees (A.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from numpy.typing import NDArray
from torch import Tensor

from stpn_data.videos import FrameObjects, VideoDataset
from stpn_tasks.analysis.cam import ALL_FRAMES, CONDITIONS
from stpn_tasks.analysis.frame_features import FrameFeatures, frame_features
from stpn_tasks.detection.boxes import clip_boxes, has_area
from stpn_tasks.detection.inference import VideoInference
from stpn_tasks.detection.motion import frames_around, has_tracks, motion_from_tracks
from stpn_tasks.metrics.vid import MOTION_GROUPS

SPEEDS = ("slow", "medium", "fast")
UNKNOWN = "unknown"


@dataclass(frozen=True)
class ObjectFeatures:
    """The objects of some frames of a data set.

    Attributes:
        features: of each object, the mean over the bins of its region.
        labels: indices into the classes of the data set.
        videos: number of each object's video.
        speeds: "slow", "medium" or "fast" by the object's motion IoU; "unknown" without tracks.
        conditions: of each object's frame.
    """

    features: Float32[np.ndarray, "n C"]
    labels: Int64[np.ndarray, " n"]
    videos: Int64[np.ndarray, " n"]
    speeds: tuple[str, ...]
    conditions: tuple[frozenset[str], ...]

    def groups(self) -> dict[str, Bool[np.ndarray, " n"]]:
        """Tell which objects belong to all, to each speed, and to each condition that occurs."""
        groups = {ALL_FRAMES: np.ones(len(self.labels), np.bool_)}
        for speed in SPEEDS:
            groups[speed] = np.array([one == speed for one in self.speeds], np.bool_)
        for condition in CONDITIONS:
            groups[condition] = np.array([condition in one for one in self.conditions], np.bool_)
        return {name: chosen for name, chosen in groups.items() if chosen.any()}


def object_features(
    inference: VideoInference, dataset: VideoDataset, frames: Mapping[int, Sequence[int]]
) -> ObjectFeatures:
    """Return the features of the objects of some frames, video after video.

    Crowds and boxes without an area inside their frame are left out.

    Args:
        inference: the detector with its sampler.
        dataset: annotated videos.
        frames: numbers of key frames, ascending, by the number of the video.

    Raises:
        ValueError: if there is no object, or a feature is not finite; names the video and frame.
    """
    found, labels, videos = [], [], []
    speeds: list[str] = []
    conditions: list[frozenset[str]] = []
    for video, numbers in frames.items():
        groups = _speeds(dataset, video)
        for one in frame_features(inference, dataset, video, numbers):
            objects = dataset.objects(video, one.index)
            boxes, kept = _boxes(objects, one)
            if not len(kept):
                continue
            pooled = pool_objects(inference, one, boxes)
            if not pooled.isfinite().all():
                name = dataset.videos[video].name
                raise ValueError(f"features of video {name} frame {one.index} are not finite")
            found.append(pooled.float().cpu().numpy())
            labels.append(objects.labels[kept])
            videos.append(np.full(len(kept), video, np.int64))
            speeds += [groups[one.index][place] for place in kept]
            conditions += [dataset.conditions(video, one.index)] * len(kept)
    if not found:
        raise ValueError("the frames have no object to pool features of")
    return ObjectFeatures(
        np.concatenate(found),
        np.concatenate(labels),
        np.concatenate(videos),
        tuple(speeds),
        tuple(conditions),
    )


@torch.no_grad()
def pool_objects(inference: VideoInference, frame: FrameFeatures, boxes_xyxy: Tensor) -> Tensor:
    """Return a feature ``(n, C)`` of each box: RoIAlign, then the mean over the bins.

    Each box is pooled from the level that the head would take for it, in as many bins as the head
    has, 7 × 7 in every recipe.

    Args:
        inference: the detector.
        frame: its features.
        boxes_xyxy: ``(n, 4)`` in pixels of the frame as the network takes it.
    """
    head = inference.detector.head
    pyramid = head.pyramid(frame.features)
    pooled = head.roi_head.pool(pyramid[:-1], [boxes_xyxy.to(pyramid[0])])
    return pooled.mean(dim=(2, 3))


def _boxes(objects: FrameObjects, frame: FrameFeatures) -> tuple[Tensor, NDArray[np.int64]]:
    """Return the boxes to pool, in pixels of the network, and their places in the annotations."""
    y, x = frame.scale
    boxes = torch.from_numpy(objects.boxes_xyxy) * torch.tensor((x, y, x, y))
    boxes = clip_boxes(boxes, frame.size)
    kept = np.flatnonzero(has_area(boxes).numpy() & ~objects.is_crowd)
    return boxes[torch.from_numpy(kept)], kept


def _speeds(dataset: VideoDataset, video: int) -> dict[int, list[str]]:
    """Return the speed of every object of every key frame."""
    around = frames_around(dataset.videos[video])
    objects = {index: dataset.objects(video, index) for index in around}
    if not has_tracks(objects):
        return {index: [UNKNOWN] * len(one) for index, one in objects.items()}
    motion = motion_from_tracks(objects)
    return {index: [speed(float(value)) for value in of] for index, of in motion.items()}


def speed(motion_iou: float) -> str:
    """Return the motion group of a motion IoU; of two that share a bound, the slower one."""
    return next(name for name in SPEEDS if motion_iou >= MOTION_GROUPS[name][0])
