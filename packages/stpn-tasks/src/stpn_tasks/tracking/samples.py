"""Training crops of a tracker: jittered, augmented, with support crops for STPN.

Samples come from `stpn_data.TrackSamples` as whole frames. Crops, jitter and augmentation are
MixFormer's; support crops are ours, since no source says how STPN's tracker was trained. They are
what the online tracker takes as support: crops of the latest K multiples of S before the search
frame, each around the target's own box; like a search crop with its jitter, or of half the side,
jittered as a box that was found is. Where a support frame
has no box, the crop lies around the latest one before it, as a tracker's would, or, before the
first, around the first. Those of a negative are the target's too, of the frames up to its second
template: a tracker that searches in the wrong place remembers what it followed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Literal

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from stpn_data.sampling import CausalSampler
from stpn_data.sequences import TrackingDataset
from stpn_data.track_samples import TrackFrame, TrackSample, TrackSamples
from stpn_data.videos import DataError
from stpn_tasks.tracking.crops import Box, CropWindow, Image
from stpn_tasks.tracking.options import SupportCrop, support_part

_MAX_DRAWS = 100
# Of the centre of a support crop around the target, in its mean sides: boxes that are found are off
# by less than a quarter, where they count as found.
_FOUND_JITTER = 0.5


@dataclass(frozen=True)
class CropOptions:
    """Say how training crops are cut and changed; the defaults are MixFormer's.

    Attributes:
        template_size: rows and columns of the crops of templates, around their boxes exactly.
        template_factor: side of these crops in the frame, by the mean side of the target.
        search_size: rows and columns of search and support crops.
        search_factor: side of these crops in the frame, by the mean side of the jittered box.
        scale_jitter: width and height of this box are the target's times exp(scale_jitter N(0, 1)).
        centre_jitter: its centre is off by up to half of this, in mean sides of its own; below
            `search_factor`, so that the target's centre is in the crop.
        grey: share of samples whose crops are all grey.
        joint_flip: share of samples whose crops are all flipped, before they are one by one.
        flip: share of crops that are flipped, each for itself. At one half, joint flips change
            nothing about what is drawn how often.
        brightness: each crop's factor is 1 - brightness .. 1 + brightness.
        support: support frames of the search frame; None for a tracker without prompts.
        support_video: whose frames support: the "own" sequence's, or as a control those of an
            "other" one.
        support_crop: what of a support frame is shown, see `TrackerOptions`.
    """

    template_size: int = 128
    template_factor: float = 2.0
    search_size: int = 320
    search_factor: float = 5.0
    scale_jitter: float = 0.5
    centre_jitter: float = 4.5
    grey: float = 0.05
    joint_flip: float = 0.5
    flip: float = 0.5
    brightness: float = 0.2
    support: CausalSampler | None = None
    support_video: Literal["own", "other"] = "own"
    support_crop: SupportCrop = "searched"


@dataclass(frozen=True)
class TrackCrops:
    """Hold the crops of one sample, uint8 RGB.

    Attributes:
        template: (T, T, 3), the first template.
        online: (T, T, 3), the second one.
        search: (S, S, 3).
        box_xyxy: x1, y1, x2, y2 of the target in the search crop, as shares of it; outside 0 .. 1
            where it sticks out. Of a negative: a box without the target.
        is_positive: the target is in the search crop.
        support: K crops of support frames, ascending; none without a sampler. (S, S, 3), or half
            of it if only the target is shown.
    """

    template: Image
    online: Image
    search: Image
    box_xyxy: Box
    is_positive: bool
    support: tuple[Image, ...]


class TrainingCrops(Dataset[TrackCrops]):
    """Cut and augment the crops of samples.

    A sample that serves nothing, see `CropCutter.cut`, is rejected, and another one of the epoch
    takes its place. Everything random about item i is a function of (seed, epoch, i) alone.

    Args:
        samples: whole frames.
        options: how to cut and change them.
    """

    def __init__(self, samples: TrackSamples, options: CropOptions) -> None:
        self.samples = samples
        self.cutter = CropCutter(samples.dataset, options)
        # In shared memory, so that workers that outlive an epoch see the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose the draws of an epoch; call it before the epoch's loader is iterated."""
        self.samples.set_epoch(epoch)
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        """Return the number of samples of an epoch."""
        return len(self.samples)

    def __getitem__(self, i: int) -> TrackCrops:
        """Cut and augment the crops of sample i.

        Raises:
            IndexError: i is not in 0 .. len - 1.
            DataError: a frame cannot be read, there is no frame for a negative, or sample after
                sample serves nothing.
        """
        random = Random(f"crops/{self.samples.seed}/{int(self._epoch)}/{i}")
        number = i
        for _ in range(_MAX_DRAWS):
            crops = self.cutter.cut(self.samples[number], random)
            if crops is not None:
                return crops
            number = random.randrange(len(self))
        raise DataError(
            f"sample {i}: {_MAX_DRAWS} samples in a row have a crop of nothing but padding, for "
            "their boxes lie beside their frames, or no frame before the search frame to support it"
        )


