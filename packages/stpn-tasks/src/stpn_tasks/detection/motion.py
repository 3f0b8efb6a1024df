"""How fast the objects of a data set are: from their tracks, or from the official table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from stpn_data.videos import FrameObjects, Video
from stpn_tasks.detection.motion_table import read_motion_table
from stpn_tasks.metrics.motion_iou import WINDOW, motion_iou


def frames_around(video: Video) -> list[int]:
    """Return the key frames of a video and those that the motion of their objects depends on."""
    return sorted(
        {
            frame
            for key in video.key_frames
            for frame in range(max(0, key - WINDOW), min(video.num_frames, key + WINDOW + 1))
        }
    )


def motion_from_tracks(objects: Mapping[int, FrameObjects]) -> dict[int, np.ndarray]:
    """Return the motion IoU of the objects of each frame (n,), from their tracks.

    Args:
        objects: of some frames of a video.
    """
    if not objects:
        return {}
    counts = [len(one) for one in objects.values()]
    motion = motion_iou(
        np.concatenate([one.boxes_xyxy for one in objects.values()]),
        np.repeat(list(objects), counts),
        np.concatenate([one.track_ids for one in objects.values()]),
    )
    return dict(zip(objects, np.split(motion, np.cumsum(counts)[:-1]), strict=True))


def has_tracks(objects: Mapping[int, FrameObjects]) -> bool:
    """Tell whether any object is seen in two frames, without which nothing is known of motion."""
    track_ids = [track for one in objects.values() for track in one.track_ids.tolist()]
    return len(set(track_ids)) < len(track_ids)


def motion_from_table(
    path: Path, videos: Sequence[Video], num_objects: Sequence[int]
) -> list[np.ndarray]:
    """Read the motion IoU of the objects of each key frame from the official ``.mat``.

    FGFA's ``vid_groundtruth_motion_iou.mat`` has a row for each frame of the validation set, in
    the order of its list, and in it a value for each object in the order of the annotations.

    Args:
        path: the file.
        videos: those that it was made for, all of them.
        num_objects: of each key frame, video after video.

    Returns:
        An array (n,) for each key frame, video after video.

    Raises:
        ValueError: the file cannot be read, or was made for other videos; names file and frame.
    """
    rows = read_motion_table(path)
    num_frames = sum(video.num_frames for video in videos)
    if len(rows) != num_frames:
        raise ValueError(f"{path} has {len(rows)} frames, the videos have {num_frames}")
    starts = accumulate((video.num_frames for video in videos), initial=0)
    places = [
        (start + index, f"{video.name} frame {index}")
        for video, start in zip(videos, starts, strict=False)  # one more: where the last one ends
        for index in video.key_frames
    ]
    for (row, name), number in zip(places, num_objects, strict=True):
        if len(rows[row]) != number:
            raise ValueError(
                f"{path}: row {row + 1} has {len(rows[row])} values, {name} has {number} objects"
            )
    return [rows[row] for row, _ in places]
