"""The scenes of generated clips for segmentation: crossing, vanishing and leaving objects.

Exact arithmetic only (see `random.py`): annotations are made from this.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stpn_data.deteriorated.deterioration import Deterioration, draw_runs
from stpn_data.deteriorated.random import Stream
from stpn_data.deteriorated.scene import Scene, Track, bent_path, draw_labels, drift
from stpn_data.deteriorated.segmentation_options import SegmentationOptions
from stpn_data.deteriorated.shapes import random_outline

_WALK_FRAMES = 4
"""Frames in which an object walks out of the frame, and in again."""

_AWAY_FRAMES = (1, 3)
"""Fewest and most frames that it stays away."""


def draw_segmentation_scene(options: SegmentationOptions, stream: Stream) -> Scene:
    """Draw the objects of a clip and their paths, the farthest object first."""
    speed_rank = stream.number()
    low, high = options.speed
    speed = low + (high - low) * speed_rank
    labels = draw_labels(options, stream, stream.integer(*options.num_objects))
    tracks = []
    for i, label in enumerate(labels):
        size = stream.number(*options.object_size)
        outline = random_outline(stream) * size
        height, width = options.size
        start = (
            stream.number(size / 2, width - size / 2),
            stream.number(size / 2, height - size / 2),
        )
        centers = bent_path(options, stream, start, speed * stream.number(0.8, 1.2), size / 2)
        matrices = drift(options.num_frames, stream, speed_rank)
        centers = centers + _leave(options, stream, centers, size)
        absent = _absent(options, stream)
        if i == 0:
            absent = frozenset()
        tracks.append(Track(label, outline, centers, matrices, absent))
    return Scene(tuple(tracks), speed_rank, min_visible=0.0, min_area=options.min_area)


def draw_segmentation_schedule(
    options: SegmentationOptions, speed_rank: float, stream: Stream
) -> list[Deterioration | None]:
    """Draw which frames of a clip are deteriorated and how; None is a clean frame."""
    place = stream.number()
    if options.deterioration_follows_speed:
        place = speed_rank
    share = options.deteriorated + options.spread * (2 * place - 1)
    return draw_runs(options, share, options.run_frames, 1, stream)


def _absent(options: SegmentationOptions, stream: Stream) -> frozenset[int]:
    """Draw the frames in which an object is not there."""
    vanishes = stream.number() < options.vanishing
    length = stream.integer(*options.absence)
    first = stream.integer(1 - length, options.num_frames - 1)
    if not vanishes:
        return frozenset()
    return frozenset(range(max(first, 0), min(first + length, options.num_frames)))


def _leave(
    options: SegmentationOptions, stream: Stream, centers: NDArray[np.float64], size: float
) -> NDArray[np.float64]:
    """Walk out over the nearest border, stay away, and come back, if so drawn, (T, 2) offsets.

    A clip may end before the object is back.
    """
    offsets = np.zeros_like(centers)
    leaves = stream.number() < options.leaving
    away = stream.integer(*_AWAY_FRAMES)
    first = stream.integer(0, len(centers) - 1)
    if not leaves:
        return offsets
    height, width = options.size
    x, y = (float(side) for side in centers[first])
    gaps = (x, width - x, y, height - y)  # to the left, right, upper and lower border
    nearest = gaps.index(min(gaps))
    # Beyond the border by more than an object reaches, since it wanders meanwhile.
    distance = (gaps[nearest] + 1.5 * size) * (1 if nearest % 2 else -1)
    ramp = [step / _WALK_FRAMES for step in range(1, _WALK_FRAMES)]
    shares = [*ramp, *[1.0] * away, *reversed(ramp)][: len(centers) - 1 - first]
    offsets[first + 1 : first + 1 + len(shares), nearest // 2] = [distance * s for s in shares]
    return offsets
