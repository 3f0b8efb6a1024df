"""COCO average precision of a detector on a data set of videos."""

from __future__ import annotations

from dataclasses import dataclass

from accelerate import Accelerator

from stpn_data.videos import VideoDataset
from stpn_tasks.detection.detections import Detections
from stpn_tasks.detection.inference import VideoInference, group_videos
from stpn_tasks.engine import evaluate
from stpn_tasks.metrics.coco import (
    AveragePrecision,
    FrameDetections,
    FrameTruth,
    coco_average_precision_by_condition,
)


@dataclass(frozen=True)
class DetectionEvaluation:
    """What an evaluation found.

    Attributes:
        precision: average precision of "all" frames and of the frames of each condition.
        detections: of every frame of every video, by the number of the video.
        num_frames: frames evaluated: the key frames of all videos.
    """

    precision: dict[str, AveragePrecision]
    detections: dict[int, list[Detections]]
    num_frames: int


def evaluate_detector(
    inference: VideoInference,
    dataset: VideoDataset,
    *,
    accelerator: Accelerator,
    batch_size: int = 1,
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
        title: what the progress bar says.
        line: of the terminal, where several processes show bars.
        progress: show the bar.
    """
    detections = evaluate(
        lambda numbers: inference.videos(dataset, numbers),
        group_videos(dataset, batch_size),
        accelerator=accelerator,
        title=title,
        line=line,
        progress=progress,
    )
    truth: list[FrameTruth] = []
    found: list[FrameDetections] = []
    for number, video in enumerate(dataset.videos):
        for index in video.key_frames:
            objects = dataset.objects(number, index)
            truth.append(
                FrameTruth(
                    objects.boxes_xyxy,
                    objects.labels,
                    objects.is_crowd,
                    dataset.conditions(number, index),
                )
            )
            frame = detections[number][index]
            found.append(
                FrameDetections(
                    frame.boxes_xyxy.numpy(), frame.scores.numpy(), frame.labels.numpy()
                )
            )
    precision = coco_average_precision_by_condition(truth, found, dataset.classes)
    return DetectionEvaluation(precision, detections, len(truth))
