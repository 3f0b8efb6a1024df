"""Strips of consecutive frames, and the frames where one model does best and worst."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stpn_data.videos import VideoDataset
from stpn_tasks.report.frame_score import FrameScore, score_frame
from stpn_tasks.report.page import Html, figure, text
from stpn_tasks.report.pictures import Cell, Line, Pictures, grid, spoken_boxes, thumbnail
from stpn_tasks.report.words import in_order, spoken

NUM_STRIPS = 4
NUM_FRAMES = 6
NUM_BEST = 4
_WORSE = "deteriorated"


@dataclass(frozen=True)
class Strip:
    """Consecutive frames of a video.

    Attributes:
        video: number of the video.
        frames: their numbers, ascending.
        centre: the frame in the middle of what the strip is about.
    """

    video: int
    frames: range
    centre: int


@dataclass(frozen=True)
class RankedFrame:
    """A frame with what the models found in it.

    Attributes:
        video: number of the video.
        frame: number of the frame.
        scores: by model.
    """

    video: int
    frame: int
    scores: Mapping[str, FrameScore]

    @property
    def lead(self) -> float:
        """F1 of the last model minus that of the first; of a single model its F1."""
        first, *others = self.scores.values()
        return others[-1].f1 - first.f1 if others else first.f1


def choose_strips(dataset: VideoDataset) -> list[Strip]:
    """Choose strips without looking at any model.

    Of each video the longest run of deteriorated frames is a candidate, the first one where
    several are longest, or its middle key frame where none is deteriorated. Whichever shows the
    most conditions not shown yet comes next, deteriorated before others, the earlier video where
    several do.
    """
    candidates = [_candidate(dataset, number) for number in range(len(dataset.videos))]
    chosen: list[Strip] = []
    shown: set[str] = set()

    def rank(strip: Strip) -> tuple[bool, int, int]:
        conditions = dataset.conditions(strip.video, strip.centre)
        return _WORSE not in conditions, -len(conditions - shown), strip.video

    while candidates and len(chosen) < NUM_STRIPS:
        strip = min(candidates, key=rank)
        candidates.remove(strip)
        chosen.append(strip)
        shown |= dataset.conditions(strip.video, strip.centre)
    return chosen


def draw_strip(strip: Strip, pictures: Pictures, labels: Mapping[str, str]) -> Html:
    """Return a strip: for each frame the truth and the boxes of each model."""
    dataset = pictures.dataset
    conditions = [dataset.conditions(strip.video, frame) for frame in strip.frames]
    common = frozenset.intersection(*conditions)
    lines = [
        _line(pictures, labels, strip.video, frame, str(frame), _said(of_frame - common, pictures))
        for frame, of_frame in zip(strip.frames, conditions, strict=True)
    ]
    named = f" ({_said(common, pictures)})" if _said(common, pictures) else ""
    name = dataset.videos[strip.video].name
    first, last = strip.frames[0], strip.frames[-1]
    caption = text(f"Video {name}{named}, frames {first} to {last}.")
    return figure(grid(_rows(labels), lines), caption)


def rank_frames(pictures: Pictures) -> list[RankedFrame]:
    """Return all key frames, the largest lead first, in the order of the data set where equal."""
    frames = [
        RankedFrame(number, frame, _scores(pictures, number, frame))
        for number, video in enumerate(pictures.dataset.videos)
        for frame in video.key_frames
    ]
    return sorted(frames, key=lambda ranked: -ranked.lead)  # a stable sort


def pick(ranked: Sequence[RankedFrame], num_videos: int) -> list[RankedFrame]:
    """Pick the first frames of a ranking, from as many videos as there are.

    Neighbouring frames look alike: a video gives one frame, or its share of `NUM_BEST` where there
    are fewer videos than that.
    """
    share = math.ceil(NUM_BEST / max(1, num_videos))
    taken: dict[int, int] = {}
    picked: list[RankedFrame] = []
    for one in ranked:
        if len(picked) < NUM_BEST and taken.get(one.video, 0) < share:
            taken[one.video] = taken.get(one.video, 0) + 1
            picked.append(one)
    return picked


def draw_ranked(
    frames: Sequence[RankedFrame], pictures: Pictures, labels: Mapping[str, str], caption: str
) -> Html:
    """Return frames of a ranking, in its order: the truth and the boxes of each model."""
    lines = []
    for one in frames:
        name = pictures.dataset.videos[one.video].name
        conditions = pictures.dataset.conditions(one.video, one.frame)
        title, note = f"{name}, frame {one.frame}", _said(conditions, pictures)
        lines.append(_line(pictures, labels, one.video, one.frame, title, note))
    return figure(grid(_rows(labels), lines), text(caption))


def _candidate(dataset: VideoDataset, number: int) -> Strip:
    video = dataset.videos[number]
    runs = list(_runs([_WORSE in dataset.conditions(number, t) for t in range(video.num_frames)]))
    longest = max(runs, key=len, default=None)
    if longest is None:
        keys = video.key_frames or (video.num_frames // 2,)
        centre = keys[len(keys) // 2]
    else:
        centre = longest[len(longest) // 2]
    length = min(NUM_FRAMES, video.num_frames)
    start = min(max(0, centre - length // 2), video.num_frames - length)
    return Strip(number, range(start, start + length), centre)


def _runs(flags: Sequence[bool]) -> Iterator[range]:
    """Yield the runs of true flags."""
    start = 0
    for place, flag in enumerate([*flags, False]):
        if not flag:
            if place > start:
                yield range(start, place)
            start = place + 1


def _scores(pictures: Pictures, video: int, frame: int) -> dict[str, FrameScore]:
    truth = pictures.truth(video, frame)
    return {
        model: score_frame(truth, pictures.found(model, video, frame))
        for model in pictures.detections
    }


def _line(
    pictures: Pictures,
    labels: Mapping[str, str],
    video: int,
    frame: int,
    title: str,
    note: str,
) -> Line:
    classes = pictures.dataset.classes
    image, truth = pictures.dataset.frame(video, frame), pictures.truth(video, frame)
    place = f"video {pictures.dataset.videos[video].name}, frame {frame}"
    cells = [
        Cell(thumbnail(image, truth, classes), f"{place}, truth: {spoken_boxes(truth, classes)}")
    ]
    for model, score in _scores(pictures, video, frame).items():
        found = pictures.found(model, video, frame)
        alt = f"{place}, {labels[model]}: {spoken_boxes(found, classes)}"
        cells.append(Cell(thumbnail(image, found, classes), alt, str(score)))
    return Line(title, note, tuple(cells))


def _rows(labels: Mapping[str, str]) -> list[str]:
    return ["truth", *labels.values()]


def _said(conditions: frozenset[str], pictures: Pictures) -> str:
    """Return conditions in words; how a frame is deteriorated says that it is."""
    names = in_order(conditions - {pictures.test_set})
    if len(names) > 1:
        names = [name for name in names if name != _WORSE]
    return ", ".join(map(spoken, names))
