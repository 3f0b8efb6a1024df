"""The geometry of a tracking sequence: equal objects that exchange their places.

Exact arithmetic only (see `random.py`): annotations are made from this.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpn_data.deteriorated.annotations import tight_boxes
from stpn_data.deteriorated.random import Stream
from stpn_data.deteriorated.scene import Scene, Track, drift
from stpn_data.deteriorated.shapes import SUBPIXELS, random_outline
from stpn_data.deteriorated.tracking_options import Attribute, TrackingOptions

_WALK_FRAMES = 6
"""How long two objects take to walk to each other's place, or one out of the frame."""

_ABSENT_FRAMES = (2, 5)
_LEAST_VISIBLE = 0.25
"""An object with less than this share of its own area in view has no box in that frame."""


@dataclass(frozen=True)
class TrackingScene:
    """Hold the objects of a sequence and which of them is the target.

    Attributes:
        objects: the objects; a later one covers an earlier one.
        target: number of the target.
        decoy: number of the distractor that takes the first look of the target.
        attribute: what the objects differ in.
        new_look: (T,) in [0, 1], how far the looks of target and decoy have changed.
        camera: (T, 2) x, y by which the camera has moved everything.
    """

    objects: Scene
    target: int
    decoy: int
    attribute: Attribute
    new_look: NDArray[np.float64]
    camera: NDArray[np.float64]

    @property
    def num_frames(self) -> int:
        """T, the number of frames."""
        return len(self.new_look)

    def boxes(self, size: tuple[int, int]) -> NDArray[np.float64]:
        """Return the tightest boxes around what is seen of the objects, (T, objects, 4) xyxy.

        Objects and the border of the frame of (height, width) hide; what deteriorates a frame does
        not. Four NaN stand where an object is not in view or hardly so.
        """
        tracks = self.objects.tracks
        boxes = np.empty((self.num_frames, len(tracks), 4))
        for t in range(self.num_frames):
            masks = self.objects.visible_masks(t, *size)
            boxes[t] = tight_boxes(masks)
            areas = np.array([_area(track.polygon(t)) for track in tracks])
            boxes[t, masks.sum(axis=(1, 2)) < _LEAST_VISIBLE * areas] = np.nan
        return boxes


def draw_tracking_scene(options: TrackingOptions, stream: Stream) -> TrackingScene:
    """Draw the objects of a sequence and their paths."""
    num_frames = stream.integer(*options.num_frames)
    count = 1 + stream.integer(*options.num_distractors)
    target, others = _split(count, stream)
    decoy = others[stream.integer(0, len(others) - 1)]
    attribute = options.attributes[stream.integer(0, len(options.attributes) - 1)]
    label = stream.integer(0, len(options.textures) - 1)
    outline = random_outline(stream) * stream.number(*options.object_size)
    matrices = drift(num_frames, stream, speed_rank=0.5)
    camera = _wobble(num_frames, stream, options.shake)
    places = _places(options, stream, num_frames, count, target)
    tracks = [
        Track(label, outline, centers, matrices)
        for centers in (
            places[:, i]
            + camera
            + _wander(num_frames, stream, options.wander)
            + _leave(options, stream, num_frames)
            for i in range(count)
        )
    ]
    start = num_frames * stream.number(*options.change_start)
    last = num_frames - 1
    length = min(stream.integer(*options.change_frames), max(last - start, 1.0))  # ends in time
    new_look = np.clip((np.arange(num_frames) - start) / length, 0.0, 1.0)
    return TrackingScene(Scene(tuple(tracks), 0.5), target, decoy, attribute, new_look, camera)


def _split(count: int, stream: Stream) -> tuple[int, list[int]]:
    """Draw one number of 0 .. count - 1; return it and the others."""
    one = stream.integer(0, count - 1)
    return one, [i for i in range(count) if i != one]


def _places(
    options: TrackingOptions, stream: Stream, num_frames: int, count: int, target: int
) -> NDArray[np.float64]:
    """Deal the objects to the cells of a grid and let them jump, swap and walk, (T, count, 2)."""
    cells = _cells(options.size, count)  # (cells, 2)
    apart = abs(cells[:, None] - cells[None]).max(axis=2)  # (cells, cells)
    near: NDArray[np.bool_] = apart <= options.reach
    now = _shuffled(list(range(len(cells))), stream)[:count]
    places = np.empty((num_frames, count, 2))
    t = 0
    while t < num_frames:
        places[t] = cells[now]
        t += 1
        before, event = now, stream.number()
        if event < options.jumps:
            now = _jump(now, target, near, stream)
        elif event < options.jumps + (1 - options.jumps) * options.swaps:
            now = _swap(now, target, near, stream)
            if now != before and stream.number() < options.crossing:
                for step in range(1, _WALK_FRAMES):
                    if t < num_frames:
                        way = cells[now] - cells[before]
                        places[t] = cells[before] + way * (step / _WALK_FRAMES)
                        t += 1
    return places


