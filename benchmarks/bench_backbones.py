"""Time the prompted Swin against named peers, and what prompts cost a stream of frames.

    python benchmarks/bench_backbones.py [--quick] [--threads N] [--device cuda] [--output FOLDER]

Prints the median milliseconds and the peak memory of a pass with prompts, and both as a part of
each peer's: below 1 ours is faster, or smaller. The peers are timm's Swin as it ships, timm's Swin
with its fused attention switched on, the order of the released code (eager only), and ours without
prompts. All take turns in one process. One CPU thread is timed by its processor time, anything else
by the wall clock. Peak memory is what tensors take beyond weights, inputs and whatever lay there
before. Compare ratios; milliseconds belong to one machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, cast

import timm
import torch
from released_order import ReleasedOrderSwin
from timm.layers import set_fused_attn
from torch import Tensor, nn

from stpn_backbones import PromptedSwin, create_backbone
from stpn_core import Sampler, TransformerPredictor, VideoEncoder
from stpn_data import CausalSampler, VideoUniformSampler, WindowSampler
from stpn_kernels.timing import (
    BenchmarkOptions,
    describe_machine,
    median_seconds,
    parse_benchmark_options,
    peak_bytes,
    write_record,
)

PROMPTS = 7
TINY, BASE = "swin_tiny_patch4_window7_224", "swin_base_patch4_window7_224"
OURS = "ours, prompted"
PEERS = ("timm as shipped", "timm fused", "released order", "ours, no prompts")
EAGER_ONLY = "released order"
SAMPLERS: dict[str, Sampler | None] = {
    "no prompts": None,
    "CausalSampler(7, 8)": CausalSampler(7, 8),
    "WindowSampler(7, 8, on_grid)": WindowSampler(7, 8, on_grid=True),
    "WindowSampler(7, 8)": WindowSampler(7, 8),
}
OFFLINE = "VideoUniformSampler(14), offline"


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
        name: of the backbone, as timm calls it.
        batch: images.
        height: of the images, in pixels.
        width: of the images, in pixels.
        training: forward and backward, instead of forward.
        compiled: by torch.compile.
    """

    name: str
    batch: int
    height: int
    width: int
    training: bool = False
    compiled: bool = False

    def __str__(self) -> str:
        """Return the case as it stands in the table."""
        kind = "fwd + bwd" if self.training else "forward"
        mode = "compiled" if self.compiled else "eager"
        size = f"{self.height}x{self.width}"
        return (
            f"{self.name.split('_patch')[0]:9s}  {self.batch:5d}  {size:8s}  {kind:9s}  {mode:8s}"
        )


def cases(quick: bool) -> list[Case]:
    """Return what to time, cheap cases first, so that a run may be stopped when one has enough."""
    cases = [
        Case(name, batch, height, width, training, compiled)
        for name in (TINY, BASE)
        for batch in (1, 4)
        for height, width in ((384, 640), (600, 1000))
        for training in (False, True)
        for compiled in (False, True)
    ]
    cases.sort(key=_expected_seconds)
    if quick:
        cheapest = cases[0]
        return [cheapest, replace(cheapest, training=True)]
    return cases


def _expected_seconds(case: Case) -> float:
    """Guess what all peers of a case take together; one compilation takes a minute or more."""
    images = case.batch * case.height * case.width / (600 * 1000)
    size = 3.4 if case.name == BASE else 1.0
    return size * ((45 if case.training else 15) * images + (240 if case.compiled else 0))


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


def released_swin(ours: PromptedSwin) -> ReleasedOrderSwin:
    """Return the released order over the same weights, checked to give the same features."""
    model = ReleasedOrderSwin(ours.swin)
    model.output_norms = ours.output_norms
    device = next(ours.parameters()).device
    images = torch.randn(2, 3, 61, 90, device=device)
    prompts = [torch.randn(2, PROMPTS, ours.prompt_dims[0], device=device)]
    with torch.no_grad():
        torch.testing.assert_close(model(images, prompts), ours(images, prompts))
    return model


