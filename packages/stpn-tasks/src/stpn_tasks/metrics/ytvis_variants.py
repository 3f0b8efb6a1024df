"""Other questions for the metric of YouTube-VIS: frame by frame, and without classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from stpn_tasks.metrics.ytvis import YtvisPrecision, ytvis_by_condition
from stpn_tasks.metrics.ytvis_tracks import Masks, VideoPrediction, VideoTruth

ANY_CATEGORY = {1: "any"}
"""The categories of what `without_classes` returns."""


def frame_average_precision(
    videos: Sequence[VideoTruth],
    predictions: Sequence[Sequence[Sequence[VideoPrediction]]],
    categories: Mapping[int, str],
    conditions: Sequence[Sequence[frozenset[str]]] | None = None,
) -> dict[str, YtvisPrecision]:
    """Return the numbers of all frames and of each condition's, each frame a video of one frame.

    So no association counts. An object without a pixel in a frame is not there.

    Args:
        videos: with their objects.
        predictions: of each video and frame, with a single mask each.
        categories: names by id.
        conditions: of each video and frame, as "clean" or "deteriorated"; those of the videos if
            not given.

    Raises:
        ValueError: the arguments disagree, or a mask or score is not usable.
    """
    frames: list[VideoTruth] = []
    for index, video in enumerate(videos):
        of_video = None if conditions is None else conditions[index]
        frames += frames_of(video, of_video)
        if len(predictions[index]) != video.length:
            raise ValueError(
                f"video {video.name}: predictions for {len(predictions[index])} frames of "
                f"{video.length}"
            )
    found = [of_frame for of_video in predictions for of_frame in of_video]
    return ytvis_by_condition(frames, found, categories)


def frames_of(
    video: VideoTruth, conditions: Sequence[frozenset[str]] | None = None
) -> list[VideoTruth]:
    """Return the frames of a video as videos of one frame, with the objects seen there.

    Args:
        video: to cut.
        conditions: of each frame; those of the video if not given.

    Raises:
        ValueError: an object, or the conditions, do not have the number of frames of the video.
    """
    conditions = [video.conditions] * video.length if conditions is None else conditions
    for what, number in [("conditions", len(conditions))] + [
        (f"masks of object {i}", len(thing.masks)) for i, thing in enumerate(video.objects)
    ]:
        if number != video.length:
            raise ValueError(f"video {video.name}: {number} {what} for {video.length} frames")
    return [
        replace(
            video,
            name=f"{video.name}, frame {frame}",
            length=1,
            objects=[
                replace(
                    thing,
                    masks=[thing.masks[frame]],
                    areas=None if thing.areas is None else [thing.areas[frame]],
                )
                for thing in video.objects
                if thing.masks[frame] is not None
            ],
            conditions=conditions[frame],
        )
        for frame in range(video.length)
    ]


def predictions_of_frames(
    predictions: Sequence[VideoPrediction], length: int
) -> list[list[VideoPrediction]]:
    """Return what the predictions of a video say of each frame, those with a mask there."""
    return [
        [replace(one, masks=[one.masks[frame]]) for one in predictions if one.masks[frame]]
        for frame in range(length)
    ]


def without_classes(
    videos: Sequence[VideoTruth], predictions: Sequence[Sequence[VideoPrediction]]
) -> tuple[list[VideoTruth], list[list[VideoPrediction]]]:
    """Return objects and predictions of one and the same category, `ANY_CATEGORY`.

    Predictions of a video with the same masks are one query with several classes; the best one is
    kept, or else the others would count as false ones. (Where the ten best of all pairs of a query
    and a class were written, few queries may be left: let each query be written once.) The mean
    is over objects, no more over categories, so the numbers compare with each other only.

    Args:
        videos: with their objects.
        predictions: of the same videos, in the same order.
    """
    category = next(iter(ANY_CATEGORY))
    truths = [
        replace(video, objects=[replace(thing, category=category) for thing in video.objects])
        for video in videos
    ]
    return truths, [_one_per_query(of_video, category) for of_video in predictions]


def _one_per_query(predictions: Sequence[VideoPrediction], category: int) -> list[VideoPrediction]:
    best: dict[object, VideoPrediction] = {}
    for one in predictions:
        key = _key(one.masks)
        if key not in best or best[key].score < one.score:
            best[key] = replace(one, category=category)
    return list(best.values())


def _key(masks: Masks) -> object:
    """Return what is equal for equal masks."""
    counts = [None if rle is None else rle["counts"] for rle in masks]
    return tuple(tuple(runs) if isinstance(runs, list) else runs for runs in counts)
