"""Frames of a data set in a page: small images, and grids of them that fit phone and screen."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from stpn_data.videos import VideoDataset
from stpn_tasks.detection.detections import Detections
from stpn_tasks.detection.inference import VideoInference
from stpn_tasks.draw import Image, draw_boxes, enlarge
from stpn_tasks.metrics import FrameDetections, FrameTruth
from stpn_tasks.report.frame_score import MIN_SCORE
from stpn_tasks.report.page import Html, element, join, picture, text

_SMALL = 336  # pixels of the long side that small frames are enlarged to
_LARGE = 448  # and that large frames are shrunk to
_QUALITY = 75  # of WebP, of 100
_WIDE = 1.25  # width over height from which three frames beside each other are too small on a phone


@dataclass(frozen=True)
class Pictures:
    """What the pictures of a report are drawn from.

    Attributes:
        dataset: annotated videos.
        detections: of every frame of every video, by the number of the video, by the model's
            name in the results: of one model, or of the one compared with and the one compared.
        inference: of the prompted model, for the attention of its prompts; may be missing.
        test_set: name of the data set in the results, if they have several.
    """

    dataset: VideoDataset
    detections: Mapping[str, Mapping[int, Sequence[Detections]]]
    inference: VideoInference | None = None
    test_set: str | None = None

    def __post_init__(self) -> None:
        """Check that there are one or two models, with all frames of all videos.

        Raises:
            ValueError: if not; names the model and the video.
        """
        if len(self.detections) not in (1, 2):
            raise ValueError(f"pictures are of one model or two, got {list(self.detections)}")
        for model, by_video in self.detections.items():
            for number, video in enumerate(self.dataset.videos):
                length = len(by_video.get(number, ()))
                if length != video.num_frames:
                    raise ValueError(
                        f"{model} has detections of {length} frames of video {video.name}, "
                        f"which has {video.num_frames}"
                    )

    def truth(self, video: int, frame: int) -> FrameTruth:
        """Return the objects of a frame."""
        objects = self.dataset.objects(video, frame)
        conditions = self.dataset.conditions(video, frame)
        return FrameTruth(objects.boxes_xyxy, objects.labels, objects.is_crowd, conditions)

    def found(self, model: str, video: int, frame: int) -> FrameDetections:
        """Return what a model found in a frame."""
        found = self.detections[model][video][frame]
        return FrameDetections(found.boxes_xyxy.numpy(), found.scores.numpy(), found.labels.numpy())


@dataclass(frozen=True)
class Cell:
    """One image of a grid; without an image the place stays empty.

    Attributes:
        image: ``(h, w, 3)`` uint8 RGB.
        alt: what it shows, for those who do not see it.
        note: a few words below it.
    """

    image: Image | None
    alt: str = ""
    note: str = ""


@dataclass(frozen=True)
class Line:
    """The images of one frame.

    Attributes:
        title: number of the frame.
        note: what is special about it.
        cells: one per row of the grid.
    """

    title: str
    note: str
    cells: tuple[Cell, ...]


def grid(rows: Sequence[str], lines: Sequence[Line]) -> Html:
    """Return images in a grid: a column for each frame, or a line on a narrow screen.

    Args:
        rows: what the cells of each frame are.
        lines: the frames, in order of time.
    """
    # One order of elements serves both layouts; see page.css.
    parts = [element("div", class_="corner"), *(_part(text(row), "label") for row in rows)]
    for line in lines:
        title = join(element("strong", text(line.title)), text(f" {line.note}"))
        parts.append(_part(title, "what"))
        parts += [_cell(cell) for cell in line.cells]
    image = next(cell.image for line in lines for cell in line.cells if cell.image is not None)
    wide = image.shape[1] > _WIDE * image.shape[0]
    return element(
        "div",
        *parts,
        class_="grid",
        role="group",
        tabindex="0",
        aria_label=f"{len(lines)} frames, {len(rows)} images of each",
        style=f"--rows:{len(rows)};--least:{'9.5rem' if wide else '5.5rem'}",
    )


def thumbnail(
    image: Image,
    boxes: FrameTruth | FrameDetections | None = None,
    classes: Sequence[str] = (),
) -> Image:
    """Return a frame at the size that pages show, with its boxes if given."""
    height, width = image.shape[:2]
    factor = max(1, round(_SMALL / max(height, width)))
    small = enlarge(image, factor)
    if max(small.shape) > _LARGE:
        scale = _LARGE / max(small.shape)
        size = (max(1, round(small.shape[1] * scale)), max(1, round(small.shape[0] * scale)))
        small = cv2.resize(small, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    return small if boxes is None else with_boxes(small, (height, width), boxes, classes)


def with_boxes(
    small: Image,
    size: tuple[int, int],
    boxes: FrameTruth | FrameDetections,
    classes: Sequence[str],
) -> Image:
    """Return a small image of a frame with the boxes of the frame.

    Args:
        small: ``(h, w, 3)`` uint8 RGB, as `thumbnail` returns it.
        size: (height, width) of the frame, pixels.
        boxes: in pixels of the frame.
        classes: names of the classes.
    """
    height, width = size
    stretch = np.array([small.shape[1] / width, small.shape[0] / height] * 2, np.float32)
    scores = None if isinstance(boxes, FrameTruth) else boxes.scores
    kept = _kept(boxes)
    return draw_boxes(
        small,
        boxes.boxes_xyxy[kept] * stretch,
        boxes.labels[kept],
        classes,
        None if scores is None else scores[kept],
        letters=round(0.06 * math.sqrt(small.shape[0] * small.shape[1])),
    )


def spoken_boxes(boxes: FrameTruth | FrameDetections, classes: Sequence[str]) -> str:
    """Return the boxes that `thumbnail` draws in words."""
    kept = _kept(boxes)
    names = [classes[label] for label in boxes.labels[kept]]
    if isinstance(boxes, FrameDetections):
        scores = boxes.scores[kept]
        names = [f"{name} {score:.2f}" for name, score in zip(names, scores, strict=True)]
    return ", ".join(names) or "no boxes"


def encode(image: Image) -> str:
    """Return an image as a ``data:`` address."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])
    return "data:image/webp;base64," + base64.b64encode(data.tobytes()).decode()


def _kept(boxes: FrameTruth | FrameDetections) -> NDArray[np.bool_]:
    """Tell which boxes are shown: objects but crowds, detections with a score that counts."""
    kept: NDArray[np.bool_]
    kept = ~boxes.is_crowd if isinstance(boxes, FrameTruth) else boxes.scores >= MIN_SCORE
    return kept


def _part(content: Html, kind: str) -> Html:
    return element("div", content, class_=kind)


def _cell(cell: Cell) -> Html:
    if cell.image is None:
        return element("div", class_="empty")
    height, width = cell.image.shape[:2]
    image = picture(encode(cell.image), cell.alt, width=str(width), height=str(height))
    return _part(join(image, element("span", text(cell.note))), "cell")