def make_runs(case: Case, device: torch.device) -> dict[str, Callable[[], None]]:
    """Return one pass, forward or with backward, per model; all give the maps of four stages."""
    ours = create_backbone(case.name, drop_path_rate=0.0).to(device)
    images = torch.randn(case.batch, 3, case.height, case.width, device=device)
    prompts = torch.randn(case.batch, PROMPTS, ours.prompt_dims[0], device=device)
    prompts.requires_grad_(case.training)  # they come from a predictor
    torch.compiler.reset()

    def run(model: nn.Module, *inputs: Any) -> Callable[[], None]:
        forward = torch.compile(model, fullgraph=True) if case.compiled else model

        def call() -> None:
            maps: list[Tensor] = forward(*inputs)
            if case.training:
                sum(features.square().mean() for features in maps).backward()  # type: ignore[union-attr]
                model.zero_grad()
                prompts.grad = None

        return call

    runs = {
        OURS: run(ours, images, [prompts]),
        "timm as shipped": run(timm_swin(case, fused=False).to(device), images),
        "timm fused": run(timm_swin(case, fused=True).to(device), images),
        "released order": run(released_swin(ours), images, [prompts]),
        "ours, no prompts": run(ours, images),
    }
    return {name: r for name, r in runs.items() if not (case.compiled and name == EAGER_ONLY)}


def bench_passes(options: BenchmarkOptions, before: list[dict[str, Any]]) -> None:
    print(f"\n{PROMPTS} prompts; ours as a part of each peer's time; of its peak memory")
    print(
        f"{'backbone':9s}  batch  {'image':8s}  {'pass':9s}  {'mode':8s}  ours ms      MB",
        *PEERS,
        sep="  ",
    )
    rows: list[dict[str, Any]] = []
    for case in cases(options.quick):
        with torch.set_grad_enabled(case.training):
            runs = make_runs(case, options.device)
            budget = 5.0 if options.quick else 12.0
            memory = {name: peak_bytes(run, options.device) for name, run in runs.items()}
            seconds = median_seconds(runs, options, at_least=2, budget=budget, warm_up=False)
        time_ratios = {name: seconds[OURS] / seconds[name] for name in runs if name != OURS}
        memory_ratios = {name: memory[OURS] / memory[name] for name in runs if name != OURS}
        cells = [
            f"{time_ratios.get(name, math.nan):.3f} {memory_ratios.get(name, math.nan):.2f}".rjust(
                len(name)
            )
            for name in PEERS
        ]
        ours = f"{seconds[OURS] * 1e3:7.0f}  {memory[OURS] / 1e6:6.0f}"
        print(case, ours, *cells, sep="  ", flush=True)
        rows.append(
            {
                **asdict(case),
                "seconds": seconds,
                "peak_bytes": memory,
                "time_ratio": time_ratios,
                "memory_ratio": memory_ratios,
            }
        )
        write_record(options, before + rows)  # what a long run has so far


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
    seconds, passes = ({name: 0.0 for name in (*SAMPLERS, OFFLINE)} for _ in range(2))

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
    spend(OFFLINE, partial(encode_offline, encoder, frames, VideoUniformSampler(14)))
    print(f"\nstream of {num_frames} frames of {height}x{width}, {TINY}, transformer predictor")
    print(f"{'support frames':32s}  passes/frame  seconds/frame  times no prompts")
    rows = []
    for name in seconds:
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
        print(f"{name:32s}  {row['passes_per_frame']:12.3f}  {each:13.3f}  {ratio:16.2f}")
    return rows


def encode_offline(encoder: VideoEncoder, frames: Tensor, sampler: VideoUniformSampler) -> None:
    """Encode a whole video whose support frames are the same for every frame."""
    support = sampler(0, len(frames))
    prompts = encoder.predict(torch.stack([encoder.embed(frames[t]) for t in support], dim=1))
    for frame in frames:
        encoder.backbone(frame, prompts)


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
    bench_passes(options, before=bench_streams(options))


if __name__ == "__main__":
    main()