def _cells(size: tuple[int, int], count: int) -> NDArray[np.float64]:
    """Return the centres x, y of a square grid with more cells than objects, (cells, 2)."""
    side = 1
    while side * side <= count:
        side += 1
    height, width = size
    return np.array(
        [
            ((column + 0.5) * width / side, (row + 0.5) * height / side)
            for row in range(side)
            for column in range(side)
        ]
    )


def _jump(now: list[int], target: int, near: NDArray[np.bool_], stream: Stream) -> list[int]:
    """Deal all objects to cells anew, the target to one that is near its own.

    From a cell with few others near it the target goes less often (Metropolis' rule), or it would
    mostly be in the middle.
    """
    own = now[target]
    candidates = np.flatnonzero(near[own]).tolist()
    goal = int(candidates[stream.integer(0, len(candidates) - 1)])
    if stream.number() * near[goal].sum() >= len(candidates):
        goal = own
    dealt = _shuffled([cell for cell in range(len(near)) if cell != goal], stream)
    return [*dealt[:target], goal, *dealt[target : len(now) - 1]]


def _swap(now: list[int], target: int, near: NDArray[np.bool_], stream: Stream) -> list[int]:
    """Let the target and a distractor change places if the one that is drawn is near."""
    others = [i for i in range(len(now)) if i != target]
    other = others[stream.integer(0, len(others) - 1)]
    swapped = list(now)
    if near[now[target], now[other]]:
        swapped[target], swapped[other] = now[other], now[target]
    return swapped


def _shuffled(items: list[int], stream: Stream) -> list[int]:
    items = list(items)
    for i in range(len(items) - 1):
        j = stream.integer(i, len(items) - 1)
        items[i], items[j] = items[j], items[i]
    return items


def _wobble(num_frames: int, stream: Stream, reach: float) -> NDArray[np.float64]:
    """Draw an offset for each frame anew, (T, 2)."""
    offsets = [(stream.number(-1, 1), stream.number(-1, 1)) for _ in range(num_frames)]
    return reach * np.array(offsets)


def _wander(num_frames: int, stream: Stream, reach: float) -> NDArray[np.float64]:
    """Go straight about a place, thrown back where the reach ends, (T, 2)."""
    position = [stream.number(-1, 1), stream.number(-1, 1)]
    speed = [stream.number(-0.3, 0.3), stream.number(-0.3, 0.3)]
    offsets = []
    for _ in range(num_frames):
        offsets.append(tuple(position))
        for axis in (0, 1):
            if abs(position[axis] + speed[axis]) > 1:
                speed[axis] = -speed[axis]
            position[axis] += speed[axis]
    return reach * np.array(offsets)


def _leave(options: TrackingOptions, stream: Stream, num_frames: int) -> NDArray[np.float64]:
    """Walk out of the frame on one side, stay away, and come back, if so drawn, (T, 2)."""
    offsets = np.zeros((num_frames, 2))
    leaves = stream.number() < options.leaving
    away = stream.integer(*_ABSENT_FRAMES)
    walk = _WALK_FRAMES // 2
    first = stream.integer(1, num_frames - away - 2 * walk)
    axis, sign = stream.integer(0, 1), 2 * stream.integer(0, 1) - 1
    if leaves:
        ramp = [step / walk for step in range(1, walk)]
        shares = np.array([*ramp, *[1.0] * away, *reversed(ramp)])
        # More than the frame, since the place may change meanwhile and objects reach beyond it.
        distance = 1.3 * options.size[1 - axis]
        offsets[first : first + len(shares), axis] = sign * distance * shares
    return offsets


def _area(polygon: NDArray[np.int64]) -> float:
    """Return the area of a polygon in 1 / `SUBPIXELS` pixel, in pixels; integers till the end."""
    x, y = polygon[:, 0], polygon[:, 1]
    double = int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())
    return abs(double) / (2 * SUBPIXELS * SUBPIXELS)
