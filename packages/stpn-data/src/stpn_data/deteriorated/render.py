"""From a seed to a clip: frames, boxes, masks, tracks and conditions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from stpn_data.deteriorated.annotations import Annotations, annotate
from stpn_data.deteriorated.deterioration import Deterioration, deteriorate, draw_schedule
from stpn_data.deteriorated.layers import Layer, background_layer, compose, object_layer
from stpn_data.deteriorated.options import RenderOptions, Split
from stpn_data.deteriorated.random import Stream
from stpn_data.deteriorated.scene import Scene, draw_scene

_SENSOR_NOISE = 3.0
"""Standard deviation of the noise that every frame has, in grey levels."""


@dataclass(frozen=True)
class RenderedClip:
    """Hold the frames of a clip, (T, H, W, 3) RGB uint8, and their annotations."""

    frames: NDArray[np.uint8]
    annotations: Annotations


def render_clip(options: RenderOptions, seed: int, split: Split, index: int) -> RenderedClip:
    """Render one clip.

    The clip depends on these arguments only, not on how many clips there are. Scene, schedule,
    look and noise have streams of their own: other deteriorations show the same scenes. The
    annotations are equal on all machines; pixels are equal on one machine, and between machines
    up to rounding.

    Args:
        options: what to draw.
        seed: seed of the data set, not negative.
        split: split of the data set.
        index: number of the clip within the split.
    """
    scene = draw_scene(options, Stream(seed, split, index, "scene"))
    schedule = draw_schedule(options, scene.speed_rank, Stream(seed, split, index, "schedule"))
    return render_scene(scene, schedule, options, seed, split, index)


def render_scene(
    scene: Scene,
    schedule: list[Deterioration | None],
    options: RenderOptions,
    seed: int,
    split: Split,
    index: int,
) -> RenderedClip:
    """Render a clip of which scene and schedule are drawn; the others as of `render_clip`."""
    look = Stream(seed, split, index, "look").generator
    frames = np.empty((options.num_frames, *options.size, 3), np.uint8)
    with one_thread():
        background = background_layer(options, look)
        objects = [object_layer(track, options, background, look) for track in scene.tracks]
        for t, deterioration in enumerate(schedule):
            there = (
                layer
                for track, layer in zip(scene.tracks, objects, strict=True)
                if t not in track.absent
            )
            rng = Stream(seed, split, index, "frame", t).generator
            frames[t] = expose([background, *there], t, options.size, deterioration, rng)
    return RenderedClip(frames, annotate(scene, schedule, options))


def expose(
    layers: list[Layer],
    frame: int,
    size: tuple[int, int],
    deterioration: Deterioration | None,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Take a picture of layers: laid over each other, deteriorated, with noise, (H, W, 3) RGB.

    Args:
        layers: the farthest first.
        frame: number of the frame.
        size: (height, width) of the picture.
        deterioration: of the frame; None for a clean one.
        rng: draws what changes from frame to frame.
    """
    noise = rng.standard_normal((*size, 3), dtype=np.float32)
    image = compose(layers, frame, size, deterioration)
    if deterioration is not None:
        image = deteriorate(image, deterioration, rng)
    return np.clip(image + _SENSOR_NOISE * noise + 0.5, 0, 255).astype(np.uint8)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep opencv from starting threads for frames this small."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
