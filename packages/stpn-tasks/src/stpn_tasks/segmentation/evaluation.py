"""Average precision of a segmenter by YouTube-VIS' rules: of videos, of frames, of windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from accelerate import Accelerator

from stpn_data.videos import Video, VideoDataset
from stpn_data.windows import windows_without_clean_frame
from stpn_data.youtube_vis_json import youtube_vis_ids
from stpn_tasks.engine import evaluate
from stpn_tasks.metrics import (
    VideoPrediction,
    VideoTruth,
    YtvisPrecision,
    frame_average_precision,
    without_classes,
    ytvis_average_precision,
    ytvis_by_condition,
)
from stpn_tasks.metrics.ytvis_variants import ANY_CATEGORY, frames_of
from stpn_tasks.segmentation.association import AssociationOptions
from stpn_tasks.segmentation.findings import Finder, Findings, Questions, object_masks
from stpn_tasks.segmentation.inference import VideoSegmentation
from stpn_tasks.segmentation.truth_file import YtvisTruth
from stpn_tasks.video_encoding import group_videos

WINDOW_FRAMES = 4


@dataclass(frozen=True)
class SegmentationEvaluation:
    """What an evaluation found.

    Attributes:
        video: the numbers of whole videos.
        frames: of "all" frames and of those of each condition, each frame a video of its own;
            empty where the data names no conditions.
        windows: of windows of four frames of which none is clean; ``None`` without any.
        num_windows: how many.
        headroom: if asked for, what is lost where; no bounds. "oracle" has the tracks that
            annotations would give in place of MinVIS' own, in annotated frames; crowds have none,
            nor objects beyond the number of queries. The others compare without classes, each track
            or query once: "video, no classes", "all frames, no classes", and so of each condition.
        predictions: of every video.
    """

    video: YtvisPrecision
    frames: dict[str, YtvisPrecision]
    windows: YtvisPrecision | None
    num_windows: int
    headroom: dict[str, YtvisPrecision]
    predictions: list[list[VideoPrediction]]


def evaluate_segmenter(
    inference: VideoSegmentation,
    dataset: VideoDataset,
    truth: YtvisTruth,
    *,
    accelerator: Accelerator,
    headroom: bool = False,
    association: AssociationOptions = AssociationOptions(),  # noqa: B008
    batch_size: int = 1,
    title: str = "evaluate",
    line: int = 0,
    progress: bool = True,
) -> SegmentationEvaluation:
    """Segment all videos and compare with the objects of their key frames.

    Args:
        inference: the segmenter with its sampler.
        dataset: annotated videos.
        truth: their objects.
        accelerator: devices and processes; videos are shared out, none is seen twice.
        headroom: also tell what association and classes cost.
        association: how tracks go on.
        batch_size: videos of one size and length that run in lock-step.
        title: what the progress bar says.
        line: of the terminal, where several processes show bars.
        progress: show the bar.

    Raises:
        ValueError: if the truth is not of these videos, or an annotation cannot be used.
    """
    truths = truth_of_videos(dataset, truth)  # what is wrong with it shows before the work
    conditions = [
        [dataset.conditions(number, t) for t in range(video.num_frames)]
        for number, video in enumerate(dataset.videos)
    ]
    has_conditions = any(condition for of_video in conditions for condition in of_video)
    windows: list[list[int]] = [[] for _ in truths]
    for number, first in windows_without_clean_frame(dataset, WINDOW_FRAMES):
        windows[number].append(first)

    def ask(number: int) -> Questions:
        objects = object_masks(dataset, number) if headroom else None
        keys = dataset.videos[number].key_frames
        return Questions(
            has_conditions, tuple(windows[number]), WINDOW_FRAMES, objects, keys, association
        )

    found = find_in_videos(
        inference,
        dataset,
        ask,
        accelerator=accelerator,
        batch_size=batch_size,
        title=title,
        line=line,
        progress=progress,
    )
    categories = truth.categories
    predictions = [findings.video for findings in found]
    keys = [video.key_frames for video in dataset.videos]
    on_keys = _on_key_frames(truths, predictions, keys)
    cut = [
        on_frames(truths[number], range(first, first + WINDOW_FRAMES))
        for number, of_video in enumerate(windows)
        for first in of_video
    ]
    in_windows = [of_window for findings in found for of_window in findings.windows]
    frames: dict[str, YtvisPrecision] = {}
    if has_conditions:
        of_frames = [findings.frames for findings in found]
        frames = frame_average_precision(truths, of_frames, categories, conditions)
    return SegmentationEvaluation(
        video=ytvis_average_precision(*on_keys, categories),
        frames=frames,
        windows=ytvis_average_precision(cut, in_windows, categories) if cut else None,
        num_windows=len(cut),
        headroom=_headroom(truths, found, keys, categories, conditions) if headroom else {},
        predictions=predictions,
    )


def find_in_videos(
    inference: VideoSegmentation,
    dataset: VideoDataset,
    ask: Callable[[int], Questions],
    *,
    accelerator: Accelerator,
    batch_size: int = 1,
    title: str = "segment",
    line: int = 0,
    progress: bool = True,
) -> list[Findings]:
    """Segment all videos and return what was asked of each, with the data set's category ids.

    Args:
        inference: the segmenter with its sampler.
        dataset: the videos; their annotations are not looked at.
        ask: returns the questions about a video.
        accelerator: devices and processes; videos are shared out, none is seen twice.
        batch_size: videos of one size and length that run in lock-step.
        title: what the progress bar says.
        line: of the terminal, where several processes show bars.
        progress: show the bar.

    Raises:
        ValueError: what a segmenter says of a frame is not finite; video and frame are named.
    """
    _, category_ids = youtube_vis_ids(dataset)

    def run(numbers: Sequence[int]) -> list[Findings]:
        finders: list[Finder] = []
        for frame in inference.videos(dataset, numbers):
            if not finders:
                finders = [Finder(frame.sizes, category_ids, ask(number)) for number in numbers]
            for i, finder in enumerate(finders):
                with _naming(dataset.videos[numbers[i]]):
                    finder.push(frame.index, frame.logits[i], frame.masks[i], frame.embeddings[i])
        return [finder.findings() for finder in finders]

    found = evaluate(
        run,
        group_videos(dataset, batch_size),
        accelerator=accelerator,
        title=title,
        line=line,
        progress=progress,
    )
    return list(found.values())


@contextmanager
def _naming(video: Video) -> Iterator[None]:
    """Name the video in an error of one of its frames."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{video.name}: {error}") from error


