"""Average precision of a detector on a data set of videos, by COCO's and ImageNet VID's rules."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from stpn_data.videos import VideoDataset
from stpn_tasks.detection.detections import Detections
from stpn_tasks.detection.inference import VideoInference
from stpn_tasks.detection.motion import (
    frames_around,
    has_tracks,
    motion_from_table,
    motion_from_tracks,
)
from stpn_tasks.engine import evaluate
from stpn_tasks.metrics import (
    AveragePrecision,
    FrameDetections,
    FrameTruth,
    VidPrecision,
    coco_average_precision_by_condition,
    vid_average_precision,
)
from stpn_tasks.video_encoding import group_videos


@dataclass(frozen=True)
class DetectionEvaluation:
    """What an evaluation found.

    Attributes:
        precision: COCO average precision of "all" frames and of the frames of each condition.
        vid: AP50 of ImageNet VID of "all" objects, and of slow, medium and fast ones where their
            motion is known.
        detections: of every frame of every video, by the number of the video.
        num_frames: frames evaluated: the key frames of all videos.
    """

    precision: dict[str, AveragePrecision]
    vid: dict[str, VidPrecision]
    detections: dict[int, list[Detections]]
    num_frames: int


def evaluate_detector(
    inference: VideoInference,
    dataset: VideoDataset,
    *,
    accelerator: Accelerator,
    batch_size: int = 1,
    motion_table: Path | None = None,
    title: str = "evaluate",
    line: int = 0,
    progress: bool = True,
) -> DetectionEvaluation:
    """Detect in all videos and compare with the objects of their key frames.

    Args:
        inference: the detector with its sampler.
        dataset: annotated videos.
        accelerator: devices and processes; videos are shared out, none is seen twice.
        batch_size: videos of one size and length that run in lock-step.
        motion_table: the official ``.mat`` with the motion of the objects, which otherwise comes
            from their tracks.
        title: what the progress bar says.
        line: of the terminal, where several processes show bars.
        progress: show the bar.

    Raises:
        ValueError: if the table of motion cannot be read, or was made for other videos.
    """
    # What is wrong with annotations shows before hours of detection, not after.
    truth, motion = _read_truth(dataset, motion_table)
    detections = evaluate(
        lambda numbers: inference.videos(dataset, numbers),
        group_videos(dataset, batch_size),
        accelerator=accelerator,
        title=title,
        line=line,
        progress=progress,
    )
    frames = [
        detections[number][index]
        for number, video in enumerate(dataset.videos)
        for index in video.key_frames
    ]
    found = [
        FrameDetections(frame.boxes_xyxy.numpy(), frame.scores.numpy(), frame.labels.numpy())
        for frame in frames
    ]
    return DetectionEvaluation(
        coco_average_precision_by_condition(truth, found, dataset.classes),
        vid_average_precision(truth, found, dataset.classes, motion),
        detections,
        len(truth),
    )


def _read_truth(
    dataset: VideoDataset, motion_table: Path | None
) -> tuple[list[FrameTruth], list[np.ndarray] | None]:
    """Return the objects of every key frame and their motion IoU, if it is known."""
    truth: list[FrameTruth] = []
    motion: list[np.ndarray] = []
    is_tracked = False
    for number, video in enumerate(dataset.videos):
        objects = {index: dataset.objects(number, index) for index in frames_around(video)}
        is_tracked |= has_tracks(objects)
        motion_by_frame = motion_from_tracks(objects)
        for index in video.key_frames:
            truth.append(
                FrameTruth(
                    objects[index].boxes_xyxy,
                    objects[index].labels,
                    objects[index].is_crowd,
                    dataset.conditions(number, index),
                )
            )
            motion.append(motion_by_frame[index])
    if motion_table is not None:
        return truth, motion_from_table(motion_table, dataset.videos, [len(m) for m in motion])
    return truth, motion if is_tracked else None
