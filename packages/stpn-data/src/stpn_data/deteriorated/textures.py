"""The textures that make the classes: patterns of one wavelength that blur takes away.

A texture maps coordinates on the object in pixels, the wavelength in pixels and a generator to
values around 0. All have about the same wavelength, contrast and mean, so that nothing is left of
their difference once frames do not resolve the wavelength. Directions mean something ("horizontal"
is another class than "vertical") but survive mirroring, which augmentation may do.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stpn_data.deteriorated.options import Texture

Array = NDArray[np.float64]
Pattern = Callable[[Array, Array, float, np.random.Generator], Array]

_SHARPNESS = 1.5
_MAX_TILT = np.deg2rad(8.0)


def paint(
    texture: Texture, u: Array, v: Array, wavelength: float, rng: np.random.Generator
) -> Array:
    """Return a texture at points of an object, slightly tilted and shifted at random.

    Args:
        texture: which one.
        u: points to the right of the object's origin in pixels.
        v: points below it in pixels, of the same shape.
        wavelength: in pixels.
        rng: draws tilt, shift and what else is random.

    Returns:
        Values in [-1, 1] of the shape of `u`, with mean 0 over all points.
    """
    tilt = rng.uniform(-_MAX_TILT, _MAX_TILT)
    turned_u, turned_v = (
        np.cos(tilt) * u + np.sin(tilt) * v,
        np.cos(tilt) * v - np.sin(tilt) * u,
    )
    pattern = _PATTERNS[texture](turned_u, turned_v, wavelength, rng)
    soft: Array = np.tanh(_SHARPNESS * pattern / pattern.std())
    soft -= soft.mean()
    return soft


def _wave(x: Array, wavelength: float, rng: np.random.Generator) -> Array:
    return np.sin(2 * np.pi * (x / wavelength + rng.uniform()))


def _horizontal(u: Array, v: Array, wavelength: float, rng: np.random.Generator) -> Array:
    return _wave(v, wavelength, rng)


def _vertical(u: Array, v: Array, wavelength: float, rng: np.random.Generator) -> Array:
    return _wave(u, wavelength, rng)


def _checks(u: Array, v: Array, wavelength: float, rng: np.random.Generator) -> Array:
    return _wave(u, 1.3 * wavelength, rng) * _wave(v, 1.3 * wavelength, rng)


def _dots(u: Array, v: Array, wavelength: float, rng: np.random.Generator) -> Array:
    """Add three waves at 120 degrees: bright spots in a hexagonal lattice, or dark ones."""
    u0, v0 = u + rng.uniform(0, 12), v + rng.uniform(0, 12)
    angles = np.deg2rad([90.0, 210.0, 330.0])
    waves = [
        np.cos(2 * np.pi / wavelength * (np.cos(angle) * u0 + np.sin(angle) * v0))
        for angle in angles
    ]
    return np.asarray(sum(waves) * rng.choice([-1.0, 1.0]))


def _rings(u: Array, v: Array, wavelength: float, rng: np.random.Generator) -> Array:
    u0, v0 = rng.uniform(-6, 6, 2)
    return _wave(np.hypot(u - u0, v - v0), wavelength, rng)


def _zigzag(u: Array, v: Array, wavelength: float, rng: np.random.Generator) -> Array:
    """Bend horizontal stripes up and down at 45 degrees."""
    teeth = 2.2 * wavelength
    triangle = 2 * abs((u / teeth + rng.uniform()) % 1.0 - 0.5)
    return _wave(v + 0.5 * teeth * triangle, 1.3 * wavelength, rng)


def _spokes(u: Array, v: Array, wavelength: float, rng: np.random.Generator) -> Array:
    """Cut a pie whose pieces have the wavelength halfway to the rim."""
    u0, v0 = rng.uniform(-4, 4, 2)
    pieces = round(2 * np.pi * 10.0 / wavelength)
    return _wave(np.arctan2(v - v0, u - u0), 2 * np.pi / pieces, rng)


def _speckle(u: Array, v: Array, wavelength: float, rng: np.random.Generator) -> Array:
    """Add waves of all directions: noise of one wavelength."""
    waves = [
        _wave(np.cos(angle) * u + np.sin(angle) * v, wavelength, rng)
        for angle in rng.uniform(0, 2 * np.pi, 16)
    ]
    return np.asarray(sum(waves))


_PATTERNS: dict[Texture, Pattern] = {
    "horizontal": _horizontal,
    "vertical": _vertical,
    "checks": _checks,
    "dots": _dots,
    "rings": _rings,
    "zigzag": _zigzag,
    "spokes": _spokes,
    "speckle": _speckle,
}
