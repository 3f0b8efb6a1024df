"""How a tracker of the comparison is tested: single steps, and as an online tracker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from tqdm import tqdm

from stpn_data.deteriorated import DeterioratedTracking
from stpn_data.videos import DataError
from stpn_tasks.metrics.got10k import clipped_iou
from stpn_tasks.tracking.build import build_tracker_options, crop_options
from stpn_tasks.tracking.checkpoint import SavedTracker
from stpn_tasks.tracking.comparison.protocol import Support, Template
from stpn_tasks.tracking.one_step import FrameOverlaps, OneStepOptions, one_step
from stpn_tasks.tracking.options import TrackerOptions
from stpn_tasks.tracking.protocol import TrackingNetwork
from stpn_tasks.tracking.run import track_sequence
from stpn_tasks.tracking.support_controls import BorrowedSupport, NotedSupport, PromptsOff
from stpn_tasks.tracking.tracker import OnlineTracker

CONDITIONS = ("all", "deteriorated", "clean", "first_look", "new_look")


@dataclass(frozen=True)
class Bar:
    """Where and as what a progress bar is shown."""

    title: str
    line: int = 0
    shown: bool = True


def single_steps(
    saved: SavedTracker,
    dataset: DeterioratedTracking,
    *,
    template: Template,
    support: Support,
    accelerator: Accelerator,
    seed: int,
    bar: Bar,
    first_of: Literal["own", "other"] = "own",
) -> FrameOverlaps:
    """Search frames from the true place, with the first template alone or a recent one beside it.

    Args:
        saved: the tracker.
        dataset: generated sequences.
        template: the online template: "first" again, or the last clean frame's, "recent".
        support: whose crops support.
        accelerator: devices and processes.
        seed: of the crops.
        bar: what shows how far it is.
        first_of: whose first frame the first template is of, the "own" or an "other" sequence's.
    """
    return one_step(
        saved.network.to(accelerator.device),
        dataset,
        crop_options(saved.recipe),
        OneStepOptions(
            template=first_of,
            online=template,
            support=support,
            seed=seed,
        ),
        accelerator=accelerator,
        title=bar.title,
        line=bar.line,
        progress=bar.shown,
    )


def track_all(
    saved: SavedTracker,
    dataset: DeterioratedTracking,
    *,
    online: bool,
    support: Support,
    device: torch.device,
    bar: Bar,
) -> FrameOverlaps:
    """Follow the target of every sequence from its first box on.

    With support crops of another sequence, those are what the tracker itself searched in there.

    Args:
        saved: the tracker.
        dataset: generated sequences.
        online: renew the online template; else the first one is all there is.
        support: whose crops support.
        device: where the network runs.
        bar: what shows how far it is.

    Returns:
        The overlaps of all frames that count.

    Raises:
        DataError: support crops shall be another sequence's, and there is none.
    """
    if support == "other" and len(dataset.sequences) < 2:
        raise DataError("support crops of another sequence need two sequences, got one")
    options = build_tracker_options(saved.recipe)
    if not online:
        options = replace(options, update_interval=None)
    network: TrackingNetwork = saved.network.to(device)
    follow = Follower(dataset, options, device)
    boxes = []
    numbers = range(len(dataset.sequences))
    for number in tqdm(numbers, bar.title, position=bar.line, disable=not bar.shown, unit="video"):
        if support == "off" or network.predictor is None:
            boxes.append(follow(PromptsOff(network), number))
        elif support == "own":
            boxes.append(follow(network, number))
        else:
            noted = NotedSupport(network)
            follow(noted, (number + 1) % len(numbers))
            boxes.append(follow(BorrowedSupport(network, noted.crops), number))
    return _overlaps(dataset, boxes)


@dataclass(frozen=True)
class Follower:
    """Follows the target of a sequence by its number, from its first box on.

    Attributes:
        dataset: the sequences.
        options: of the tracker.
        device: where its network is.
    """

    dataset: DeterioratedTracking
    options: TrackerOptions
    device: torch.device

    def __call__(self, network: TrackingNetwork, number: int) -> NDArray[np.float64]:
        """Return its boxes (T, 4), x, y, width, height."""
        tracker = OnlineTracker(network, self.options, self.device)
        box = self.dataset.sequences[number].boxes_xywh[0].tolist()
        return track_sequence(tracker, self.dataset.frames(number), box).boxes_xywh


def _overlaps(dataset: DeterioratedTracking, boxes: Sequence[NDArray[np.float64]]) -> FrameOverlaps:
    overlaps, sequences, conditions = [], [], []
    for number, (one, found) in enumerate(zip(dataset.sequences, boxes, strict=True)):
        counted = 1 + np.flatnonzero(one.counted[1:])
        overlaps.append(clipped_iou(found[counted], one.boxes_xywh[counted], one.size))
        sequences.append(np.full(len(counted), number))
        conditions += [dataset.conditions(number, int(t)) for t in counted]
    return FrameOverlaps(np.concatenate(overlaps), np.concatenate(sequences), tuple(conditions))


def summary(found: FrameOverlaps) -> Mapping[str, Mapping[str, float | None]]:
    """Return for each condition, in percent, the mean overlap and the success rates.

    Returns:
        Of each condition "ao", "sr50" and "sr75", null without a frame, and "frames".
    """
    numbers: dict[str, Mapping[str, float | None]] = {}
    for condition in CONDITIONS:
        overlaps = found.overlaps[found.of(condition)]
        count = len(overlaps)
        values = (overlaps, overlaps > 0.5, overlaps > 0.75)
        means = (round(100 * float(value.mean()), 2) if count else None for value in values)
        numbers[condition] = {
            **dict(zip(("ao", "sr50", "sr75"), means, strict=True)),
            "frames": count,
        }
    return numbers