class CropCutter:
    """Cut and augment the crops of one sample.

    Args:
        dataset: the annotated sequences, of which support frames are read.
        options: how to cut and change them.
    """

    def __init__(self, dataset: TrackingDataset, options: CropOptions) -> None:
        self.dataset = dataset
        self.options = options
        self._boxed = [n for n, one in enumerate(dataset.sequences) if one.has_box.any()]

    def cut(self, sample: TrackSample, random: Random) -> TrackCrops | None:
        """Cut and augment all crops; None if the sample serves nothing. Advances `random`.

        So it is if one of them is padding alone, or if the target is searched with support in the
        first frame, which has no earlier one: the search crop would support itself. Templates and
        search crop are the same whatever supports them.

        Raises:
            DataError: a frame cannot be read.
        """
        templates, search = (sample.template, sample.online_template), sample.search
        of_support = Random(random.random())
        if self.options.support is not None and sample.is_positive and search.index == 0:
            return None
        number, indices = self._support_of(sample, of_support)
        # A support frame that is taken twice is one crop, as in the tracker's memory.
        distinct = {index: self._support_frame(number, index) for index in indices}
        frames = [*templates, search, *distinct.values()]
        windows = [self._template_window(frame) for frame in templates]
        at_search = len(templates)
        windows.append(self._search_window(search, random))
        windows += [self._support_window(frame, of_support) for frame in distinct.values()]
        pairs = list(zip(windows, frames, strict=True))
        if any(window.padding(frame.pixels.shape[:2]).all() for window, frame in pairs):
            return None
        changes = _draw_changes(self.options, at_search + 1, random, len(distinct), of_support)
        template, online, searched, *others = (
            change.apply(window.cut(frame.pixels))
            for change, (window, frame) in zip(changes, pairs, strict=True)
        )
        support = dict(zip(distinct, others, strict=True))
        box = windows[at_search].to_crop(search.box_xywh)
        if changes[at_search].flipped:
            box = (1 - box[2], box[1], 1 - box[0], box[3])
        in_order = tuple(support[index] for index in indices)
        return TrackCrops(template, online, searched, box, sample.is_positive, in_order)

    def _template_window(self, frame: TrackFrame) -> CropWindow:
        options = self.options
        return CropWindow.around(frame.box_xywh, options.template_factor, options.template_size)

    def _search_window(self, frame: TrackFrame, random: Random) -> CropWindow:
        options = self.options
        jittered = jitter(frame.box_xywh, options.scale_jitter, options.centre_jitter, random)
        return CropWindow.around(jittered, options.search_factor, options.search_size)

    def _support_window(self, frame: TrackFrame, random: Random) -> CropWindow:
        options = self.options
        centre = _FOUND_JITTER if options.support_crop == "target" else options.centre_jitter
        jittered = jitter(frame.box_xywh, options.scale_jitter, centre, random)
        size, factor = support_part(
            options.search_size, options.search_factor, options.support_crop
        )
        return CropWindow.around(jittered, factor, size)

    def _support_of(self, sample: TrackSample, random: Random) -> tuple[int, list[int]]:
        """Return the sequence of the support frames and their numbers in it."""
        number, index = sample.search.sequence, sample.search.index
        if self.options.support is None:
            return number, []
        if not sample.is_positive:
            number, index = sample.online_template.sequence, sample.online_template.index + 1
        if self.options.support_video == "other":
            number = self._other(number, random)
        length = self.dataset.sequences[number].num_frames
        return number, self.options.support(min(index, length - 1), length)

    def _other(self, sequence: int, random: Random) -> int:
        if self._boxed in ([], [sequence]):
            name = self.dataset.sequences[sequence].name
            raise DataError(f"{name}: there is no other sequence to take support frames from")
        while (other := random.choice(self._boxed)) == sequence:
            pass
        return other

    def _support_frame(self, number: int, index: int) -> TrackFrame:
        """Read a frame of a sequence, with the box to crop around."""
        sequence = self.dataset.sequences[number]
        boxed = np.flatnonzero(sequence.has_box)
        latest = max(int(np.searchsorted(boxed, index, side="right")) - 1, 0)
        x, y, width, height = sequence.boxes_xywh[boxed[latest]].tolist()
        return TrackFrame(self.dataset.frame(number, index), (x, y, width, height), number, index)


def jitter(box_xywh: Box, scale: float, centre: float, random: Random) -> Box:
    """Draw a box near another one, for a crop around it; advances `random`.

    Args:
        box_xywh: x, y, width, height.
        scale: deviation of the logarithm of width and of height.
        centre: the centre is off by up to half of this in x and in y, in geometric mean sides of
            the new box.
        random: source of the draws.
    """
    x, y, width, height = box_xywh
    new_width = width * math.exp(scale * random.gauss(0.0, 1.0))
    new_height = height * math.exp(scale * random.gauss(0.0, 1.0))
    reach = centre * math.sqrt(new_width * new_height)
    centre_x = x + 0.5 * width + reach * (random.random() - 0.5)
    centre_y = y + 0.5 * height + reach * (random.random() - 0.5)
    return centre_x - 0.5 * new_width, centre_y - 0.5 * new_height, new_width, new_height


@dataclass(frozen=True)
class _Change:
    """What happens to one crop."""

    grey: bool
    flipped: bool
    brightness: float

    def apply(self, crop: Image) -> Image:
        if self.grey:
            crop = np.asarray(
                cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8
            )
        if self.flipped:
            crop = np.ascontiguousarray(crop[:, ::-1])
        return np.asarray(cv2.convertScaleAbs(crop, alpha=self.brightness), np.uint8)


def _draw_changes(
    options: CropOptions, count: int, random: Random, num_support: int, of_support: Random
) -> list[_Change]:
    """Draw what happens to each crop of a sample, those of support frames last."""
    grey, all_flipped = random.random() < options.grey, random.random() < options.joint_flip
    changes = []
    for source in [random] * count + [of_support] * num_support:
        flipped = all_flipped != (source.random() < options.flip)
        brightness = source.uniform(1 - options.brightness, 1 + options.brightness)
        changes.append(_Change(grey, flipped, brightness))
    return changes
