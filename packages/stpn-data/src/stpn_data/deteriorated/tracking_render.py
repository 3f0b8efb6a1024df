"""From a seed to a tracking sequence: frames, boxes of all objects, and conditions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stpn_data.deteriorated.deterioration import draw_schedule
from stpn_data.deteriorated.layers import background_layer
from stpn_data.deteriorated.options import Kind, Split
from stpn_data.deteriorated.random import Stream
from stpn_data.deteriorated.render import expose, one_thread
from stpn_data.deteriorated.tracking_looks import Wardrobe
from stpn_data.deteriorated.tracking_options import Attribute, TrackingOptions
from stpn_data.deteriorated.tracking_scene import draw_tracking_scene

Look = Literal["first_look", "changing_look", "new_look"]


@dataclass(frozen=True)
class TrackingAnnotations:
    """Hold what is known of a sequence.

    Attributes:
        target: number of the target among the objects.
        decoy: number of the distractor that takes the first look of the target.
        attribute: what the objects differ in.
        kinds: (T,) deterioration of each frame, None for clean ones.
        new_look: (T,) in [0, 1], how far the looks of target and decoy have changed.
        boxes_xyxy: (T, objects, 4) float64, the tightest around what is seen of an object; right
            and bottom exclusive; NaN where it is not in view.
    """

    target: int
    decoy: int
    attribute: Attribute
    kinds: tuple[Kind | None, ...]
    new_look: NDArray[np.float64]
    boxes_xyxy: NDArray[np.float64]

    def conditions(self, frame: int) -> frozenset[str]:
        """Name what is special about a frame.

        "clean", or "deteriorated" and the kind; "first_look", "changing_look" or "new_look" of
        the target; "differ_in_colors" or "differ_in_period".
        """
        kind = self.kinds[frame]
        names: set[str] = {"clean"} if kind is None else {"deteriorated", kind}
        return frozenset(names | {self.look(frame), f"differ_in_{self.attribute}"})

    def look(self, frame: int) -> Look:
        """Name how far the look of the target has changed."""
        share = self.new_look[frame]
        if share == 0:
            return "first_look"
        return "new_look" if share == 1 else "changing_look"


@dataclass(frozen=True)
class RenderedSequence:
    """Hold the frames of a sequence, (T, H, W, 3) RGB uint8, and its annotations."""

    frames: NDArray[np.uint8]
    annotations: TrackingAnnotations


def render_sequence(
    options: TrackingOptions, seed: int, split: Split, index: int
) -> RenderedSequence:
    """Render one sequence, which depends on these arguments only.

    Scene, schedule, look and noise have streams of their own: other deteriorations show the same
    scenes. The annotations are equal on all machines; pixels are equal on one machine, and between
    machines up to rounding.

    Args:
        options: what to draw.
        seed: seed of the data set, not negative.
        split: split of the data set.
        index: number of the sequence within the split.
    """
    scene = draw_tracking_scene(options, Stream(seed, split, index, "scene"))
    common = options.of_frames(scene.num_frames)
    schedule = draw_schedule(common, 0.5, Stream(seed, split, index, "schedule"))
    schedule[0] = None
    look = Stream(seed, split, index, "look").generator
    frames = np.empty((scene.num_frames, *options.size, 3), np.uint8)
    with one_thread():
        background = background_layer(common, look)
        wardrobe = Wardrobe(scene, options, background, look)
        for t, deterioration in enumerate(schedule):
            layers = [background.still(t, scene.camera[t]), *wardrobe.layers(t)]
            rng = Stream(seed, split, index, "frame", t).generator
            frames[t] = expose(layers, 0, options.size, deterioration, rng)
    annotations = TrackingAnnotations(
        target=scene.target,
        decoy=scene.decoy,
        attribute=scene.attribute,
        kinds=tuple(None if item is None else item.kind for item in schedule),
        new_look=scene.new_look,
        boxes_xyxy=scene.boxes(options.size),
    )
    return RenderedSequence(frames, annotations)
