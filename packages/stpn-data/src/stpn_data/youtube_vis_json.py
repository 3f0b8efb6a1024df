"""Write the objects of videos as YouTube-VIS's json has them: the truth of its evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stpn_data.rle import encode_masks
from stpn_data.videos import Video, VideoDataset


def to_youtube_vis(dataset: VideoDataset) -> dict[str, Any]:
    """Return what a YouTube-VIS json holds, for any data set with masks.

    Videos are numbered from 1 in their order, so are categories in the order of the labels. Every
    track of a video is an annotation with a list over the frames of compressed run-length codes,
    boxes [x, y, width, height] and areas in pixels, each null where the object is not seen.
    Frames are named `<video>/<%05d>.jpg`; nothing is written to disk.

    Raises:
        ValueError: a frame has no masks, or a track changes its class.
    """
    annotations: list[dict[str, Any]] = []
    for number in range(len(dataset.videos)):
        for track in _tracks(dataset, number):
            annotations.append({"id": len(annotations) + 1, "video_id": number + 1, **track})
    return {
        "info": {},
        "videos": [_video(i, video) for i, video in enumerate(dataset.videos, start=1)],
        "categories": [
            {"id": i, "name": name, "supercategory": "object"}
            for i, name in enumerate(dataset.classes, start=1)
        ],
        "annotations": annotations,
    }


def _video(number: int, video: Video) -> dict[str, Any]:
    return {
        "id": number,
        "width": video.width,
        "height": video.height,
        "length": video.num_frames,
        "file_names": [f"{video.name}/{t:05d}.jpg" for t in range(video.num_frames)],
    }


def _tracks(dataset: VideoDataset, number: int) -> Sequence[dict[str, Any]]:
    """Return the annotations of a video in the order of their track ids."""
    video = dataset.videos[number]
    tracks: dict[int, dict[str, Any]] = {}
    for t in range(video.num_frames):
        objects = dataset.objects(number, t)
        if objects.masks is None:
            raise ValueError(f"{video.name} frame {t} has no masks")
        codes = encode_masks(objects.masks)
        for i, track_id in enumerate(objects.track_ids.tolist()):
            category = int(objects.labels[i]) + 1
            track = tracks.setdefault(track_id, _new_track(video, category))
            if track["category_id"] != category:
                raise ValueError(f"{video.name} frame {t}: track {track_id} changes its class")
            left, top, right, bottom = objects.boxes_xyxy[i].tolist()
            track["iscrowd"] |= int(objects.is_crowd[i])
            track["segmentations"][t] = codes[i]
            track["bboxes"][t] = [left, top, right - left, bottom - top]
            track["areas"][t] = int(np.count_nonzero(objects.masks[i]))
    return [tracks[key] for key in sorted(tracks)]


def _new_track(video: Video, category: int) -> dict[str, Any]:
    return {
        "category_id": category,
        "iscrowd": 0,
        "width": video.width,
        "height": video.height,
        "length": 1,  # as in the official file
        **{name: [None] * video.num_frames for name in ("segmentations", "bboxes", "areas")},
    }
