"""The pictures of a clip: a background and objects, laid over each other."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from stpn_data.deteriorated.deterioration import Deterioration, Image, shake_path
from stpn_data.deteriorated.options import RenderOptions
from stpn_data.deteriorated.scene import Track
from stpn_data.deteriorated.textures import paint

_OVERSAMPLING = 2
"""Objects are painted this much larger than they appear, for smooth edges after warping."""

_WAVELENGTHS = (5.5, 7.5)
"""Range of the wavelengths of textures in pixels, for every class alike."""

_MIN_CONTRAST = 40.0
"""Least mean difference between the colours of an object and of the background."""


@dataclass(frozen=True)
class Layer:
    """Hold something flat that moves: a picture, and where it is in each frame.

    Attributes:
        picture: (h, w, 4) float32, colours times opacity in [0, 255] and opacity in [0, 1].
        transforms: (T, 2, 3) from pixels of the picture to pixels of the frame.
        centers: (T, 2) x, y in the frame.
        radius: largest distance from the centre in pixels; None where the layer fills the frame.
    """

    picture: Image
    transforms: NDArray[np.float64]
    centers: NDArray[np.float64]
    radius: float | None

    def velocity(self, frame: int) -> NDArray[np.float64]:
        """Return x, y in pixels per frame, over the frames before and after."""
        before, after = max(frame - 1, 0), min(frame + 1, len(self.centers) - 1)
        way: NDArray[np.float64] = self.centers[after] - self.centers[before]
        return way / max(after - before, 1)

    def still(self, frame: int, offset: NDArray[np.float64] | None = None) -> Layer:
        """Return the layer at one frame only, as its frame 0 and without a velocity.

        Args:
            frame: number of the frame.
            offset: (2,) x, y in pixels to move it by.
        """
        transforms = self.transforms[frame : frame + 1].copy()
        centers = self.centers[frame : frame + 1].copy()
        if offset is not None:
            transforms[:, :, 2] += offset
            centers += offset
        return replace(self, transforms=transforms, centers=centers)

    def region(self, frame: int, size: tuple[int, int], spread: float) -> tuple[slice, slice]:
        """Return the rows and columns of a frame that the layer can touch.

        Args:
            frame: number of the frame.
            size: (height, width) of frames.
            spread: how much further than its outline the layer is smeared, in pixels.
        """
        height, width = size
        if self.radius is None:
            return slice(0, height), slice(0, width)
        x, y = self.centers[frame]
        reach = self.radius + spread
        top, bottom = max(math.floor(y - reach), 0), min(math.ceil(y + reach), height)
        left, right = max(math.floor(x - reach), 0), min(math.ceil(x + reach), width)
        return slice(top, max(bottom, top)), slice(left, max(right, left))


def background_layer(options: RenderOptions, rng: np.random.Generator) -> Layer:
    """Draw a smooth, coloured background over which the camera drifts and sways."""
    height, width = options.size
    times = np.arange(options.num_frames)[:, None]
    sway = 1.5 * np.sin(times * rng.uniform(0.2, 0.5, 2) + rng.uniform(0, 2 * np.pi, 2))
    shift = times * rng.uniform(-0.8, 0.8, 2) + sway  # (T, 2)
    picture = np.ones((height, width, 4), np.float32)
    picture[:, :, :3] = rng.uniform(70, 185, 3)
    for cell, contrast in ((56, 22.0), (20, 9.0)):
        grid = rng.uniform(-1, 1, (height // cell + 2, width // cell + 2, 3)).astype(np.float32)
        smooth = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        picture[:, :, :3] += contrast * smooth
    transforms = np.tile(np.eye(2, 3), (options.num_frames, 1, 1))
    transforms[:, :, 2] = shift
    return Layer(picture, transforms, shift, radius=None)


def object_layer(
    track: Track, options: RenderOptions, background: Layer, rng: np.random.Generator
) -> Layer:
    """Draw an object: its outline, filled with the texture of its class in two random colours."""
    u, v = picture_points(track.outline)
    pattern = paint(options.classes[track.label], u, v, rng.uniform(*_WAVELENGTHS), rng)
    swing = rng.uniform(25, 70, 3) * rng.choice([-1, 1], 3)
    colors = contrasting_color(background, rng) + pattern[:, :, None] * swing
    return cut_out(track, colors)


def picture_points(
    outline: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return u, v on the object of the pixels of its picture, each (side, side)."""
    half = _picture_half(outline)
    points = (np.arange(2 * half * _OVERSAMPLING) + 0.5) / _OVERSAMPLING - half
    u, v = np.meshgrid(points, points)
    return u, v


