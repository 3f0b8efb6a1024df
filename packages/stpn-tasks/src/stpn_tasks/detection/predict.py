"""Detect objects in a user's video: an annotated video and a json of boxes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stpn_data.sampling import VideoUniformSampler
from stpn_data.video import VideoReader, VideoWriter
from stpn_data.videos import DataError
from stpn_tasks.detection.detections import Detections
from stpn_tasks.detection.inference import VideoInference
from stpn_tasks.draw import draw_boxes
from stpn_tasks.tables import write_json
from stpn_tasks.video_encoding import Frame


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
    source = _Source(reader)
    path = reader.path.resolve()
    name = path.name if path.is_dir() else path.stem
    video_path, boxes_path = output / f"{name}.mp4", output / f"{name}.json"
    if video_path.resolve() == path:
        raise ValueError(f"{video_path} is the video itself: choose another output folder")
    output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    rate = reader.fps or fps
    bar = tqdm(total=reader.num_frames, desc=name, unit="frame", disable=not progress)
    with bar, VideoWriter(video_path, rate, reader.size) as writer:
        for found, *_ in _detections(inference, source):
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
            "video": path.name,
            "height": reader.size[0],
            "width": reader.size[1],
            "fps": rate,
            "classes": list(classes),
            "frames": rows,
        },
    )
    return Prediction(video_path, boxes_path, len(rows), source.failure)


class _Source:
    """The frames of a reader, up to its failure, and those whose detections are to come."""

    def __init__(self, reader: VideoReader) -> None:
        self.reader = reader
        self.waiting: deque[Frame] = deque()
        self.failure: DataError | None = None

    def __iter__(self) -> Iterator[Frame]:
        try:
            for frame in self.reader:
                self.waiting.append(frame)
                yield frame
        except DataError as error:
            self.failure = error


def _detections(inference: VideoInference, source: _Source) -> Iterator[list[Detections]]:
    frames = ([frame] for frame in source)
    sampler = inference.sampler
    if not isinstance(sampler, VideoUniformSampler) or inference.support_video == "other":
        return inference.stream(frames)
    num_frames = sum(1 for _ in _readable(source.reader))
    times = set(sampler(0, num_frames))
    support = {t: frame for t, frame in enumerate(_readable(source.reader)) if t in times}
    return inference.whole(frames, num_frames, lambda t: [support[t]])


def _readable(reader: VideoReader) -> Iterator[Frame]:
    """Yield the frames before the first that cannot be read."""
    with suppress(DataError):
        yield from reader


def _row(index: int, found: Detections, classes: Sequence[str]) -> dict[str, Any]:
    return {
        "frame": index,
        "boxes_xyxy": [[round(edge, 2) for edge in box] for box in found.boxes_xyxy.tolist()],
        "scores": [round(score, 5) for score in found.scores.tolist()],
        "labels": [classes[label] for label in found.labels.tolist()],
    }
