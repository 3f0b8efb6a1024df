"""Samples to train a tracker with: two templates, the frame in which to search, and their boxes."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from stpn_data.sequences import TrackingDataset
from stpn_data.track_sampling import TrackSampler
from stpn_data.videos import DataError

_NUM_TEMPLATES, _NUM_SEARCH = 2, 1
MIN_FRAMES = 20
"""Shorter sequences are not trained on."""
MORE_VISIBLE_THAN = 2 * (_NUM_TEMPLATES + _NUM_SEARCH)
"""Nor are those with as few visible frames as this."""
_CENTRED_SHARE = 1 / 8


@dataclass(frozen=True)
class TrackFrame:
    """Hold one frame of a sample.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        box_xywh: x, y, width, height of the target in pixels.
        sequence: number of the sequence in the data set.
        index: number of the frame in the sequence.
    """

    pixels: NDArray[np.uint8]
    box_xywh: tuple[float, float, float, float]
    sequence: int
    index: int


@dataclass(frozen=True)
class TrackSample:
    """Hold the frames of one sample of training, uncropped.

    Attributes:
        template: the first template.
        online_template: the second one.
        search: the frame to search in.
        is_positive: the target of the templates is in the search frame, at its box.
    """

    template: TrackFrame
    online_template: TrackFrame
    search: TrackFrame
    is_positive: bool


class TrackSamples(Dataset[TrackSample]):
    """Draw a number of samples per epoch, from sequences that are long enough.

    Each takes a sequence at random, of those with at least `MIN_FRAMES` frames and more than
    `MORE_VISIBLE_THAN` visible ones. Everything random about sample i is a function of (seed,
    epoch, i) alone: neither the order of reading nor the number of workers changes it.

    Boxes are the annotated ones, and a draw whose online template has none is repeated. A negative
    has the box around which to crop, which is not that of the target: in a frame of the sequence
    a made-up one in the centre, an eighth of the frame high and wide; in a frame of another
    sequence that of its target.

    Args:
        dataset: the annotated sequences.
        sampler: draws the frames.
        num_samples: samples of an epoch; 60000 in the paper.
        seed: seed of the draws.

    Raises:
        ValueError: `num_samples` below 1.
        DataError: no sequence is long enough.
    """

    def __init__(
        self,
        dataset: TrackingDataset,
        sampler: TrackSampler,
        num_samples: int = 60_000,
        seed: int = 0,
    ) -> None:
        """Find the sequences that are long enough."""
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        self.dataset = dataset
        self.sampler = sampler
        self.num_samples = num_samples
        self.seed = seed
        self.usable = [
            number
            for number, one in enumerate(dataset.sequences)
            if one.num_frames >= MIN_FRAMES and one.visible.sum() > MORE_VISIBLE_THAN
        ]
        if not self.usable:
            raise DataError(
                f"none of {len(dataset.sequences)} sequences has {MIN_FRAMES} frames and more "
                f"than {MORE_VISIBLE_THAN} with a visible target"
            )
        # In shared memory, so that workers that outlive an epoch see the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def has_negatives(self) -> bool:
        """Is there a frame without the target for each sequence, its own or of another one?"""
        return len(self.usable) > 1 or not self.dataset.sequences[self.usable[0]].visible.all()

    def set_epoch(self, epoch: int) -> None:
        """Choose the draws of an epoch; call it before the epoch's loader is iterated."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        """Return the number of samples of an epoch."""
        return self.num_samples

    def __getitem__(self, i: int) -> TrackSample:
        """Draw and read sample i.

        Raises:
            IndexError: i is not in 0 .. len - 1.
            DataError: a frame cannot be read, or there is no frame for a negative.
        """
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} is not one of {len(self)}")
        random = Random(f"{self.seed}/{int(self._epoch)}/{i}")
        number = random.choice(self.usable)
        sequence = self.dataset.sequences[number]
        has_box = sequence.has_box
        drawn = self.sampler(sequence.visible, random)
        while not has_box[drawn.online_template]:
            drawn = self.sampler(sequence.visible, random)
        template = self._annotated(number, drawn.template)
        online_template = self._annotated(number, drawn.online_template)
        if drawn.search is None:
            search = self._elsewhere(number, random)
        elif drawn.is_positive:
            search = self._annotated(number, drawn.search)
        else:
            pixels = self.dataset.frame(number, drawn.search)
            search = TrackFrame(pixels, _centred_box(sequence.size), number, drawn.search)
        return TrackSample(template, online_template, search, drawn.is_positive)

    def _annotated(self, sequence: int, index: int) -> TrackFrame:
        x, y, width, height = self.dataset.sequences[sequence].boxes_xywh[index].tolist()
        pixels = self.dataset.frame(sequence, index)
        return TrackFrame(pixels, (x, y, width, height), sequence, index)

    def _elsewhere(self, sequence: int, random: Random) -> TrackFrame:
        """Draw a frame of another sequence, visible or not, with a box to crop around."""
        others = [number for number in self.usable if number != sequence]
        if not others:
            raise DataError(
                f"{self.dataset.sequences[sequence].name}: a negative needs frames without the "
                "target or another sequence that is long enough, and there are none"
            )
        other = random.choice(others)
        frames = np.flatnonzero(self.dataset.sequences[other].has_box).tolist()
        return self._annotated(other, random.choice(frames))


def _centred_box(size: tuple[int, int]) -> tuple[float, float, float, float]:
    height, width = size
    w, h = width * _CENTRED_SHARE, height * _CENTRED_SHARE
    return (width - w) / 2, (height - h) / 2, w, h