def cut_out(track: Track, colors: NDArray[np.float64]) -> Layer:
    """Make the layer of an object: its colours, (side, side, 3), inside its outline."""
    half = _picture_half(track.outline)
    vertices = (track.outline + half) * _OVERSAMPLING - 0.5  # opencv counts from pixel centres
    opacity = np.zeros(colors.shape[:2], np.float32)
    cv2.fillPoly(opacity, [np.round(vertices * 256).astype(np.int32)], 1.0, shift=8)
    soft = np.asarray(cv2.GaussianBlur(opacity, (0, 0), 0.8))[:, :, None]
    picture = np.concatenate([colors * soft, soft], axis=2).astype(np.float32)

    to_object = np.diag([1 / _OVERSAMPLING, 1 / _OVERSAMPLING, 1.0])
    to_object[:2, 2] = 0.5 / _OVERSAMPLING - half
    to_frame = np.concatenate([track.matrices, track.centers[:, :, None] - 0.5], axis=2)
    largest = float(np.sqrt(np.linalg.det(track.matrices).max()))
    radius = largest * _radius(track.outline) + 2
    return Layer(picture, to_frame @ to_object, track.centers, radius)


def compose(
    layers: list[Layer], frame: int, size: tuple[int, int], deterioration: Deterioration | None
) -> Image:
    """Lay the layers of a frame over each other, each smeared along its own path.

    Returns:
        (H, W, 3) float32 RGB in about [0, 255].
    """
    image = np.zeros((*size, 3), np.float32)
    for layer in layers:
        path = shake_path(deterioration, layer.velocity(frame))
        rows, columns = layer.region(frame, size, spread=float(abs(path).max()))
        seen = _smear(layer, frame, rows, columns, path)
        image[rows, columns] *= 1 - seen[:, :, 3:]
        image[rows, columns] += seen[:, :, :3]
    return image


def _smear(
    layer: Layer, frame: int, rows: slice, columns: slice, path: NDArray[np.float64]
) -> Image:
    """Return the mean of a layer over the places on a path, (rows, columns, 4)."""
    height, width = rows.stop - rows.start, columns.stop - columns.start
    mean = np.zeros((height, width, 4), np.float32)
    if mean.size == 0:
        return mean
    border = cv2.BORDER_REFLECT if layer.radius is None else cv2.BORDER_CONSTANT
    transform = layer.transforms[frame].copy()
    for offset in path:
        transform[:, 2] = layer.transforms[frame][:, 2] + offset - (columns.start, rows.start)
        mean += cv2.warpAffine(layer.picture, transform, (width, height), borderMode=border)
    mean /= len(path)
    return mean


def contrasting_color(background: Layer, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a colour that differs from the background's."""
    behind = background.picture[:, :, :3].mean(axis=(0, 1))
    color = rng.uniform(50, 205, 3)
    while abs(color - behind).mean() < _MIN_CONTRAST:
        color = rng.uniform(50, 205, 3)
    return color


def _picture_half(outline: NDArray[np.float64]) -> int:
    """Return how far the picture of an object reaches from its origin, in pixels of the frame."""
    return math.ceil(_radius(outline)) + 2


def _radius(outline: NDArray[np.float64]) -> float:
    return float(np.sqrt((outline**2).sum(axis=1)).max())
