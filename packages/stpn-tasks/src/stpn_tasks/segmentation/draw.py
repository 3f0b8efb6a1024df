"""Pictures for people: frames with masks, each object in a colour of its own."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from stpn_data.rle import tight_box
from stpn_tasks.draw import COLOURS, Image, draw_boxes

_SHARE = 0.45  # of the colour, where a mask is


def draw_masks(
    image: Image,
    masks: NDArray[np.bool_],
    ids: Sequence[int],
    names: Sequence[str],
) -> Image:
    """Return a copy of an image with masks, their outlines, boxes and names.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        masks: ``(n, H, W)``; an empty one is not drawn. A later one lies on top.
        ids: of the objects, whose colours they choose: the same ones in every frame.
        names: of the objects, written at their boxes.
    """
    canvas = np.ascontiguousarray(image).copy()
    seen = [i for i in range(len(masks)) if masks[i].any()]
    thickness = max(1, round(min(canvas.shape[:2]) / 300))
    for i in seen:
        mask, colour = masks[i], COLOURS[ids[i] % len(COLOURS)]
        mixed = (1 - _SHARE) * canvas[mask] + _SHARE * np.array(colour)
        canvas[mask] = np.rint(mixed).astype(np.uint8)
        outlines, _ = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(canvas, outlines, -1, colour, thickness)
    boxes = np.array([tight_box(masks[i]) for i in seen], np.float32).reshape(-1, 4)
    by_id = {ids[i]: names[i] for i in seen}
    of_ids = [by_id.get(i, "") for i in range(max(by_id, default=-1) + 1)]
    return draw_boxes(canvas, boxes, np.array([ids[i] for i in seen], np.int64), of_ids)
