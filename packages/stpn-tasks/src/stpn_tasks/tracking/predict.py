"""Track a target in a user's video: an annotated video and a json of boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from stpn_data.video import VideoReader, VideoWriter
from stpn_data.videos import DataError
from stpn_tasks.draw import draw_boxes
from stpn_tasks.tables import write_json
from stpn_tasks.tracking.crops import Image
from stpn_tasks.tracking.tracker import OnlineTracker, TrackResult
from stpn_tasks.video_source import output_files

CLASSES = ("target", "lost")


@dataclass(frozen=True)
class TrackPrediction:
    """What was written.

    Attributes:
        video: the annotated mp4.
        boxes: the json of the box in every frame.
        num_frames: frames in both.
        failure: why the input ended before its end; None if it did not.
    """

    video: Path
    boxes: Path
    num_frames: int
    failure: DataError | None


def predict_tracking(
    tracker: OnlineTracker,
    reader: VideoReader,
    box_xywh: Sequence[float],
    output: Path,
    *,
    fps: float = 25.0,
    progress: bool = True,
) -> TrackPrediction:
    """Follow a target through a video and write where it is.

    One frame is held in memory. If the input breaks off, what came before is written all the same,
    and the failure is returned.

    Args:
        tracker: with its network in eval mode.
        reader: the video.
        box_xywh: x, y, width, height of the target in the first frame, in pixels.
        output: folder for ``NAME.mp4`` and ``NAME.json``.
        fps: frames per second where the video does not say, such as a folder of frames.
        progress: show a progress bar.

    Raises:
        DataError: not one frame can be read.
        ValueError: the box has no area on the first frame, or the output would take the place of
            the input.
    """
    video_path, boxes_path = output_files(reader, output)
    rows: list[dict[str, Any]] = []
    rate = reader.fps or fps
    failure: DataError | None = None
    bar = tqdm(total=reader.num_frames, desc=video_path.stem, unit="frame", disable=not progress)
    with bar, VideoWriter(video_path, rate, reader.size) as writer:
        try:
            for frame, result in _follow(tracker, reader, box_xywh):
                rows.append(_row(len(rows), result))
                writer.write(_drawn(frame, result))
                bar.update()
        except DataError as error:
            if not rows:
                raise
            failure = error
    write_json(
        boxes_path,
        {
            "video": reader.path.resolve().name,
            "height": reader.size[0],
            "width": reader.size[1],
            "fps": rate,
            "frames": rows,
        },
    )
    return TrackPrediction(video_path, boxes_path, len(rows), failure)


def _follow(
    tracker: OnlineTracker, reader: VideoReader, box_xywh: Sequence[float]
) -> Iterator[tuple[Image, TrackResult]]:
    """Yield each frame with what is found in it; the first one with the given box."""
    x, y, width, height = (float(value) for value in box_xywh)
    for number, frame in enumerate(reader):
        if number == 0:
            tracker.init(frame, box_xywh)
            yield frame, TrackResult((x, y, width, height), None, is_lost=False)
        else:
            yield frame, tracker.track(frame)


def _drawn(frame: Image, result: TrackResult) -> Image:
    x, y, width, height = result.box_xywh
    return draw_boxes(
        frame,
        np.array([[x, y, x + width, y + height]], np.float32),
        np.array([int(result.is_lost)]),
        CLASSES,
        None if result.score is None else np.array([result.score], np.float32),
    )


def _row(index: int, result: TrackResult) -> dict[str, Any]:
    return {
        "frame": index,
        "box_xywh": [round(value, 3) for value in result.box_xywh],
        "score": None if result.score is None else round(result.score, 5),
        "is_lost": result.is_lost,
    }