def truth_of_videos(dataset: VideoDataset, truth: YtvisTruth) -> list[VideoTruth]:
    """Return the objects of each video of a data set, in its order.

    Raises:
        ValueError: a video is not in the truth, or has another length there; it is named.
    """
    truths = []
    for key, video in zip(youtube_vis_ids(dataset)[0], dataset.videos, strict=True):
        of_video = truth.videos.get(key)
        if of_video is None or of_video.length != video.num_frames:
            raise ValueError(f"the truth has no video {key} of {video.num_frames} frames")
        truths.append(of_video)
    return truths


def on_frames(video: VideoTruth, frames: Sequence[int]) -> VideoTruth:
    """Return some frames of a video as a video, with the objects that are seen in them."""
    objects = [
        replace(
            thing,
            masks=[thing.masks[t] for t in frames],
            areas=None if thing.areas is None else [thing.areas[t] for t in frames],
        )
        for thing in video.objects
        if any(thing.masks[t] is not None for t in frames)
    ]
    return replace(video, length=len(frames), objects=objects)


def _on_key_frames(
    truths: Sequence[VideoTruth],
    predictions: Sequence[Sequence[VideoPrediction]],
    key_frames: Sequence[Sequence[int]],
) -> tuple[list[VideoTruth], list[list[VideoPrediction]]]:
    """Return objects and predictions in the annotated frames."""
    return (
        [on_frames(video, keys) for video, keys in zip(truths, key_frames, strict=True)],
        [
            [replace(one, masks=[one.masks[t] for t in keys]) for one in of_video]
            for of_video, keys in zip(predictions, key_frames, strict=True)
        ],
    )


def _headroom(
    truths: Sequence[VideoTruth],
    found: Sequence[Findings],
    key_frames: Sequence[Sequence[int]],
    categories: Mapping[int, str],
    conditions: Sequence[Sequence[frozenset[str]]],
) -> dict[str, YtvisPrecision]:
    tracks = _on_key_frames(truths, [findings.tracks for findings in found], key_frames)
    oracle = [findings.oracle for findings in found]  # of key frames already
    numbers = {
        "oracle": ytvis_average_precision(tracks[0], oracle, categories),
        "video, no classes": ytvis_average_precision(*without_classes(*tracks), ANY_CATEGORY),
    }
    if all(findings.frame_queries for findings in found):
        frames = [
            frame
            for video, of_video in zip(truths, conditions, strict=True)
            for frame in frames_of(video, of_video)
        ]
        queries = [frame for findings in found for frame in findings.frame_queries]
        by_condition = ytvis_by_condition(*without_classes(frames, queries), ANY_CATEGORY)
        numbers |= {f"{name} frames, no classes": one for name, one in by_condition.items()}
    return numbers
