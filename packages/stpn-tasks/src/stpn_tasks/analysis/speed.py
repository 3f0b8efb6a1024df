"""Frames per second of a network under every inference policy, beside its own baseline."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.table import Table
from tqdm import tqdm

from stpn_data.sampling import VideoUniformSampler
from stpn_tasks.analysis.steady import (
    SteadyStream,
    TimedDetector,
    TimedNetwork,
    TimedSegmenter,
)
from stpn_tasks.detection.policies import PolicyCost, policy_cost
from stpn_tasks.encoder_build import inference_sampler
from stpn_tasks.recipes import DetectionRecipe, PromptRecipe
from stpn_tasks.segmentation.recipes import SegmentationRecipe

TimedRecipe = DetectionRecipe | SegmentationRecipe

# Frames of a validation video of ImageNet VID, on average.
VIDEO_FRAMES = 317


@dataclass(frozen=True)
class SpeedOptions:
    """What to measure, and how often.

    Attributes:
        size: (height, width) of a frame as the network takes it, before padding, pixels.
        num_classes: of the network.
        device: where to run.
        rounds: in each the baseline and every policy take their turn; medians over rounds count.
        video_frames: T of the video over which its first frame is amortised.
    """

    size: tuple[int, int]
    num_classes: int
    device: torch.device
    rounds: int
    video_frames: int = VIDEO_FRAMES


@dataclass(frozen=True)
class Speed:
    """Time of a frame in one way of running a network.

    Attributes:
        name: of the way.
        about: what is timed.
        seconds: a frame, median over rounds.
        ratio: to the baseline of the same round, median over rounds.
        quartiles: of that ratio; ``None`` where the time is computed from others.
        cost: passes, delay and memory; ``None`` where no video is run.
    """

    name: str
    about: str
    seconds: float
    ratio: float
    quartiles: tuple[float, float] | None
    cost: PolicyCost | None = None


@torch.no_grad()
def measure_speed(
    recipe: TimedRecipe, options: SpeedOptions, *, progress: bool = True
) -> list[Speed]:
    """Time a recipe's network with random weights, and the same without prompts, in turns.

    All from a normalised frame on the device to boxes on it is timed, or, of a segmenter, to masks
    on the network's grid in the order of the tracks; decoding, resizing and copying are not.

    Raises:
        ValueError: if the recipe has no prompts of support frames, there is no round, or the
            frame has no pixels.
    """
    prompts = recipe.prompts
    if not prompts.reads_support:
        raise ValueError(f"a recipe with prompts is needed, not predictor {prompts.predictor!r}")
    if options.rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {options.rounds}")
    if min(options.size) < 1:
        raise ValueError(f"size must be (height, width) of at least 1, got {options.size}")
    timed = _build(recipe, options)
    without = _build(_without_prompts(recipe), options)
    released = VideoUniformSampler(PromptRecipe().test_support)
    streams = {
        name: SteadyStream(timed, _sampler(prompts, name), length)
        for name, length in (("window", 1), ("grid", prompts.stride), ("causal", prompts.stride))
    }
    work: dict[str, Callable[[], None]] = {
        "baseline": without.run,
        "steady": timed.run,
        "first": lambda: timed.run_first(released.num_frames),
        **{name: stream.advance for name, stream in streams.items()},
    }
    seconds = _in_turns(work, options, progress)
    for name, stream in streams.items():
        seconds[name] = [each / stream.num_frames for each in seconds[name]]
    costs = {
        "uniform": policy_cost(released, options.video_frames),
        **{name: policy_cost(s.sampler, options.video_frames) for name, s in streams.items()},
    }
    return _summary(seconds, costs, prompts, options.video_frames)


def _build(recipe: TimedRecipe, options: SpeedOptions) -> TimedNetwork:
    arguments = (options.num_classes, options.size, options.device)
    if isinstance(recipe, SegmentationRecipe):
        return TimedSegmenter(recipe, *arguments)
    return TimedDetector(recipe, *arguments)


def _without_prompts(recipe: TimedRecipe) -> TimedRecipe:
    plain: dict[str, Any] = {"predictor": "none", "ffn_dim": None, "deep": False}
    prompts = replace(recipe.prompts, **plain, centre_clips=0)
    if isinstance(recipe, SegmentationRecipe):
        return replace(recipe, prompts=prompts)
    return replace(recipe, prompts=prompts, selsa=replace(recipe.selsa, references="plain"))


def _sampler(prompts: PromptRecipe, name: str) -> Any:
    chosen: dict[str, Any] = {"test_sampler": name}
    return inference_sampler(replace(prompts, **chosen))


def _in_turns(
    work: dict[str, Callable[[], None]], options: SpeedOptions, progress: bool
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for each in work.values():
        each()  # warms up
    for _ in tqdm(range(options.rounds), desc="rounds", disable=not progress):
        for name, each in work.items():
            _synchronise(options.device)
            start = time.perf_counter()
            each()
            _synchronise(options.device)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _summary(
    seconds: dict[str, list[float]],
    costs: dict[str, PolicyCost],
    prompts: PromptRecipe,
    video_frames: int,
) -> list[Speed]:
    baseline = seconds["baseline"]

    def speed(name: str, about: str) -> Speed:
        ratios = [one / other for one, other in zip(seconds[name], baseline, strict=True)]
        quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        return Speed(
            name,
            about,
            statistics.median(seconds[name]),
            statistics.median(ratios),
            (quartiles[0], quartiles[2]),
            costs.get(name),
        )

    first = speed("first", f"{PromptRecipe().test_support} support frames, prompts, one frame")
    steady = speed("steady", "prompts at hand")
    share = (first.seconds + (video_frames - 1) * steady.seconds) / video_frames
    ratio = share / statistics.median(baseline)
    uniform = f"prompts once a video of {video_frames} frames, from the two above"
    frames, stride = prompts.test_support, prompts.stride
    return [
        speed("baseline", "single frame, no prompts"),
        steady,
        first,
        Speed("uniform", uniform, share, ratio, None, costs["uniform"]),
        speed("window", f"sliding: {frames} frames around, t ± j·{stride}"),
        speed("grid", f"{frames} multiples of {stride} around t"),
        speed("causal", f"{frames} multiples of {stride} before t"),
    ]


def speed_table(speeds: list[Speed], title: str) -> Table:
    """Return a table of what `measure_speed` found."""
    table = Table(title=title, title_justify="left")
    for name in ("policy", "what is timed"):
        table.add_column(name)
    for name in ("ms", "frames/s", "× baseline", "quartiles", "passes", "delay", "kept"):
        table.add_column(name, justify="right", no_wrap=True)
    for speed in speeds:
        spread = speed.quartiles
        cells = ["", "", ""]
        if speed.cost is not None:
            delay = speed.cost.delay
            cells = [
                f"{speed.cost.passes:.2f}",
                "video" if delay is None else str(delay),
                str(speed.cost.remembered),
            ]
        table.add_row(
            speed.name,
            speed.about,
            f"{1000 * speed.seconds:.1f}",
            f"{1 / speed.seconds:.2f}",
            f"{speed.ratio:.3f}",
            "" if spread is None else f"{spread[0]:.3f} – {spread[1]:.3f}",
            *cells,
        )
    return table


def speed_json(speeds: list[Speed]) -> list[dict[str, Any]]:
    """Return what `measure_speed` found as json can hold it."""
    return [dataclasses.asdict(speed) for speed in speeds]
