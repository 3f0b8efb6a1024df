"""What the trackers of a comparison do, to look at: strips of frames, and success curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from stpn_tasks.comparison.rows import BASELINE, STPN
from stpn_tasks.draw import COLOURS, draw_boxes, enlarge
from stpn_tasks.files import atomic_path
from stpn_tasks.metrics.got10k import tracking_success
from stpn_tasks.tracking.build import build_tracker_options
from stpn_tasks.tracking.checkpoint import load_tracker
from stpn_tasks.tracking.comparison.protocol import ROWS
from stpn_tasks.tracking.comparison.stages import TrackingSeed, read_overlaps
from stpn_tasks.tracking.comparison.testing import Follower
from stpn_tasks.tracking.crops import Image
from stpn_tasks.tracking.success_plot import write_success_plot

NAMES = ("target", BASELINE, STPN)
NUM_SEQUENCES, NUM_FRAMES = 3, 8
_FACTOR, _GAP, _TITLE = 2, 4, 22  # pixels, but the first
_INK = (40, 40, 40)

Boxes = NDArray[np.float64]


def draw_trackers(space: TrackingSeed, output: Path) -> tuple[Path, Path]:
    """Draw frames of the first test sequences, and the success curves of all of them.

    Frames show the baseline and STPN, with online templates; no sequence is chosen.

    Args:
        space: a seed's folder, whose trackers are trained and tested.
        output: folder for ``tracking-frames.png`` and ``tracking-success.png``.

    Returns:
        Both paths.
    """
    dataset = space.test_sequences()
    numbers = range(min(NUM_SEQUENCES, len(dataset.sequences)))
    device = torch.device(space.device)
    found: dict[str, list[Boxes]] = {}
    for name in (BASELINE, STPN):
        saved = load_tracker(space.weights(name))
        follow = Follower(dataset, build_tracker_options(saved.recipe), device)
        network = saved.network.to(device)
        found[name] = [follow(network, number) for number in numbers]
    truths = [dataset.sequences[number] for number in numbers]
    strips = [
        _strip(
            list(dataset.frames(number)),
            [truths[number].boxes_xywh, *(boxes[number] for boxes in found.values())],
            [_told(dataset.conditions(number, t)) for t in range(truths[number].num_frames)],
        )
        for number in numbers
    ]
    frames = output / "tracking-frames.png"
    with atomic_path(frames) as partial:
        cv2.imwrite(str(partial), cv2.cvtColor(_below(strips), cv2.COLOR_RGB2BGR))
    successes = {
        row.label: tracking_success(read_overlaps(space.found(f"{row.name}-track-recent")).overlaps)
        for row in ROWS
        if row.name == row.training
    }
    curves = output / "tracking-success.png"
    write_success_plot(curves, successes, f"{len(dataset.sequences)} sequences, online templates")
    return frames, curves


def _told(conditions: frozenset[str]) -> str:
    looks = {"new_look": "new look", "changing_look": "changes", "first_look": ""}
    plain = {"clean", "deteriorated"}
    kinds = [one for one in sorted(conditions - plain - looks.keys()) if "differ" not in one]
    return ", ".join([*(one.replace("_", " ") for one in kinds), *_look(conditions, looks)])


def _look(conditions: frozenset[str], looks: dict[str, str]) -> list[str]:
    return [words for name, words in looks.items() if name in conditions and words]


def _strip(frames: Sequence[Image], boxes: Sequence[Boxes], told: Sequence[str]) -> Image:
    """Draw some frames side by side: what is searched for, and what each tracker found."""
    shown = np.linspace(0, len(frames) - 1, min(NUM_FRAMES, len(frames))).round().astype(int)
    tiles = []
    for t in shown.tolist():
        there = [(label, one[t]) for label, one in enumerate(boxes) if np.isfinite(one[t]).all()]
        corners = np.array([box * _FACTOR for _, box in there], np.float32).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        labels = np.array([label for label, _ in there], np.int64)
        tile = draw_boxes(enlarge(frames[t], _FACTOR), corners, labels, NAMES, letters=8)
        words = f"{t}" + (f": {told[t]}" if told[t] else "")
        tiles.append(np.concatenate([_words(words, tile.shape[1]), tile]))
    gap = np.full((tiles[0].shape[0], _GAP, 3), 255, np.uint8)
    return np.concatenate([part for tile in tiles for part in (tile, gap)][:-1], axis=1)


def _words(text: str, width: int) -> Image:
    line = np.full((_TITLE, width, 3), 255, np.uint8)
    where = (4, _TITLE - 7)
    cv2.putText(line, text, where, cv2.FONT_HERSHEY_SIMPLEX, 0.42, _INK, 1, cv2.LINE_AA)
    return line


def _below(strips: Sequence[Image]) -> Image:
    """Put strips below each other, and what the colours mean above them."""
    width = max(strip.shape[1] for strip in strips)
    key = np.full((_TITLE, width, 3), 255, np.uint8)
    for number, name in enumerate(NAMES):
        left = 4 + 130 * number
        cv2.rectangle(key, (left, 5), (left + 12, 16), COLOURS[number], -1)
        where = (left + 18, 16)
        cv2.putText(key, name, where, cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA)
    filled = [
        np.pad(strip, ((_GAP, 0), (0, width - strip.shape[1]), (0, 0)), constant_values=255)
        for strip in strips
    ]
    return np.concatenate([key, *filled])
