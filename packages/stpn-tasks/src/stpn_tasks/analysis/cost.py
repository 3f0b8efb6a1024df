"""Parameters, operations and speed of a recipe."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from stpn_core import StaticPrompts
from stpn_tasks.detection.build import build_detector, build_preparation
from stpn_tasks.detection.detector import VideoDetector
from stpn_tasks.recipes import DetectionRecipe


@dataclass(frozen=True)
class Cost:
    """What a detector costs at one image size, batch 1.

    Attributes:
        parameters: of each part.
        plain_gmacs: backbone, one frame without prompts: also what a support frame costs.
        prompted_gmacs: backbone, one frame with prompts; equal for a baseline.
        predict_gmacs: the predictor, all support frames of one set of prompts.
        plain_seconds: whole detector, one frame without prompts, median; with SELSA the regions of
            the support frames are at hand.
        prompted_seconds: the same with prompts, which are at hand too.
        size: (height, width) of the frame as the network takes it.
        device: where it was measured.
    """

    parameters: dict[str, int]
    plain_gmacs: float
    prompted_gmacs: float
    predict_gmacs: float
    plain_seconds: float
    prompted_seconds: float
    size: tuple[int, int]
    device: str


@torch.no_grad()
def measure_cost(
    recipe: DetectionRecipe,
    num_classes: int,
    size: tuple[int, int],
    *,
    device: torch.device,
    runs: int = 3,
) -> Cost:
    """Measure a recipe's detector with random weights on a random frame.

    Args:
        recipe: what to build.
        num_classes: classes of the detector.
        size: (height, width) of a frame in pixels, before padding.
        device: where to run.
        runs: timed passes after one that is not; the median counts.

    Raises:
        ValueError: if there is no run, or the frame has no pixels.
    """
    if runs < 1:
        raise ValueError(f"runs must be at least 1, got {runs}")
    if min(size) < 1:
        raise ValueError(f"size must be (height, width) of at least 1, got {size}")
    detector = build_detector(recipe, num_classes, load_weights=False).eval().to(device)
    encoder, backbone = detector.encoder, detector.encoder.backbone
    divisor = build_preparation(recipe, device).size_divisor
    height, width = (side + -side % divisor for side in size)
    frame = torch.rand(1, 3, height, width, device=device)
    prompts: list[Tensor] | None = None
    predict_gmacs = 0.0
    if isinstance(encoder.predictor, StaticPrompts):
        prompts = encoder.predictor(1)
    elif encoder.predictor is not None:
        tokens = backbone.embed(frame).repeat(recipe.prompts.test_support, 1, 1)  # (K, N, C)
        grid = backbone.grid_size(height, width)
        with FlopCounterMode(display=False) as counter:
            prompts = encoder.predictor(tokens.unsqueeze(0), grid)
        predict_gmacs = _gmacs(counter)

    notes = []
    if detector.takes_support and (noted := detector.describe(frame, [size]).notes) is not None:
        notes = [list(noted) * recipe.prompts.test_support]

    def run(with_prompts: list[Tensor] | None) -> None:
        detector.detect(backbone(frame, with_prompts), [size], [(1.0, 1.0)], notes)

    def gmacs(with_prompts: list[Tensor] | None) -> float:
        with FlopCounterMode(display=False) as counter:
            backbone(frame, with_prompts)
        return _gmacs(counter)

    return Cost(
        parameters={
            "backbone": _count(detector, "encoder.backbone."),
            "prompt predictor": _count(detector, "encoder.predictor."),
            "detection head": _count(detector, "head."),
        },
        plain_gmacs=gmacs(None),
        prompted_gmacs=gmacs(prompts),
        predict_gmacs=predict_gmacs,
        plain_seconds=_median_seconds(lambda: run(None), runs, device),
        prompted_seconds=_median_seconds(lambda: run(prompts), runs, device),
        size=(height, width),
        device=str(device),
    )


def cost_table(name: str, cost: Cost) -> Table:
    """Return a table of what a recipe costs."""
    size = f"{cost.size[0]}×{cost.size[1]}, {cost.device}, batch 1, random weights"
    table = Table(title=f"{name}: {size}", title_justify="left", show_header=False)
    total = sum(cost.parameters.values())
    for part, number in cost.parameters.items():
        table.add_row(f"parameters, {part}", f"{number:,}")
    table.add_row("parameters", f"{total:,} ({total / 1e6:.2f} M)")
    table.add_row("backbone, without prompts", f"{cost.plain_gmacs:.2f} GMAC")
    table.add_row("backbone, with prompts", f"{cost.prompted_gmacs:.2f} GMAC")
    table.add_row("predictor, per set of prompts", f"{cost.predict_gmacs:.3f} GMAC")
    table.add_row("detector, without prompts", f"{1 / cost.plain_seconds:.2f} frames/s")
    table.add_row("detector, prompts at hand", f"{1 / cost.prompted_seconds:.2f} frames/s")
    return table


def _count(detector: VideoDetector, prefix: str) -> int:
    """Return the number of parameters whose name begins with a prefix; the baseline has none."""
    named = detector.named_parameters()
    return sum(parameter.numel() for name, parameter in named if name.startswith(prefix))


def _gmacs(counter: FlopCounterMode) -> float:
    return float(counter.get_total_flops()) / 2e9  # a multiplication and an addition are one MAC


def _median_seconds(run: Callable[[], None], runs: int, device: torch.device) -> float:
    run()
    seconds = []
    for _ in range(runs):
        _synchronise(device)
        start = time.perf_counter()
        run()
        _synchronise(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
