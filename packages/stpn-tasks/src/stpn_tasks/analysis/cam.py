"""EigenCAM of the frames of a data set: maps, how much of them lies in objects, and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from stpn_data.videos import VideoDataset
from stpn_tasks.analysis.eigen_cam import eigen_cam, join_levels
from stpn_tasks.analysis.frame_features import FrameFeatures, frame_features
from stpn_tasks.analysis.targets import Target, detect_on_pyramid, weigh_by_target
from stpn_tasks.detection.inference import VideoInference
from stpn_tasks.metrics import FrameDetections

ALL_FRAMES = "all"
CONDITIONS = ("deteriorated", "clean")


@dataclass(frozen=True)
class Cam:
    """The map of one frame.

    Attributes:
        video: number of the video.
        frame: number of the frame.
        heat: ``(h, w)`` from 0 to 1; ``None`` where no detection has a part in the target.
        found: the detections, in pixels of the frame.
    """

    video: int
    frame: int
    heat: NDArray[np.float32] | None
    found: FrameDetections


@dataclass(frozen=True)
class Focus:
    """How much of the maps of some frames lies in annotated boxes.

    Attributes:
        num_frames: frames with a map and a box.
        num_without: frames with a box, but without a map.
        in_boxes: share of a map's sum that lies in boxes, mean over frames, from 0 to 1; the
            energy-based pointing game of Score-CAM (Wang et al. 2020).
        area: share of the frame that the boxes cover, mean over the same frames: what a map that
            is the same everywhere would have.
    """

    num_frames: int
    num_without: int
    in_boxes: float
    area: float


def frame_cams(
    inference: VideoInference,
    dataset: VideoDataset,
    frames: Mapping[int, Sequence[int]],
    target: Target | None = None,
) -> Iterator[Cam]:
    """Yield the map of each frame.

    Args:
        inference: the detector with its sampler.
        dataset: annotated videos.
        frames: which, ascending, by the number of the video.
        target: what the maps shall explain; EigenCAM without a target if not given.
    """
    for video, numbers in frames.items():
        for one in frame_features(inference, dataset, video, numbers):
            yield _cam(inference, dataset, video, one, target)


def _cam(
    inference: VideoInference,
    dataset: VideoDataset,
    video: int,
    frame: FrameFeatures,
    target: Target | None,
) -> Cam:
    detector = inference.detector
    levels: list[torch.Tensor] | None
    if target is None:
        with torch.no_grad():
            levels = detector.head.pyramid(frame.features)
            found = detect_on_pyramid(detector, levels, frame)
    else:
        objects = dataset.objects(video, frame.index)
        device = frame.features[0].device
        boxes = torch.from_numpy(objects.boxes_xyxy[~objects.is_crowd]).to(device)
        labels = torch.from_numpy(objects.labels[~objects.is_crowd]).to(device)
        levels, found = weigh_by_target(detector, frame, target, boxes, labels)
    heat = None
    if levels is not None:
        shown = (frame.size[0] / frame.padded[0], frame.size[1] / frame.padded[1])
        heat = eigen_cam(join_levels(levels, shown)).float().numpy()
    boxes_found, scores, labels_found = (
        values.cpu().numpy() for values in (found.boxes_xyxy, found.scores, found.labels)
    )
    return Cam(video, frame.index, heat, FrameDetections(boxes_found, scores, labels_found))


def spread_frames(dataset: VideoDataset, num_frames: int) -> dict[int, list[int]]:
    """Choose key frames spread evenly over a data set, at most as many as asked for.

    Returns:
        Their numbers, ascending, by the number of the video.

    Raises:
        ValueError: if none is asked for, or the data set has no key frame.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}")
    keys = [(number, t) for number, video in enumerate(dataset.videos) for t in video.key_frames]
    if not keys:
        raise ValueError("the data has no key frame")
    number = min(num_frames, len(keys))
    places = [(2 * i + 1) * len(keys) // (2 * number) for i in range(number)]
    chosen: dict[int, list[int]] = {}
    for video, t in (keys[place] for place in places):
        chosen.setdefault(video, []).append(t)
    return chosen


def focus_by_condition(dataset: VideoDataset, cams: Sequence[Cam]) -> dict[str, Focus]:
    """Return the focus of all frames, and of deteriorated and clean ones where there are some."""
    groups = {ALL_FRAMES: list(cams)}
    for condition in CONDITIONS:
        groups[condition] = [
            cam for cam in cams if condition in dataset.conditions(cam.video, cam.frame)
        ]
    return {name: focus(dataset, of_group) for name, of_group in groups.items() if of_group}


def focus(dataset: VideoDataset, cams: Sequence[Cam]) -> Focus:
    """Return how much of some maps lies in annotated boxes; NaN where no frame counts."""
    shares, areas, without = [], [], 0
    for cam in cams:
        inside = _inside(dataset, cam.video, cam.frame)
        if not inside.any():
            continue
        if cam.heat is None:
            without += 1
            continue
        size = (inside.shape[1], inside.shape[0])
        heat = cv2.resize(cam.heat, size, interpolation=cv2.INTER_LINEAR)
        total = float(heat.sum())
        # A map without contrast says nothing: like one that is the same everywhere.
        shares.append(float(heat[inside].sum()) / total if total else float(inside.mean()))
        areas.append(float(inside.mean()))
    means = [float(np.mean(values)) if values else float("nan") for values in (shares, areas)]
    return Focus(len(shares), without, *means)


def _inside(dataset: VideoDataset, video: int, frame: int) -> NDArray[np.bool_]:
    """Return which pixels of a frame (H, W) lie in a box."""
    inside = np.zeros((dataset.videos[video].height, dataset.videos[video].width), np.bool_)
    objects = dataset.objects(video, frame)
    for box in objects.boxes_xyxy[~objects.is_crowd]:
        left, top, right, bottom = (max(0, round(float(edge))) for edge in box)
        inside[top:bottom, left:right] = True
    return inside
