"""Pictures for people: frames with boxes."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
_Box = tuple[int, int, int, int]

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
_CAPITALS = 21  # pixels that a capital is high at scale 1
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_LUMINANCE = (0.299, 0.587, 0.114)  # of RGB, ITU-R BT.601


def draw_boxes(
    image: Image,
    boxes_xyxy: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    scores: NDArray[np.float32] | None = None,
    letters: int | None = None,
) -> Image:
    """Return a copy of an image with named boxes.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        boxes_xyxy: ``(n, 4)`` pixels of the image.
        labels: ``(n,)`` indices into ``classes``.
        classes: names of the classes.
        scores: ``(n,)`` from 0 to 1, written behind the name if given.
        letters: height of capitals in pixels, for images that are shown small; lines become as
            bold as the letters. Chosen for the image's own size if not given.
    """
    canvas = np.ascontiguousarray(image).copy()
    if letters is None:
        scale = max(0.35, min(canvas.shape[:2]) / 1200)
        thickness, weight = max(1, round(min(canvas.shape[:2]) / 300)), 1
    else:
        scale = letters / _CAPITALS
        thickness = weight = max(1, round(letters / 8))
    corners = [tuple(round(float(edge)) for edge in box) for box in boxes_xyxy]
    colours = [COLOURS[int(label) % len(COLOURS)] for label in labels]
    names = [classes[int(label)] for label in labels]
    if scores is not None:
        names = [f"{name} {float(score):.2f}" for name, score in zip(names, scores, strict=True)]
    taken: list[_Box] = []
    for (left, top, _, bottom), colour, name in zip(corners, colours, names, strict=True):
        (width, height), base = cv2.getTextSize(name, _FONT, scale, weight)
        label = _place(canvas.shape, (left, top, bottom), (width, height + base), taken)
        taken.append(label)
        cv2.rectangle(canvas, label[:2], label[2:], colour, -1)
        ink = _WHITE if np.dot(colour, _LUMINANCE) < 150 else _BLACK
        start = (label[0], label[3] - base // 2)
        cv2.putText(canvas, name, start, _FONT, scale, ink, weight, cv2.LINE_AA)
    # On top of the names, which would hide small boxes.
    for (left, top, right, bottom), colour in zip(corners, colours, strict=True):
        cv2.rectangle(canvas, (left, top), (right, bottom), colour, thickness)
    return canvas


def _place(
    canvas: tuple[int, ...], box: tuple[int, int, int], size: tuple[int, int], taken: list[_Box]
) -> _Box:
    """Return where a name goes: above its box, else below or in it, inside the image.

    Args:
        canvas: shape of the image.
        box: left, top and bottom.
        size: width and height of the name.
        taken: where names are already; if every place is taken, the first one serves.
    """
    left = max(0, min(box[0], canvas[1] - size[0]))
    places: list[_Box] = []
    for bottom in (max(size[1], box[1]), box[2] + size[1], box[1] + size[1]):
        place = (left, bottom - size[1], left + size[0], bottom)
        if bottom <= canvas[0] or not places:
            places.append(place)
    return next((place for place in places if not any(_meet(place, t) for t in taken)), places[0])


def _meet(one: _Box, other: _Box) -> bool:
    across = one[0] < other[2] and other[0] < one[2]
    return across and one[1] < other[3] and other[1] < one[3]


def enlarge(image: Image, factor: int) -> Image:
    """Return an image with every pixel ``factor`` times as wide and high."""
    return np.repeat(np.repeat(image, factor, 0), factor, 1)
