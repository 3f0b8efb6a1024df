"""Write the objects of videos as YouTube-VIS's json has them: the truth of its evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stpn_data.rle import encode_masks
from stpn_data.videos import Video, VideoDataset
from stpn_data.youtube_vis import YouTubeVIS


def to_youtube_vis(dataset: VideoDataset) -> dict[str, Any]:
    """Return what a YouTube-VIS json holds, for any data set with masks.

    Videos and categories have the numbers of `youtube_vis_ids`. Every
    track of a video is an annotation with a list over the frames of compressed run-length codes,
    boxes [x, y, width, height] and areas in pixels, each null where the object is not seen.
    Frames are named `<video>/<%05d>.jpg`; nothing is written to disk.

    Raises:
        ValueError: a frame has no masks, or a track changes its class.
    """
    video_ids, category_ids = youtube_vis_ids(dataset)
    annotations: list[dict[str, Any]] = []
    for number, video_id in enumerate(video_ids):
        for track in _tracks(dataset, number, category_ids):
            annotations.append({"id": len(annotations) + 1, "video_id": video_id, **track})
    return {
        "info": {},
        "videos": list(map(_video, video_ids, dataset.videos)),
        "categories": [
            {"id": key, "name": name, "supercategory": "object"}
            for key, name in zip(category_ids, dataset.classes, strict=True)
        ],
        "annotations": annotations,
    }


def youtube_vis_ids(dataset: VideoDataset) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids of the videos and of the classes of a data set, in their order.

    Those of its file, if it is `YouTubeVIS`, as its evaluation server wants them in predictions;
    else numbers from 1.
    """
    if isinstance(dataset, YouTubeVIS):
        return dataset.video_ids, dataset.category_ids
    videos, classes = len(dataset.videos), len(dataset.classes)
    return tuple(range(1, videos + 1)), tuple(range(1, classes + 1))


def _video(number: int, video: Video) -> dict[str, Any]:
    return {
        "id": number,
        "width": video.width,
        "height": video.height,
        "length": video.num_frames,
        "file_names": [f"{video.name}/{t:05d}.jpg" for t in range(video.num_frames)],
    }


def _tracks(
    dataset: VideoDataset, number: int, category_ids: Sequence[int]
) -> Sequence[dict[str, Any]]:
    """Return the annotations of a video in the order of their track ids."""
    video = dataset.videos[number]
    tracks: dict[int, dict[str, Any]] = {}
    for t in range(video.num_frames):
        objects = dataset.objects(number, t)
        if objects.masks is None:
            raise ValueError(f"{video.name} frame {t} has no masks")
        codes = encode_masks(objects.masks)
        for i, track_id in enumerate(objects.track_ids.tolist()):
            category = category_ids[objects.labels[i]]
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
