"""Time `prompted_window_attention` against named peers that compute the same numbers.

    python kernels/benchmarks/bench_operators.py [--quick] [--threads N] [--device cuda]
        [--output FOLDER]

Prints the median milliseconds of the operator, and them as a part of each peer's: below 1 ours is
faster. Peers alternate with the operator in one process, so that load on the machine meets all of
them. One CPU thread is timed by its processor time, anything else by the wall clock. Compare
ratios; milliseconds belong to one machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stpn_kernels import prompted_window_attention
from stpn_kernels.prompted_window_attention.reference import (
    pad_map,
    partition,
    position_bias,
    reverse,
    shift_mask,
)
from stpn_kernels.timing import (
    describe_machine,
    median_seconds,
    parse_benchmark_options,
    write_record,
)

WINDOW, PROMPTS = 7, 7


@dataclass(frozen=True)
class Shape:
    name: str
    images: int
    height: int
    width: int
    heads: int
    head_width: int
    quick: bool = False


SHAPES = (
    Shape("Swin-T 600x1000, stage 1", 1, 150, 250, 3, 32, quick=True),
    Shape("Swin-T 600x1000, stage 2", 1, 75, 125, 6, 32),
    Shape("Swin-T 600x1000, stage 3", 1, 38, 63, 12, 32, quick=True),
    Shape("Swin-T 600x1000, stage 4", 1, 19, 32, 24, 32),
    Shape("training 112, stage 1", 16, 28, 28, 2, 16, quick=True),
    Shape("training 112, stage 2", 16, 14, 14, 4, 16),
    Shape("training 112, stage 3", 16, 7, 7, 8, 16, quick=True),
    Shape("training 112, stage 4", 16, 4, 4, 16, 16),
)


def official_order(
    qkv: Tensor, qkv_bias: Tensor, table: Tensor, shape: Shape, shift: int
) -> Tensor:
    """Attend as the published code does: whole maps copied, scores and weights in memory."""
    return _whole_maps(qkv, qkv_bias, table, shape, shift, _eager)


def dense_sdpa(qkv: Tensor, qkv_bias: Tensor, table: Tensor, shape: Shape, shift: int) -> Tensor:
    """Attend with whole maps copied and one dense mask given to scaled_dot_product_attention."""
    return _whole_maps(qkv, qkv_bias, table, shape, shift, F.scaled_dot_product_attention)


def ours(qkv: Tensor, qkv_bias: Tensor, table: Tensor, shape: Shape, shift: int) -> Tensor:
    return prompted_window_attention(
        qkv,
        qkv_bias,
        table,
        height=shape.height,
        width=shape.width,
        window_size=WINDOW,
        shift=shift,
        num_prompts=PROMPTS,
    )


Attention = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
PEERS = {"official order, eager": official_order, "SDPA, dense mask": dense_sdpa}


def _eager(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return (q * q.shape[-1] ** -0.5 @ k.mT + mask).softmax(-1) @ v


def _whole_maps(
    qkv: Tensor, qkv_bias: Tensor, table: Tensor, shape: Shape, shift: int, attend: Attention
) -> Tensor:
    H, W = shape.height, shape.width
    prompts, tokens = qkv[:, :PROMPTS], qkv[:, PROMPTS:]
    grid = pad_map(torch.unflatten(tokens, 1, (H, W)), qkv_bias, WINDOW)
    grid = grid.roll((-shift, -shift), (1, 2))
    windows = partition(grid, WINDOW)
    B, M = windows.shape[:2]
    prompts = prompts[:, None].expand(-1, M, -1, -1, -1, -1)
    windows = torch.cat([prompts, windows], dim=2).flatten(0, 1)
    mask = position_bias(table, WINDOW, PROMPTS)[None]
    if shift > 0:
        regions = shift_mask(grid.shape[1], grid.shape[2], WINDOW, shift, qkv)
        mask = mask + F.pad(regions, (PROMPTS, 0, PROMPTS, 0))[:, None]
        mask = mask.repeat(B, 1, 1, 1)
    q, k, v = windows.permute(2, 0, 3, 1, 4)
    out = attend(q, k, v, mask).transpose(1, 2).flatten(2)
    out = out.unflatten(0, (B, M))
    grid = reverse(out[:, :, PROMPTS:], grid.shape[1], grid.shape[2], WINDOW)
    grid = grid.roll((shift, shift), (1, 2))[:, :H, :W]
    return torch.cat([out[:, :, :PROMPTS].mean(1), grid.flatten(1, 2)], dim=1)


def make_runs(
    shape: Shape, shift: int, training: bool, device: torch.device
) -> dict[str, Callable[[], None]]:
    """Return one call per implementation, checked to agree with the operator."""
    generator = torch.Generator().manual_seed(0)
    sequence = PROMPTS + shape.height * shape.width
    sizes = (
        (shape.images, sequence, 3, shape.heads, shape.head_width),
        (3, shape.heads, shape.head_width),
        ((2 * WINDOW - 1) ** 2, shape.heads),
    )
    inputs = [torch.randn(size, generator=generator).to(device) for size in sizes]
    for tensor in inputs:
        tensor.requires_grad_(training)
    expected = ours(*inputs, shape, shift)
    grad = torch.randn_like(expected)

    def run(operator: Callable[..., Tensor]) -> Callable[[], None]:
        torch.testing.assert_close(operator(*inputs, shape, shift), expected)

        def call() -> None:
            out = operator(*inputs, shape, shift)
            if training:
                torch.autograd.grad(out, inputs, grad)

        return call

    return {name: run(operator) for name, operator in {"ours": ours, **PEERS}.items()}


def main() -> None:
    options = parse_benchmark_options(__doc__.splitlines()[0])
    print(describe_machine(options))
    print(f"window {WINDOW}, {PROMPTS} prompts; ours as a part of each peer's time")
    print(f"{'shape':26s} {'shift':>5s} {'pass':10s} {'ours ms':>8s}", *PEERS, sep="  ")
    rows: list[dict[str, Any]] = []
    for shape in SHAPES:
        if options.quick and not shape.quick:
            continue
        for shift in (0, WINDOW // 2):
            for training in (False, True):
                with torch.set_grad_enabled(training):
                    runs = make_runs(shape, shift, training, options.device)
                    budget = 1.0 if options.quick else 3.0
                    times = median_seconds(runs, options, at_least=5, budget=budget)
                ratios = {name: times["ours"] / times[name] for name in PEERS}
                kind = "fwd + bwd" if training else "forward"
                cells = [f"{ratio:{len(name)}.2f}" for name, ratio in ratios.items()]
                head = f"{shape.name:26s} {shift:5d}"
                print(head, f"{kind:10s} {times['ours'] * 1e3:8.2f}", *cells, sep="  ", flush=True)
                row = {"shape": asdict(shape), "shift": shift, "pass": kind, "seconds": times}
                rows.append({**row, "time_ratio": ratios})
    for name in PEERS:
        mean = statistics.geometric_mean(row["time_ratio"][name] for row in rows)
        print(f"geometric mean, {name}: {mean:.2f}")
    write_record(options, rows)


if __name__ == "__main__":
    main()
