"""What happens to frames: when, which kind, how strongly, and what it does to the pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from stpn_data.deteriorated.options import Kind, RenderOptions
from stpn_data.deteriorated.random import Stream

Image = NDArray[np.float32]

_RUN_FRAMES = (2, 5)
_SHAKE_STEPS = 18


@dataclass(frozen=True)
class Deterioration:
    """Describe what a run of frames suffers.

    Attributes:
        kind: which deterioration.
        severity: how much, around `RenderOptions.strength`.
        amount: in [0, 1), where within the range of the kind.
        direction: unit vector x, y, in which the shake starts or the mesh lies.
        color: RGB of what stands in front.
    """

    kind: Kind
    severity: float
    amount: float
    direction: tuple[float, float]
    color: tuple[float, float, float]

    def between(self, low: float, high: float) -> float:
        """Return the value within a range of the kind, times the severity."""
        return self.severity * (low + (high - low) * self.amount)


def draw_schedule(
    options: RenderOptions, speed_rank: float, stream: Stream
) -> list[Deterioration | None]:
    """Draw which frames of a clip are deteriorated and how; None is a clean frame.

    At least a quarter of the frames is clean.
    """
    share = options.deteriorated
    if options.deterioration_follows_speed:
        share *= 2 * speed_rank
    least_clean = math.ceil(options.num_frames / 4)
    return draw_runs(options, min(share, 0.75), _RUN_FRAMES, least_clean, stream)


def draw_runs(
    options: RenderOptions,
    share: float,
    run_frames: tuple[int, int],
    least_clean: int,
    stream: Stream,
) -> list[Deterioration | None]:
    """Let runs of deteriorated frames alternate with clean runs, whose mean length makes the share.

    Args:
        options: what the clip shows.
        share: of deteriorated frames.
        run_frames: fewest and most frames of a deteriorated run.
        least_clean: how many frames of the clip are clean at least.
        stream: draws.
    """
    schedule: list[Deterioration | None] = []
    if share == 0:
        return [None] * options.num_frames
    longest_clean = sum(run_frames) * (1 - share) / share - 1
    clean = stream.number() >= share
    while len(schedule) < options.num_frames:
        if clean:
            # A fraction of a frame is a frame with that probability.
            length = int(1 + stream.number() * max(longest_clean - 1, 0) + stream.number())
            run: Deterioration | None = None
        else:
            length = stream.integer(*run_frames)
            run = _draw_deterioration(options, stream)
        if not schedule:
            length = stream.integer(1, length)  # the clip starts somewhere in a run
        schedule += [run] * length
        clean = not clean
    return _keep_clean(schedule[: options.num_frames], least_clean, stream)


def shake_path(
    deterioration: Deterioration | None, velocity: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return where a layer of the scene goes while the shutter is open, (S, 2) in pixels.

    The camera wanders off in a spiral, and the motion of the layer itself is added for the time
    of one frame. The spiral smears every direction alike, so that no texture lies along it.

    Args:
        deterioration: of the frame; without motion blur the shutter is open for an instant.
        velocity: (2,) x, y of the layer in pixels per frame.
    """
    if deterioration is None or deterioration.kind != "motion_blur":
        return np.zeros((1, 2))
    time = (np.arange(_SHAKE_STEPS) + 0.5) / _SHAKE_STEPS  # in [0, 1]
    c, s = deterioration.direction
    angle = 2 * np.pi * 1.75 * time + math.atan2(s, c)
    radius = deterioration.between(6.0, 7.5) * time**0.6
    shake = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    shake -= shake.mean(axis=0)
    return shake + deterioration.severity * (time[:, None] - 0.5) * velocity


def deteriorate(image: Image, deterioration: Deterioration, rng: np.random.Generator) -> Image:
    """Apply a deterioration to a composed frame.

    Of motion blur this is only the softness of a trembling hand; the layers of the scene have
    already been smeared along `shake_path`.

    Args:
        image: (H, W, 3) in [0, 255].
        deterioration: of the frame.
        rng: draws what changes from frame to frame.
    """
    match deterioration.kind:
        case "motion_blur":
            return _soften(image, sigma=deterioration.between(1.7, 2.1))
        case "defocus":
            return _defocus(image, radius=deterioration.between(4.0, 5.5))
        case "occlusion":
            return _occlude(image, deterioration, rng)
        case "low_light":
            return _darken(image, deterioration, rng)
        case "low_resolution":
            return _pixelate(image, factor=1 + deterioration.between(4.2, 5.5))


def _draw_deterioration(options: RenderOptions, stream: Stream) -> Deterioration:
    kind = options.kinds[stream.integer(0, len(options.kinds) - 1)]
    severity = options.strength * stream.number(0.85, 1.0)
    amount, direction = stream.number(), stream.direction()
    color = (stream.number(15, 75), stream.number(15, 75), stream.number(15, 75))
    return Deterioration(kind, severity, amount, direction, color)


def _keep_clean(
    schedule: list[Deterioration | None], least_clean: int, stream: Stream
) -> list[Deterioration | None]:
    """Clean the frames after a random one, cyclically, until enough of the clip is clean."""
    schedule = list(schedule)
    frame = stream.integer(0, len(schedule) - 1)
    while schedule.count(None) < least_clean:
        schedule[frame] = None
        frame = (frame + 1) % len(schedule)
    return schedule


def _defocus(image: Image, radius: float) -> Image:
    """Blur with a soft disc, the image of a point behind or before the focus."""
    reach = math.ceil(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)  # soft edge of one pixel
    kernel = (disc / disc.sum()).astype(np.float32)
    blurred = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT)
    return _soften(np.asarray(blurred), sigma=0.4 * radius)


def _occlude(image: Image, deterioration: Deterioration, rng: np.random.Generator) -> Image:
    """Look through a mesh: bars in two directions that leave small holes."""
    height, width = image.shape[:2]
    pitch = 7.0 + 2.0 * deterioration.amount
    hole = pitch * max(1 - 0.64 * deterioration.severity, 0.1)
    c, s = deterioration.direction
    y, x = np.mgrid[:height, :width].astype(np.float32)
    shift_u, shift_v = rng.uniform(0, pitch, 2)
    opening = np.ones((height, width), np.float32)
    for along in (c * x + s * y + shift_u, c * y - s * x + shift_v):
        from_center = abs(along % pitch - pitch / 2)
        opening *= np.clip(hole / 2 - from_center + 0.5, 0, 1)
    color = np.array(deterioration.color, np.float32)
    return np.asarray(color + opening[:, :, None] * (image - color), dtype=np.float32)


def _darken(image: Image, deterioration: Deterioration, rng: np.random.Generator) -> Image:
    """Catch few photons: a dark frame, shot noise, and the smoothing that cameras answer with."""
    severity = deterioration.severity
    sigma = deterioration.between(3.0, 3.4)
    smooth = _soften(image, sigma)
    gain = max(1 - 0.7 * severity, 0.1)
    dark = gain * smooth
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(dark + 0.35 * severity * np.sqrt(np.maximum(dark, 0)) * noise)


def _pixelate(image: Image, factor: float) -> Image:
    """Average over large pixels, behind the filter against aliasing, and enlarge them smoothly."""
    height, width = image.shape[:2]
    image = _soften(image, sigma=0.35 * factor)
    small_size = (max(round(width / factor), 2), max(round(height / factor), 2))
    small = cv2.resize(image, small_size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))


def _soften(image: Image, sigma: float) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT))
