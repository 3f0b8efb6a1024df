"""What a report shows of EigenCAM: strips of frames with the maps of each model, and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from stpn_data.videos import VideoDataset
from stpn_tasks.analysis.cam import CONDITIONS, Cam, Focus
from stpn_tasks.analysis.targets import Target
from stpn_tasks.draw import Image
from stpn_tasks.files import atomic_path
from stpn_tasks.metrics import FrameTruth
from stpn_tasks.report.attention import overlay
from stpn_tasks.report.page import Column, Html, Section, figure, paragraph, table, text
from stpn_tasks.report.pictures import (
    Cell,
    Line,
    grid,
    spoken_boxes,
    thumbnail,
    with_boxes,
)
from stpn_tasks.report.words import in_order, spoken

_TITLES: dict[Target | None, str] = {
    None: "Where the features have contrast (EigenCAM)",
    "score": "What the scores rest on (EigenCAM, target score)",
    "iou": "What the boxes rest on (EigenCAM, target IoU)",
}
_ABOUT = (
    "EigenCAM: the features of all levels of the pyramid, their absolute values at one size, "
    "centred and projected on their first principal component; grey is none, the brightest is the "
    "most of its frame."
)
_ABOUT_TARGET: dict[Target | None, str] = {
    None: " It looks at no detection: it shows where the features stand out.",
    "score": " The features are weighed by the gradient of the target first, which is our way to "
    "give it one: the sum of the scores of the boxes that are drawn. A frame without such a box "
    "has no map.",
    "iou": " The features are weighed by the gradient of the target first, which is our way to "
    "give it one: the IoU of annotated boxes with the boxes drawn that cover them best, of the "
    "same class and by more than 0.5. A frame without such a box has no map.",
}
_ABOUT_FOCUS = (
    "The share of a map that lies in annotated boxes, mean over frames, in percent; “area” is the "
    "share of the frame that the boxes cover, which a map without any preference would have. "
    "Frames without a map do not count."
)


def cam_section(
    dataset: VideoDataset,
    strips: Sequence[Mapping[str, Sequence[Cam]]],
    focus: Mapping[str, Mapping[str, Focus]],
    target: Target | None,
) -> Section:
    """Return the section of a report.

    Args:
        dataset: annotated videos.
        strips: the maps of consecutive frames of a video, by model, strip after strip.
        focus: by condition, by model.
        target: what the maps explain.
    """
    return Section(
        _TITLES[target],
        (
            paragraph(text(_ABOUT + _ABOUT_TARGET[target])),
            *(_strip(dataset, by_model) for by_model in strips),
            _focus_table(focus),
            paragraph(text(_ABOUT_FOCUS)),
        ),
    )


def cam_image(dataset: VideoDataset, cam: Cam) -> Image:
    """Return a frame with its map and the boxes that were found, at the size of pages."""
    frame = dataset.frame(cam.video, cam.frame)
    heat = np.zeros((1, 1), np.float32) if cam.heat is None else cam.heat
    small = overlay(thumbnail(frame), heat)
    return with_boxes(small, (frame.shape[0], frame.shape[1]), cam.found, dataset.classes)


def save_cam(path: Path, dataset: VideoDataset, cam: Cam) -> None:
    """Write what `cam_image` returns as a png."""
    bgr = cv2.cvtColor(cam_image(dataset, cam), cv2.COLOR_RGB2BGR)
    with atomic_path(path) as partial:
        cv2.imwrite(str(partial), bgr)


def _strip(dataset: VideoDataset, by_model: Mapping[str, Sequence[Cam]]) -> Html:
    first = next(iter(by_model.values()))
    video = first[0].video
    conditions = [dataset.conditions(video, cam.frame) for cam in first]
    common = frozenset.intersection(*conditions)
    lines = [
        _line(dataset, [cams[place] for cams in by_model.values()], list(by_model), one - common)
        for place, one in enumerate(conditions)
    ]
    named = f" ({_said(common)})" if common else ""
    name, last = dataset.videos[video].name, first[-1].frame
    caption = f"Video {name}{named}, frames {first[0].frame} to {last}."
    return figure(grid(["truth", *by_model], lines), text(caption))


def _line(
    dataset: VideoDataset, cams: Sequence[Cam], names: Sequence[str], conditions: frozenset[str]
) -> Line:
    video, frame = cams[0].video, cams[0].frame
    objects, place = dataset.objects(video, frame), f"frame {frame}"
    truth = FrameTruth(
        objects.boxes_xyxy, objects.labels, objects.is_crowd, dataset.conditions(video, frame)
    )
    image = thumbnail(dataset.frame(video, frame), truth, dataset.classes)
    cells = [Cell(image, f"{place}, truth: {spoken_boxes(truth, dataset.classes)}")]
    for name, cam in zip(names, cams, strict=True):
        alt = f"{place}, map of {name}: {spoken_boxes(cam.found, dataset.classes)}"
        cells.append(Cell(cam_image(dataset, cam), alt, "" if cam.heat is not None else "no map"))
    return Line(str(frame), _said(conditions), tuple(cells))


def _said(conditions: frozenset[str]) -> str:
    """Return conditions in words; how a frame is deteriorated says that it is."""
    names = in_order(conditions)
    kept = [name for name in names if name != CONDITIONS[0]] if len(names) > 1 else names
    return ", ".join(map(spoken, kept))


def _focus_table(focus: Mapping[str, Mapping[str, Focus]]) -> Html:
    conditions = list(next(iter(focus.values())))
    columns = [Column(f"{name} frames", ("in boxes", "area", "frames")) for name in conditions]
    rows = [
        (model, [cell for name in conditions for cell in focus_cells(by_condition[name])])
        for model, by_condition in focus.items()
    ]
    return table("How much of the maps lies in objects, in percent.", "model", columns, rows)


def focus_cells(focus: Focus) -> list[str]:
    """Return the shares of maps in boxes and of the boxes, in percent, and the frames, as text."""
    if math.isnan(focus.in_boxes):
        return ["–", "–", "0"]
    return [f"{100 * focus.in_boxes:.1f}", f"{100 * focus.area:.1f}", f"{focus.num_frames:,}"]
