"""One step of tracking from the true place: what templates and prompts are worth, without drift.

Every frame is searched for itself, in a crop around the true box, its centre off by as much as in
training.
A tracker that has lost its target tells little of its network; here a frame counts as much as any
other, so that far smaller differences can be told from chance. Templates and support crops are cut
at true boxes too: an oracle, for development and controls, not a protocol of any benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torchvision.ops import box_convert, box_iou

from stpn_data.deteriorated import DeterioratedTracking
from stpn_data.track_samples import TrackFrame, TrackSample
from stpn_data.videos import DataError
from stpn_tasks.engine import evaluate
from stpn_tasks.tracking.batch import collate_tracks
from stpn_tasks.tracking.mixformer import MixFormer
from stpn_tasks.tracking.samples import CropCutter, CropOptions, TrackCrops


@dataclass(frozen=True)
class OneStepOptions:
    """Say what a frame is searched with.

    Attributes:
        template: the first frame of the "own" sequence, or as a control of an "other" one.
        online: the second template: the "first" again, or the last clean frame before the one that
            is searched, "recent".
        support: crops of the "own" sequence, as a control of an "other" one, or none: "off".
        every: frames from one that is searched to the next; sequences begin in turn with each of
            the first so many, so that support frames are of every age.
        seed: of crops and of what others are.
    """

    template: Literal["own", "other"] = "own"
    online: Literal["first", "recent"] = "first"
    support: Literal["own", "other", "off"] = "own"
    every: int = 3
    seed: int = 0


@dataclass(frozen=True)
class FrameOverlaps:
    """Hold the overlaps of n frames.

    Attributes:
        overlaps: (n,) IoU with the true box.
        sequences: (n,) number of each frame's sequence.
        conditions: what is special about each.
    """

    overlaps: NDArray[np.float64]
    sequences: NDArray[np.int64]
    conditions: tuple[frozenset[str], ...]

    def of(self, condition: str) -> NDArray[np.bool_]:
        """Tell which frames have a condition; all have "all"."""
        return np.array([condition == "all" or condition in names for names in self.conditions])


def one_step(
    network: MixFormer,
    dataset: DeterioratedTracking,
    crops: CropOptions,
    options: OneStepOptions,
    *,
    accelerator: Accelerator,
    batch_size: int = 32,
    title: str = "one step",
    line: int = 0,
    progress: bool = True,
) -> FrameOverlaps:
    """Search frames of generated sequences, each from the true place.

    Args:
        network: in eval mode, on the accelerator's device.
        dataset: generated sequences, which tell their conditions.
        crops: how crops are cut in training; augmentation is left out.
        options: what is searched with.
        accelerator: devices and processes.
        batch_size: frames at a time.
        title: of the progress bar.
        line: of the progress bar.
        progress: show a progress bar.

    Raises:
        DataError: a frame cannot be read, or there is no other sequence where one is asked for.
    """
    drawn = _Frames(dataset, crops, options)
    groups = [
        list(range(start, min(start + batch_size, len(drawn.frames))))
        for start in range(0, len(drawn.frames), batch_size)
    ]

    def search(group: Sequence[int]) -> list[float]:
        return _search(network, [drawn.crops(i) for i in group], accelerator)

    found = evaluate(
        search, groups, accelerator=accelerator, title=title, line=line, progress=progress
    )
    overlaps = [found[i] for i in range(len(drawn.frames))]
    return FrameOverlaps(
        np.array(overlaps),
        np.array([number for number, _ in drawn.frames]),
        tuple(dataset.conditions(number, index) for number, index in drawn.frames),
    )


@torch.no_grad()
def _search(
    network: MixFormer, samples: Sequence[TrackCrops], accelerator: Accelerator
) -> list[float]:
    batch = collate_tracks(samples).to(accelerator.device)
    templates = network.encode_templates(batch.template, batch.online)
    prompts = None
    if batch.support is not None:
        prompts = network.predict_prompts(network.embed_support_crops(batch.support, templates))
    found = network.track(batch.search, templates, prompts).boxes_cxcywh
    boxes = box_convert(found, "cxcywh", "xyxy")
    overlaps: list[float] = box_iou(boxes, batch.boxes_xyxy.clamp(0, 1)).diagonal().tolist()
    return overlaps


class _Frames:
    """The frames that are searched, and their crops."""

    def __init__(
        self, dataset: DeterioratedTracking, crops: CropOptions, options: OneStepOptions
    ) -> None:
        self.dataset = dataset
        self.options = options
        support = None if options.support == "off" else crops.support
        self.cutter = CropCutter(
            dataset,
            replace(
                crops,
                scale_jitter=0.0,
                grey=0.0,
                joint_flip=0.0,
                flip=0.0,
                brightness=0.0,
                support=support,
                support_video="other" if options.support == "other" else "own",
            ),
        )
        self.frames = [
            (number, index)
            for number, one in enumerate(dataset.sequences)
            for index in range(1 + number % options.every, one.num_frames, options.every)
            if one.visible[index]
        ]
        if options.template == "other" and len(dataset.sequences) < 2:
            raise DataError("a template of another sequence needs two sequences")

    def crops(self, i: int) -> TrackCrops:
        number, index = self.frames[i]
        random = Random(f"one step/{self.options.seed}/{number}/{index}")
        shift = random.randrange(1, max(len(self.dataset.sequences), 2))
        others = (number + shift) % len(self.dataset.sequences)
        first = self._frame(number if self.options.template == "own" else others, 0)
        online = first
        if self.options.online == "recent":
            online = self._frame(number, self._last_clean(number, index))
        sample = TrackSample(first, online, self._frame(number, index), is_positive=True)
        cut = self.cutter.cut(sample, random)
        if cut is None:
            raise DataError(f"{self.dataset.sequences[number].name}: the boxes lie beside frames")
        return cut

    def _frame(self, number: int, index: int) -> TrackFrame:
        x, y, width, height = self.dataset.sequences[number].boxes_xywh[index].tolist()
        return TrackFrame(self.dataset.frame(number, index), (x, y, width, height), number, index)

    def _last_clean(self, number: int, index: int) -> int:
        """Return the last clean frame before this one; the first frame is always clean."""
        visible = self.dataset.sequences[number].visible
        return next(
            t
            for t in range(index - 1, -1, -1)
            if visible[t] and "clean" in self.dataset.conditions(number, t)
        )
