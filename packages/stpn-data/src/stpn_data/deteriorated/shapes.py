"""Random outlines of objects, and exact masks of them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stpn_data.deteriorated.random import Stream, unit_vector

# Vertices are integers in this fraction of a pixel, so that masks are a matter of integers.
SUBPIXELS = 256

_SMOOTH_VERTICES = 32


def random_outline(stream: Stream) -> NDArray[np.float64]:
    """Draw an outline of area 1 around the origin: an ellipse, a polygon or a blob, (V, 2)."""
    kind = stream.integer(0, 2)
    if kind == 0:
        points = _ellipse(stream)
    elif kind == 1:
        points = _polygon(stream)
    else:
        points = _blob(stream)
    outline = np.array(points) - _centroid(points)
    return outline / math.sqrt(_area(points))


def rasterize(polygon: NDArray[np.int64], height: int, width: int) -> NDArray[np.bool_]:
    """Mark the pixels whose centre lies inside a polygon (even-odd rule), by integers alone.

    Args:
        polygon: (V, 2) vertices x, y in 1 / `SUBPIXELS` pixel; the centre of the first pixel is
            at half a pixel.
        height: H of the mask in pixels.
        width: W of the mask in pixels.

    Returns:
        (H, W) mask. Polygons that share an edge share no pixel.
    """
    half = SUBPIXELS // 2
    x0, y0 = polygon[:, 0], polygon[:, 1]
    x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
    center_y = (np.arange(height, dtype=np.int64) * SUBPIXELS + half)[:, None]  # (H, 1)
    rows, edges = np.nonzero((y0 <= center_y) != (y1 <= center_y))
    flip = np.sign(y1 - y0)[edges]
    dy = ((y1 - y0)[edges]) * flip
    crossing = x0[edges] * dy + (center_y[rows, 0] - y0[edges]) * (x1 - x0)[edges] * flip
    # The first column whose centre is right of the crossing / dy.
    columns = np.clip((crossing - half * dy) // (SUBPIXELS * dy) + 1, 0, width)
    toggles = np.bincount(rows * (width + 1) + columns, minlength=height * (width + 1))
    inside = np.cumsum(toggles.reshape(height, width + 1), axis=1)[:, :width] % 2
    return inside.astype(np.bool_)


def _ellipse(stream: Stream) -> list[tuple[float, float]]:
    stretch = stream.number(1.0, 1.7)
    c, s = stream.direction()
    circle = [unit_vector(i / _SMOOTH_VERTICES) for i in range(_SMOOTH_VERTICES)]
    return [(c * stretch * x - s * y, s * stretch * x + c * y) for x, y in circle]


def _polygon(stream: Stream) -> list[tuple[float, float]]:
    corners = stream.integer(4, 7)
    start = stream.number()
    points = []
    for i in range(corners):
        x, y = unit_vector((start + (i + stream.number(-0.2, 0.2)) / corners) % 1.0)
        radius = stream.number(0.85, 1.15)
        points.append((radius * x, radius * y))
    return points


def _blob(stream: Stream) -> list[tuple[float, float]]:
    knots = [stream.number(0.65, 1.35) for _ in range(stream.integer(4, 7))]
    points = []
    for i in range(_SMOOTH_VERTICES):
        place = i * len(knots) / _SMOOTH_VERTICES
        knot = int(place)
        t = place - knot
        blend = t * t * (3 - 2 * t)
        radius = (1 - blend) * knots[knot] + blend * knots[(knot + 1) % len(knots)]
        x, y = unit_vector(i / _SMOOTH_VERTICES)
        points.append((radius * x, radius * y))
    return points


def _area(points: list[tuple[float, float]]) -> float:
    """Return the area of a polygon by the shoelace formula, summed in order."""
    double = 0.0
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        double += x0 * y1 - x1 * y0
    return abs(double) / 2


def _centroid(points: list[tuple[float, float]]) -> tuple[float, float]:
    x_sum, y_sum = 0.0, 0.0
    for x, y in points:
        x_sum += x
        y_sum += y
    return x_sum / len(points), y_sum / len(points)
