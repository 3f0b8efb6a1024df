"""Measure, without a model, how much generated tracking sequences need the identity of the target.

    python benchmarks/tracking_identity.py [--sequences N] [--set FIELD=VALUE ...] [--output FILE]

In every frame but the first, a matcher chooses among the boxes of the target and its distractors
the one that looks most like a template. Printed is the share of frames, in percent, in which it
chooses the target, for templates from: the first frame; the last clean frame before (an oracle,
since it is cut at the true box); the first frames of other sequences. Then what place alone gives:
the box nearest to where the target was in the frame before, nearest to the middle of a crop that is
off that place by up to twice the size of the object, and nearest to the middle of the frame; and
chance.

At the defaults, 120 sequences: first template 47, recent 82, another's 19; nearest 56, middle of
crop 38, middle of frame 19, chance 17. By template in clean frames 54, 96 and 19, in deteriorated
ones 40, 66 and 19, in the first look 88, 88 and 19, in the new one 2, 82 and 20.

The look of a crop is the mean and the covariance of its colours, which say between which two it
alternates, and its spectrum, which says how often.
"""

from __future__ import annotations

import argparse
import ast
import json
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean as mean

import cv2
import numpy as np
from numpy.typing import NDArray

from stpn_data.deteriorated.tracking_options import TrackingOptions
from stpn_data.deteriorated.tracking_render import (
    RenderedSequence,
    TrackingAnnotations,
    render_sequence,
)

Array = NDArray[np.float64]

Hits = dict[str, float]

_PATCH = 24
_STRANGERS = 9
_DRAWS = 8
_JITTER = 2.0
"""How far the middle of a crop is off in training, in sizes of the object."""
_GREY_LEVELS = 50.0
"""A difference of mean colours that counts as much as one of other colours or periods."""
_RING_EDGES = np.geomspace(1 / _PATCH, 0.5, 11)


def look_of(frame: NDArray[np.uint8], box: Array) -> Array:
    """Describe the middle of a box: colours, mean (3,) and covariance (9,), and spectrum (10,)."""
    x, y = (box[:2] + box[2:]) / 2
    patch = cv2.getRectSubPix(frame, (_PATCH, _PATCH), (float(x) - 0.5, float(y) - 0.5))
    reach = np.minimum((box[2:] - box[:2]) / 2, _PATCH / 2) * 0.8
    v, u = np.mgrid[:_PATCH, :_PATCH] + 0.5 - _PATCH / 2
    inside = (u / reach[0]) ** 2 + (v / reach[1]) ** 2 < 1
    colors = patch[inside].astype(np.float64)
    covariance = np.cov(colors.T) + 1e-3 * np.eye(3)
    axis = np.linalg.eigh(covariance)[1][:, -1]
    wave = np.where(inside, (patch - colors.mean(axis=0)) @ axis, 0.0)
    power = abs(np.fft.rfft2(wave)) ** 2
    frequency = np.hypot(np.fft.fftfreq(_PATCH)[:, None], np.fft.rfftfreq(_PATCH)[None])
    rings = [
        power[(frequency >= low) & (frequency < high)].sum()
        for low, high in zip(_RING_EDGES, _RING_EDGES[1:], strict=False)
    ]
    spectrum = np.sqrt(np.array(rings) / max(sum(rings), 1e-9))
    mean_color = colors.mean(axis=0) / _GREY_LEVELS
    return np.concatenate([mean_color, (covariance / np.trace(covariance)).ravel(), spectrum])


@dataclass(frozen=True)
class Described:
    """Hold what the matcher knows of a sequence.

    Attributes:
        known: annotations of the sequence.
        looks: (T, objects, 22); NaN where an object is not in view.
        middles: (T, objects, 2) x, y of the middles of the boxes; NaN likewise.
    """

    known: TrackingAnnotations
    looks: Array
    middles: Array

    @property
    def first(self) -> Array:
        """Look of the target in the first frame, (22,)."""
        look: Array = self.looks[0, self.known.target]
        return look

    def seen(self, frame: int) -> bool:
        """Tell whether the target is in view."""
        return not np.isnan(self.looks[frame, self.known.target]).any()

    def recent(self, frame: int) -> Array:
        """Look of the target in the last clean frame before this one, (22,)."""
        clean = [t for t in range(frame) if self.known.kinds[t] is None and self.seen(t)]
        look: Array = self.looks[clean[-1], self.known.target]
        return look

    def hit(self, frame: int, like: Array, of: Array) -> float:
        """Return 1 if the target has the row of `of` (T, objects, d) nearest to `like` (d,)."""
        distance = np.linalg.norm(of[frame] - like, axis=1)
        return float(np.nanargmin(distance) == self.known.target)


def describe(sequence: RenderedSequence) -> Described:
    """Describe all objects in all frames."""
    boxes = sequence.annotations.boxes_xyxy
    looks = np.full((*boxes.shape[:2], 22), np.nan)
    for t, i in zip(*np.nonzero(~np.isnan(boxes[:, :, 0])), strict=True):
        looks[t, i] = look_of(sequence.frames[t], boxes[t, i])
    return Described(sequence.annotations, looks, (boxes[..., :2] + boxes[..., 2:]) / 2)


def choose(one: Described, frame: int, strangers: list[Array], options: TrackingOptions) -> Hits:
    """Return for each row how often the target is chosen in a frame."""
    middles = one.middles
    before = middles[frame - 1 if one.seen(frame - 1) else 0, one.known.target]
    rng = np.random.default_rng(frame)
    crops = before + rng.uniform(-1, 1, (_DRAWS, 2)) * _JITTER * np.mean(options.object_size)
    return {
        "first template": one.hit(frame, one.first, one.looks),
        "recent template": one.hit(frame, one.recent(frame), one.looks),
        "another's template": mean(one.hit(frame, look, one.looks) for look in strangers),
        "nearest": one.hit(frame, before, middles),
        "middle of crop": mean(one.hit(frame, crop, middles) for crop in crops),
        "middle of frame": one.hit(frame, np.array(options.size[::-1]) / 2, middles),
        "chance": 1 / float((~np.isnan(middles[frame, :, 0])).sum()),
    }


def measure(options: TrackingOptions, num_sequences: int, seed: int = 0) -> dict[str, Hits]:
    """Return for each condition and row the percent of frames in which the target is chosen."""
    described = [describe(render_sequence(options, seed, "val", i)) for i in range(num_sequences)]
    frames: dict[str, list[Hits]] = defaultdict(list)
    for number, one in enumerate(described):
        strangers = [described[(number + i) % num_sequences].first for i in range(1, _STRANGERS)]
        for t in range(1, len(one.looks)):
            if one.seen(t):
                hits = choose(one, t, strangers, options)
                for name in ("all", *one.known.conditions(t)):
                    frames[name].append(hits)
    return {
        name: {row: 100 * mean(hits[row] for hits in of_name) for row in of_name[0]}
        for name, of_name in sorted(frames.items())
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=60)
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    fields = dict(item.split("=", 1) for item in arguments.set)
    values = {name: ast.literal_eval(value) for name, value in fields.items()}
    options = replace(TrackingOptions(), **values)
    shares = measure(options, arguments.sequences)
    rows = list(shares["all"])
    print(f"{'':18}" + "".join(f"{row:>20}" for row in rows))
    for name, hits in shares.items():
        print(f"{name:18}" + "".join(f"{hits[row]:20.1f}" for row in rows))
    if arguments.output:
        arguments.output.write_text(json.dumps(shares, indent=2))


if __name__ == "__main__":
    main()
