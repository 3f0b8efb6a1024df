"""The geometry of a clip: which objects it shows, their outlines and their paths.

Exact arithmetic only (see `random.py`): annotations are made from this.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpn_data.deteriorated.options import RenderOptions
from stpn_data.deteriorated.random import Stream, rotation
from stpn_data.deteriorated.shapes import SUBPIXELS, random_outline, rasterize

MIN_VISIBLE = 0.25
"""An object with less than this share of its own area in view is not annotated in that frame."""


@dataclass(frozen=True)
class Track:
    """Describe one object over the T frames of a clip.

    Attributes:
        label: index of its class.
        outline: (V, 2) vertices x, y in pixels around the origin, before scaling and turning.
        centers: (T, 2) x, y of its origin in pixels.
        matrices: (T, 2, 2) scaling times rotation, applied to the outline.
        absent: frames in which the object is not there at all.
    """

    label: int
    outline: NDArray[np.float64]
    centers: NDArray[np.float64]
    matrices: NDArray[np.float64]
    absent: frozenset[int] = frozenset()

    def polygon(self, frame: int) -> NDArray[np.int64]:
        """Return the outline in a frame, (V, 2) in 1 / `SUBPIXELS` pixel."""
        (a, b), (c, d) = self.matrices[frame]
        x, y = self.outline[:, 0], self.outline[:, 1]
        placed = np.stack([a * x + b * y, c * x + d * y], axis=1) + self.centers[frame]
        fixed: NDArray[np.int64] = np.floor(placed * SUBPIXELS + 0.5).astype(np.int64)
        return fixed


@dataclass(frozen=True)
class Scene:
    """Hold the objects of a clip, the farthest first, and how fast the clip is.

    Attributes:
        tracks: the objects; a later one covers an earlier one.
        speed_rank: in [0, 1), the share of clips that are slower than this one.
        min_visible: an object with less than this share of its own area in view is hardly there.
        min_area: so is one of which fewer pixels are in view.
    """

    tracks: tuple[Track, ...]
    speed_rank: float
    min_visible: float = MIN_VISIBLE
    min_area: int = 1

    def visible_masks(self, frame: int, height: int, width: int) -> NDArray[np.bool_]:
        """Return what is seen of each object in a frame, (objects, H, W).

        Objects cover each other; the deterioration "occlusion" covers nothing here. An object
        that is absent or hardly in view has an empty mask.
        """
        masks = np.zeros((len(self.tracks), height, width), np.bool_)
        covered = np.zeros((height, width), np.bool_)
        for i in reversed(range(len(self.tracks))):
            if frame in self.tracks[i].absent:
                continue
            full = rasterize(self.tracks[i].polygon(frame), height, width)
            visible = full & ~covered
            if visible.sum() >= max(self.min_area, self.min_visible * full.sum()):
                masks[i] = visible
            covered |= full
        return masks


def draw_scene(options: RenderOptions, stream: Stream) -> Scene:
    """Draw the objects of a clip and their paths."""
    speed_rank = stream.number()
    low, high = options.speed
    speed = low + (high - low) * speed_rank * speed_rank
    labels = draw_labels(options, stream, stream.integer(*options.num_objects))
    tracks: list[Track] = []
    for label in labels:
        size = stream.number(*options.object_size)
        outline = random_outline(stream) * size
        starts = [
            (
                stream.number(size / 2, options.size[1] - size / 2),
                stream.number(size / 2, options.size[0] - size / 2),
            )
            for _ in range(8)
        ]
        start = max(starts, key=lambda point: _nearest(point, tracks))
        centers = bent_path(options, stream, start, speed * stream.number(0.8, 1.2), size / 2)
        matrices = drift(options.num_frames, stream, speed_rank)
        tracks.append(Track(label, outline, centers, matrices))
    return Scene(tuple(tracks), speed_rank)


def draw_labels(options: RenderOptions, stream: Stream, num_objects: int) -> list[int]:
    """Draw one class for all objects, or different classes as long as there are any."""
    order = list(range(len(options.classes)))
    for i in range(len(order) - 1):
        j = stream.integer(i, len(order) - 1)
        order[i], order[j] = order[j], order[i]
    if stream.number() < options.same_class:
        order = order[:1]
    return [order[i % len(order)] for i in range(num_objects)]


def _nearest(point: tuple[float, float], tracks: list[Track]) -> float:
    """Return the squared distance from a point to the nearest first position of a track."""
    gaps = [track.centers[0] - point for track in tracks]
    return min((float(gap[0] * gap[0] + gap[1] * gap[1]) for gap in gaps), default=0.0)


def bent_path(
    options: RenderOptions,
    stream: Stream,
    start: tuple[float, float],
    speed: float,
    margin: float,
) -> NDArray[np.float64]:
    """Move on a gentle bend, thrown back where the margin to the border is reached, (T, 2)."""
    x, y = start
    dx, dy = (speed * component for component in stream.direction())
    c, s = rotation(stream.number(-0.05, 0.05))
    height, width = options.size
    centers = []
    for _ in range(options.num_frames):
        centers.append((x, y))
        dx, dy = c * dx - s * dy, s * dx + c * dy
        if not margin <= x + dx <= width - margin:
            dx = -dx
        if not margin <= y + dy <= height - margin:
            dy = -dy
        x, y = x + dx, y + dy
    return np.array(centers)


def drift(num_frames: int, stream: Stream, speed_rank: float) -> NDArray[np.float64]:
    """Turn and scale a little over the clip, more in faster clips, (T, 2, 2)."""
    amount = 0.1 + 0.9 * speed_rank
    turn, turn_rate = stream.number(-0.06, 0.06), amount * stream.number(-0.012, 0.012)
    scale, scale_rate = stream.number(0.95, 1.05), amount * stream.number(-0.015, 0.015)
    matrices = []
    for _ in range(num_frames):
        c, s = rotation(turn)
        matrices.append(((scale * c, -scale * s), (scale * s, scale * c)))
        if abs(turn + turn_rate) > 0.12:
            turn_rate = -turn_rate
        if not 0.85 <= scale + scale_rate <= 1.2:
            scale_rate = -scale_rate
        turn, scale = turn + turn_rate, scale + scale_rate
    return np.array(matrices)
