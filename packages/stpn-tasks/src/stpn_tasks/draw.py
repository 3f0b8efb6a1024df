"""Pictures for people: frames with boxes, and frames side by side."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

# One colour per class, well apart on light and dark ground (RGB); more classes go round.
COLOURS = (
    (230, 25, 75),
    (60, 180, 75),
    (0, 130, 200),
    (245, 130, 48),
    (145, 30, 180),
    (70, 240, 240),
    (240, 50, 230),
    (210, 245, 60),
    (255, 225, 25),
    (170, 110, 40),
)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHITE = (255, 255, 255)


def draw_boxes(
    image: Image,
    boxes_xyxy: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    scores: NDArray[np.float32] | None = None,
) -> Image:
    """Return a copy of an image with named boxes.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        boxes_xyxy: ``(n, 4)`` pixels of the image.
        labels: ``(n,)`` indices into ``classes``.
        classes: names of the classes.
        scores: ``(n,)`` from 0 to 1, written behind the name if given.
    """
    canvas = np.ascontiguousarray(image).copy()
    scale = max(0.35, min(canvas.shape[:2]) / 1200)
    thickness = max(1, round(min(canvas.shape[:2]) / 300))
    for index, (box, label) in enumerate(zip(boxes_xyxy, labels, strict=True)):
        colour = COLOURS[int(label) % len(COLOURS)]
        left, top, right, bottom = (round(float(edge)) for edge in box)
        cv2.rectangle(canvas, (left, top), (right, bottom), colour, thickness)
        text = classes[int(label)]
        if scores is not None:
            text += f" {float(scores[index]):.2f}"
        _write(canvas, text, (left, top), scale, colour)
    return canvas


def _write(
    canvas: Image, text: str, corner: tuple[int, int], scale: float, colour: tuple[int, int, int]
) -> None:
    """Write above a corner, moved inside the image where it would leave it."""
    (width, height), base = cv2.getTextSize(text, _FONT, scale, 1)
    left = max(0, min(corner[0], canvas.shape[1] - width))
    bottom = max(height + base, corner[1])
    cv2.rectangle(canvas, (left, bottom - height - base), (left + width, bottom), colour, -1)
    cv2.putText(canvas, text, (left, bottom - base // 2), _FONT, scale, _WHITE, 1, cv2.LINE_AA)


def side_by_side(images: Sequence[Image], captions: Sequence[str]) -> Image:
    """Return images of one size in a row, each below its caption.

    Args:
        images: ``(H, W, 3)`` uint8 RGB each.
        captions: one per image.
    """
    columns = []
    for image, caption in zip(images, captions, strict=True):
        bar = np.full((24, image.shape[1], 3), 255, np.uint8)
        cv2.putText(bar, caption, (4, 17), _FONT, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        columns.append(np.concatenate((bar, image)))
        columns.append(np.full((bar.shape[0] + image.shape[0], 6, 3), 255, np.uint8))
    return np.concatenate(columns[:-1], axis=1)


def enlarge(image: Image, factor: int) -> Image:
    """Return an image with every pixel ``factor`` times as wide and high."""
    return np.repeat(np.repeat(image, factor, 0), factor, 1)
