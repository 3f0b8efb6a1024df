"""The looks of the objects of a tracking sequence: equal but for one attribute."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stpn_data.deteriorated.layers import Layer, contrasting_color, cut_out, picture_points
from stpn_data.deteriorated.textures import paint
from stpn_data.deteriorated.tracking_options import TrackingOptions
from stpn_data.deteriorated.tracking_scene import TrackingScene

_CANDIDATES = 64
"""Directions in RGB to take the most different one of."""

_COMMON_PERIOD = 0.35
"""Where, between the logarithms of the shortest and the longest, a period is that all have."""


class Wardrobe:
    """Draw the looks of all objects of a sequence and dress the objects in each frame.

    A look is (4,): the swing in RGB, from the mean to one of both colours, and the logarithm of
    the period. Between two looks lie the points of a line.

    Args:
        scene: the objects.
        options: how far the looks may differ.
        background: from which the mean colour differs.
        rng: draws the looks.
    """

    def __init__(
        self,
        scene: TrackingScene,
        options: TrackingOptions,
        background: Layer,
        rng: np.random.Generator,
    ) -> None:
        tracks = scene.objects.tracks
        looks = _looks(scene, options, len(tracks) + 1, rng)
        self.first_looks = looks[:-1]  # (objects, 4)
        self.new_looks = looks[:-1].copy()
        self.new_looks[scene.target] = looks[-1]
        self.new_looks[scene.decoy] = looks[scene.target]
        self._scene = scene
        self._texture = options.textures[tracks[0].label]
        self._points = picture_points(tracks[0].outline)
        self._tint = options.tint
        self._mean = contrasting_color(background, rng)
        self._paint_seed = int(rng.integers(2**31))
        self._patterns: dict[float, NDArray[np.float64]] = {}
        self._layers: dict[tuple[int, bytes], Layer] = {}

    def look(self, number: int, frame: int) -> NDArray[np.float64]:
        """Return the look of an object in a frame, (4,)."""
        share = self._scene.new_look[frame]
        look: NDArray[np.float64] = (1 - share) * self.first_looks[number] + share * self.new_looks[
            number
        ]
        return look

    def layers(self, frame: int) -> list[Layer]:
        """Return the layers of all objects in a frame, as still ones."""
        numbers = range(len(self._scene.objects.tracks))
        return [self._layer(i, self.look(i, frame)).still(frame) for i in numbers]

    def _layer(self, number: int, look: NDArray[np.float64]) -> Layer:
        key = (number, look.tobytes())
        if key not in self._layers:
            swing = self._pattern(look[3])[:, :, None] + self._tint  # (H, W, 1)
            colors = self._mean + swing * look[:3]
            self._layers[key] = cut_out(self._scene.objects.tracks[number], colors)
        return self._layers[key]

    def _pattern(self, log_period: float) -> NDArray[np.float64]:
        """Paint the texture, tilted and shifted in the same way for all objects."""
        if log_period not in self._patterns:
            rng = np.random.default_rng(self._paint_seed)
            period = float(np.exp(log_period))
            self._patterns[log_period] = paint(self._texture, *self._points, period, rng)
        return self._patterns[log_period]


def _looks(
    scene: TrackingScene, options: TrackingOptions, count: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw looks that differ in the attribute of the scene and agree in the other, (count, 4)."""
    low, high = np.log(options.periods)
    if scene.attribute == "colors":
        swings = _directions(count, rng)  # (count, 3)
        periods = np.full(count, low + _COMMON_PERIOD * (high - low))
    else:
        swings = np.tile(_directions(1, rng), (count, 1))
        periods = rng.permutation(np.linspace(low, high, count))
    return np.concatenate([options.contrast * swings, periods[:, None]], axis=1)


def _directions(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw unit vectors far from each other and from each other's opposites, (count, 3).

    A texture looks the same with its two colours exchanged.
    """
    chosen = np.empty((0, 3))
    for _ in range(count):
        candidates = rng.normal(size=(_CANDIDATES, 3))
        candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
        nearness = abs(candidates @ chosen.T).max(axis=1, initial=0)
        chosen = np.concatenate([chosen, candidates[nearness.argmin()][None]])
    return chosen
