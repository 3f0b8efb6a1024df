"""Time the prompted Swin against named peers, and what prompts cost a stream of frames.

    python benchmarks/bench_backbones.py [--quick] [--threads N] [--device cuda] [--output FOLDER]

Prints the median milliseconds of a pass with prompts and, for each peer, how many times as long it
takes. The peers are timm's Swin as it ships, timm's Swin with its fused attention switched on, and
ours without prompts. All take turns in one process. One CPU thread is timed by its processor time,
anything else by the wall clock. Compare ratios; milliseconds belong to one machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, cast

import timm
import torch
from timm.layers import set_fused_attn
from torch import Tensor, nn

from stpn_backbones import PromptedSwin, create_backbone
from stpn_core import Sampler, TransformerPredictor, VideoEncoder
from stpn_data import CausalSampler, WindowSampler
from stpn_kernels.timing import (
    BenchmarkOptions,
    describe_machine,
    median_seconds,
    parse_benchmark_options,
    write_record,
)

PROMPTS = 7
TINY, BASE = "swin_tiny_patch4_window7_224", "swin_base_patch4_window7_224"
OURS = "ours, prompted"
PEERS = ("timm as shipped", "timm fused", "ours, no prompts")
SAMPLERS: dict[str, Sampler | None] = {
    "no prompts": None,
    "CausalSampler(7, 8)": CausalSampler(7, 8),
    "WindowSampler(7, 8, on_grid)": WindowSampler(7, 8, on_grid=True),
    "WindowSampler(7, 8)": WindowSampler(7, 8),
}


@dataclass(frozen=True)
class Case:
    name: str
    batch: int
    height: int
    width: int


def cases(quick: bool) -> list[Case]:
    if quick:
        return [Case(TINY, 1, 384, 640)]
    sizes = ((384, 640), (600, 1000))
    return [Case(name, B, H, W) for name in (TINY, BASE) for B in (1, 4) for H, W in sizes]


def timm_swin(case: Case, fused: bool) -> nn.Module:
    """Build timm's own feature extractor for that image size."""
    set_fused_attn(enable=True, experimental=fused)  # Swin's counts as experimental: off as shipped
    model: nn.Module = timm.create_model(
        case.name, features_only=True, img_size=(case.height, case.width), drop_path_rate=0.0
    )
    set_fused_attn(enable=True)
    attentions = [m for m in model.modules() if hasattr(m, "fused_attn")]
    if not attentions or any(attention.fused_attn != fused for attention in attentions):
        raise RuntimeError(f"this timm does not switch its fused attention to {fused}")
    return model


def make_runs(case: Case, training: bool, device: torch.device) -> dict[str, Callable[[], None]]:
    """Return one pass, forward or with backward, per model; all give the maps of four stages."""
    ours = create_backbone(case.name, drop_path_rate=0.0).to(device)
    images = torch.randn(case.batch, 3, case.height, case.width, device=device)
    prompts = torch.randn(case.batch, PROMPTS, ours.prompt_dims[0], device=device)
    prompts.requires_grad_(training)  # they come from a predictor

    def run(model: nn.Module, *inputs: Any) -> Callable[[], None]:
        def call() -> None:
            maps: list[Tensor] = model(*inputs)
            if training:
                model.zero_grad()
                sum(features.square().mean() for features in maps).backward()  # type: ignore[union-attr]

        return call

    return {
        OURS: run(ours, images, [prompts]),
        PEERS[0]: run(timm_swin(case, fused=False).to(device), images),
        PEERS[1]: run(timm_swin(case, fused=True).to(device), images),
        PEERS[2]: run(ours, images),
    }


def bench_passes(options: BenchmarkOptions) -> list[dict[str, Any]]:
    print(f"\n{PROMPTS} prompts; how many times as long as ours each peer takes")
    print(f"{'backbone':28s}  batch  {'image':8s}  {'pass':9s}  ours ms", *PEERS, sep="  ")
    rows: list[dict[str, Any]] = []
    for case in cases(options.quick):
        for training in (False, True):
            with torch.set_grad_enabled(training):
                runs = make_runs(case, training, options.device)
                budget = 5.0 if options.quick else 30.0
                times = median_seconds(runs, options, at_least=3, budget=budget)
            ratios = {name: times[name] / times[OURS] for name in PEERS}
            kind = "fwd + bwd" if training else "forward"
            cells = [f"{ratio:{len(name)}.2f}" for name, ratio in ratios.items()]
            head = f"{case.name:28s}  {case.batch:5d}  {case.height}x{case.width:<4d}"
            print(head, f"{kind:9s}  {times[OURS] * 1e3:7.0f}", *cells, sep="  ", flush=True)
            rows.append({**asdict(case), "pass": kind, "seconds": times, "times_ours": ratios})
    return rows


@torch.no_grad()
def bench_streams(options: BenchmarkOptions) -> list[dict[str, Any]]:
    """Feed the same frames to a stream per sampler, in turns."""
    num_frames, height, width = (16, 192, 320) if options.quick else (64, 384, 640)
    backbone = create_backbone(TINY).eval().to(options.device)
    predictor = TransformerPredictor.for_backbone(backbone, PROMPTS).eval().to(options.device)
    encoder = VideoEncoder(backbone, predictor)
    frames = torch.randn(num_frames, 1, 3, height, width, device=options.device)
    encoder(frames[0], frames[None, :2, 0])  # warms up
    streams = {name: encoder.stream(sampler) for name, sampler in SAMPLERS.items()}
    seconds, passes, longest = ({name: 0.0 for name in SAMPLERS} for _ in range(3))

    def spend(name: str, work: Callable[[], object]) -> None:
        before = counter.passes
        seconds[name] += options.seconds(work)
        passes[name] += counter.passes - before

    counter = PassCounter(backbone)
    for frame in frames:
        for name, stream in streams.items():
            spend(name, partial(stream.push, frame))
    for name, stream in streams.items():
        spend(name, stream.flush)
    print(f"\nstream of {num_frames} frames of {height}x{width}, {TINY}, transformer predictor")
    print(f"{'support frames':28s}  passes/frame  seconds/frame  times no prompts")
    rows = []
    for name in SAMPLERS:
        row = {
            "support": name,
            "height": height,
            "width": width,
            "frames": num_frames,
            "passes_per_frame": passes[name] / num_frames,
            "seconds_per_frame": seconds[name] / num_frames,
            "times_no_prompts": seconds[name] / seconds["no prompts"],
        }
        rows.append(row)
        ratio, each = row["times_no_prompts"], row["seconds_per_frame"]
        print(f"{name:28s}  {row['passes_per_frame']:12.3f}  {each:13.3f}  {ratio:16.2f}")
    return rows


class PassCounter:
    """Count the images that a backbone embeds: once per pass, with prompts or without."""

    def __init__(self, backbone: PromptedSwin) -> None:
        self.passes = 0
        patches = cast("nn.Module", backbone.swin.patch_embed.proj)
        patches.register_forward_hook(self._count)

    def _count(self, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        self.passes += inputs[0].shape[0]


def main() -> None:
    options = parse_benchmark_options(__doc__.splitlines()[0])
    print(describe_machine(options))
    write_record(options, bench_passes(options) + bench_streams(options))


if __name__ == "__main__":
    main()
