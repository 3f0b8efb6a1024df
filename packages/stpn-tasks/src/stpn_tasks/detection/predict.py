"""Detect objects in a user's video: an annotated video and a json of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stpn_data.video import VideoReader, VideoWriter
from stpn_data.videos import DataError
from stpn_tasks.detection.detections import Detections
from stpn_tasks.detection.inference import VideoInference
from stpn_tasks.draw import draw_boxes
from stpn_tasks.tables import write_json
from stpn_tasks.video_source import VideoSource, output_files


@dataclass(frozen=True)
class Prediction:
    """What was written.

    Attributes:
        video: the annotated mp4.
        boxes: the json of all detections.
        num_frames: frames in both.
        failure: why the input ended before its end; ``None`` if it did not.
    """

    video: Path
    boxes: Path
    num_frames: int
    failure: DataError | None


def predict_video(
    inference: VideoInference,
    reader: VideoReader,
    classes: Sequence[str],
    output: Path,
    *,
    threshold: float = 0.3,
    fps: float = 25.0,
    progress: bool = True,
) -> Prediction:
    """Run a detector over a video and write what it finds.

    The video is streamed: only the frames that wait for their support frames are held in memory.
    Where support frames are spread over the whole video it is read three times, to count its
    frames, for the support frames, which are held, and to detect. If the input breaks off, what
    came before is written all the same, and the failure is returned.

    Args:
        inference: the detector with its sampler.
        reader: the video.
        classes: names of the detector's classes.
        output: folder for ``NAME.mp4`` and ``NAME.json``.
        threshold: boxes with a lower score are not drawn; the json has all of them.
        fps: frames per second where the video does not say, such as a folder of frames.
        progress: show a progress bar.

    Raises:
        DataError: if not one frame can be read.
        ValueError: if the support frames shall be another video's, or the output would take the
            place of the input.
    """
    source = VideoSource(reader)
    video_path, boxes_path = output_files(reader, output)
    rows: list[dict[str, Any]] = []
    rate = reader.fps or fps
    bar = tqdm(total=reader.num_frames, desc=video_path.stem, unit="frame", disable=not progress)
    with bar, VideoWriter(video_path, rate, reader.size) as writer:
        groups = source.encoded(inference.encoding)
        for found, *_ in (each for group in groups for each in inference.detect(group)):
            frame = source.waiting.popleft()
            rows.append(_row(len(rows), found, classes))
            kept = found.scores >= threshold
            writer.write(
                draw_boxes(
                    frame,
                    found.boxes_xyxy[kept].numpy(),
                    found.labels[kept].numpy(),
                    classes,
                    found.scores[kept].numpy(),
                )
            )
            bar.update()
        if not rows and source.failure is not None:
            raise source.failure
    write_json(
        boxes_path,
        {
            "video": reader.path.resolve().name,
            "height": reader.size[0],
            "width": reader.size[1],
            "fps": rate,
            "classes": list(classes),
            "frames": rows,
        },
    )
    return Prediction(video_path, boxes_path, len(rows), source.failure)


def _row(index: int, found: Detections, classes: Sequence[str]) -> dict[str, Any]:
    return {
        "frame": index,
        "boxes_xyxy": [[round(edge, 2) for edge in box] for box in found.boxes_xyxy.tolist()],
        "scores": [round(score, 5) for score in found.scores.tolist()],
        "labels": [classes[label] for label in found.labels.tolist()],
    }
