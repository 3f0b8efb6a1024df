"""Frames per second of STPN's tracker beside plain MixFormer's with the same weights."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from stpn_tasks.tracking.build import build_network, build_tracker_options
from stpn_tasks.tracking.crops import Box, Image
from stpn_tasks.tracking.mixformer import MixFormer
from stpn_tasks.tracking.options import TrackerOptions
from stpn_tasks.tracking.recipes import TrackingRecipe
from stpn_tasks.tracking.tracker import OnlineTracker

Work = Literal["first", "between", "support", "prompts", "templates", "several"]
ABOUT = {
    "between": "no support pass, prompts at hand",
    "support": "its crop also passes without prompts",
    "prompts": "prompts predicted anew",
    "templates": "templates encoded anew, prompts at hand",
    "first": "templates, and the first support pass",
    "amortised": "all frames after the first",
}


@dataclass(frozen=True)
class TrackingSpeedOptions:
    """What to measure, and how often.

    Attributes:
        device: where to run.
        num_frames: T of a round, the first with the given box among them. A T of 1 + a multiple of
            S has whole periods; template updates need T above their interval.
        rounds: in each both trackers follow the target from the first frame on.
        size: (height, width) of a frame, pixels.

    Raises:
        ValueError: if there is no round, fewer than two frames, or a frame has no pixels.
    """

    device: torch.device
    num_frames: int = 17
    rounds: int = 5
    size: tuple[int, int] = (720, 1280)

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {self.rounds}")
        if self.num_frames < 2:
            raise ValueError(f"frames must be at least 2, got {self.num_frames}")
        if min(self.size) < 1:
            raise ValueError(f"size must be (height, width) of at least 1, got {self.size}")


@dataclass(frozen=True)
class FrameSpeed:
    """Time of one kind of frame, or of a frame on average.

    Attributes:
        name: of the kind, a key of `ABOUT`.
        number: of such frames a round.
        plain_seconds: a frame, plain MixFormer, median over all such frames of all rounds.
        prompted_seconds: the same with prompts.
        ratio: of the second to the first, pair by pair, median.
        quartiles: of that ratio.
        passes: the ratio that counting passes over a search crop predicts; None for the first
            frame, of which the plain tracker passes none.
        operations: the ratio of multiplications and additions of both networks.
        plain_gmacs: of the plain network, in 1e9 pairs of them.
    """

    name: str
    number: int
    plain_seconds: float
    prompted_seconds: float
    ratio: float
    quartiles: tuple[float, float]
    passes: float | None
    operations: float
    plain_gmacs: float


@dataclass(frozen=True)
class TrackingSpeed:
    """What `measure_tracking_speed` found.

    Attributes:
        frames: by kind.
        support_frames: embeddings that are kept.
        support_bytes: of these.
    """

    frames: list[FrameSpeed]
    support_frames: int
    support_bytes: int


def measure_tracking_speed(
    recipe: TrackingRecipe, options: TrackingSpeedOptions, *, progress: bool = True
) -> TrackingSpeed:
    """Time a recipe's tracker with random weights and plain MixFormer with the same, in turns.

    Both track the same frames, which are in memory, frame by frame; every other time the one comes
    first. All that a tracker does is timed, the cut of the crops included. Before each frame its
    target is put back, so that random boxes do not lead to other crops.

    Raises:
        ValueError: if the recipe has no prompts.
    """
    if recipe.prompts.predictor == "none":
        raise ValueError("a recipe with prompts is needed, not predictor 'none'")
    network = build_network(recipe, score=recipe.has_score, load_weights=False)
    network = network.eval().to(options.device)
    without = MixFormer(network.backbone, network.box_head, network.score_head).eval()
    follow = build_tracker_options(recipe)
    pair = _Pair(without, network, follow, options)
    pair.follow(2)  # warms up
    macs = np.array(list(pair.count(options.num_frames)))  # (T, 2)
    seconds = np.array(
        [
            pair.follow(options.num_frames, swapped=bool(number % 2))
            for number in tqdm(range(options.rounds), desc="rounds", disable=not progress)
        ]
    )  # (rounds, T, 2)
    memory = pair.prompted.state.memory if pair.prompted.state is not None else None
    assert memory is not None
    return TrackingSpeed(
        _summary(seconds, macs, follow),
        support_frames=len(memory.frames),
        support_bytes=memory.buffer.nbytes,
    )


def work_of(frame: int, options: TrackerOptions) -> Work:
    """Tell what a tracker with prompts has to do in a frame, besides searching in it.

    Args:
        frame: its number; 0 has the given box.
        options: of the tracker.

    Returns:
        A key of `ABOUT`, or "several" for a frame with a template update and one of the others.
        Where every frame is a support frame (S = 1), each also has its prompts predicted.
    """
    if frame == 0:
        return "first"
    support, interval = options.support, options.update_interval
    updates = interval is not None and frame % interval == 0
    is_support = support.embeds(frame)
    predicts = frame == 1 or support(frame, None) != support(frame - 1, None)
    if updates:
        return "several" if is_support or predicts else "templates"
    if is_support:
        return "support"
    return "prompts" if predicts else "between"


class _Pair:
    """Follow a target with a plain tracker and one with prompts, frame by frame.

    Args:
        without: plain MixFormer.
        network: the same with prompts.
        follow: how both track.
        options: device and frames.
    """

    def __init__(
        self,
        without: MixFormer,
        network: MixFormer,
        follow: TrackerOptions,
        options: TrackingSpeedOptions,
    ) -> None:
        self.plain = OnlineTracker(without, follow, options.device)
        self.prompted = OnlineTracker(network, follow, options.device)
        self.options = options
        height, width = options.size
        self.box: Box = (0.45 * width, 0.45 * height, 0.1 * width, 0.1 * height)

    def follow(self, num_frames: int, *, swapped: bool = False) -> list[tuple[float, float]]:
        """Return the seconds of every frame, plain and with prompts."""
        seconds = []
        for number, frame in enumerate(self._frames(num_frames)):
            if swapped == bool(number % 2):
                plain, prompted = self._time(self.plain, frame), self._time(self.prompted, frame)
            else:
                prompted, plain = self._time(self.prompted, frame), self._time(self.plain, frame)
            seconds.append((plain, prompted))
        return seconds

    def count(self, num_frames: int) -> Iterator[tuple[float, float]]:
        """Yield the multiplications with an addition of every frame, plain and with prompts."""
        for frame in self._frames(num_frames):
            yield self._macs(self.plain, frame), self._macs(self.prompted, frame)

    def _frames(self, num_frames: int) -> Iterator[Image]:
        """Yield noise, and begin with both trackers anew."""
        self.plain.state = self.prompted.state = None
        for number in range(num_frames):
            random = np.random.default_rng(number)
            yield random.integers(0, 256, (*self.options.size, 3), np.uint8)

    def _time(self, tracker: OnlineTracker, frame: Image) -> float:
        _synchronise(self.options.device)
        start = time.perf_counter()
        self._step(tracker, frame)
        _synchronise(self.options.device)
        return time.perf_counter() - start

    def _macs(self, tracker: OnlineTracker, frame: Image) -> float:
        # Of the fused attention of CPUs the counter knows nothing.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            self._step(tracker, frame)
        return float(counter.get_total_flops()) / 2

    def _step(self, tracker: OnlineTracker, frame: Image) -> None:
        if tracker.state is None:
            tracker.init(frame, self.box)
        else:
            tracker.state.box = self.box
            tracker.track(frame)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _summary(seconds: np.ndarray, macs: np.ndarray, follow: TrackerOptions) -> list[FrameSpeed]:
    """Summarise the seconds (rounds, T, 2) and operations (T, 2), plain and with prompts."""
    num_frames = seconds.shape[1]
    # Of a support pass, in passes over a search crop.
    share = (follow.support_size / follow.search_size) ** 2
    passes = [1.0 + share * follow.support.embeds(frame) for frame in range(num_frames)]
    rows = []
    for name in ABOUT:
        chosen = [t for t in range(num_frames) if work_of(t, follow) == name]
        taken = seconds[:, chosen].reshape(-1, 2)
        if name == "amortised":
            chosen = list(range(1, num_frames))
            taken = seconds[:, chosen].mean(1)
        if not chosen:
            continue
        ratios = (taken[:, 1] / taken[:, 0]).tolist()
        quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        plain_macs, prompted_macs = macs[chosen].mean(0).tolist()
        rows.append(
            FrameSpeed(
                name,
                number=len(chosen),
                plain_seconds=statistics.median(taken[:, 0].tolist()),
                prompted_seconds=statistics.median(taken[:, 1].tolist()),
                ratio=statistics.median(ratios),
                quartiles=(quartiles[0], quartiles[2]),
                passes=None if name == "first" else statistics.fmean(passes[t] for t in chosen),
                operations=prompted_macs / plain_macs,
                plain_gmacs=plain_macs / 1e9,
            )
        )
    return rows
