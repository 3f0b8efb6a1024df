"""Times, peak memory and ceilings: in turns on a CPU, with Triton's timer on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stpn_kernels.cost import Device
from stpn_kernels.timing import BenchmarkOptions, describe_device, seconds_in_turns

QUANTILES = (0.2, 0.5, 0.8)
DIRECTIONS = ("forward", "backward", "both")
EAGER, GRAPH = "eager", "CUDA graph"
MakeRun = Callable[[], Callable[[], object]]

# A backward that is timed alone runs many times over one forward, whose tensors it may not reuse.
torch._functorch.config.donated_buffer = False


@dataclass(frozen=True)
class Times:
    """Seconds of one call: 20 %, half and 80 % of them were faster."""

    p20: float
    p50: float
    p80: float


def directed(
    direction: str, forward: Callable[[], Tensor], inputs: list[Tensor]
) -> Callable[[], object]:
    """Return a call that runs forward, backward, or both; the backward over one kept forward."""
    if direction == "forward":
        return torch.no_grad()(forward)
    out = forward()
    grad = torch.randn_like(out)
    if direction == "backward":
        return lambda: torch.autograd.grad(out, inputs, grad, retain_graph=True)
    del out
    return lambda: torch.autograd.grad(forward(), inputs, grad)


def cpu_times(
    runs: Mapping[str, Callable[[], object]], options: BenchmarkOptions
) -> dict[str, Times]:
    """Time some calls in turns."""
    seconds = seconds_in_turns(
        runs, options, at_least=3 if options.quick else 5, budget=0.1 if options.quick else 0.5
    )
    return {
        name: Times(*(float(np.quantile(values, q)) for q in QUANTILES))
        for name, values in seconds.items()
    }


def eager_times(make_run: MakeRun, options: BenchmarkOptions) -> Times:
    """Time a call on a GPU as Python makes it."""
    return _gpu_times(make_run(), options)


def graph_times(make_run: MakeRun, options: BenchmarkOptions) -> Times:
    """Time a call on a GPU as the replay of one CUDA graph, without the time Python takes."""
    return _gpu_times(captured(make_run, options.device), options)


def _gpu_times(run: Callable[[], object], options: BenchmarkOptions) -> Times:
    """Time a call with Triton's timer, which overwrites the L2 cache before each."""
    from triton.testing import do_bench

    rep = 20 if options.quick else 50
    milliseconds = do_bench(run, warmup=10, rep=rep, quantiles=list(QUANTILES))
    return Times(*(value / 1e3 for value in milliseconds))


GPU_MODES = {EAGER: eager_times, GRAPH: graph_times}


def captured(make_run: MakeRun, device: torch.device) -> Callable[[], None]:
    """Return the replay of a call as one CUDA graph.

    A backward runs on the stream of its forward, so the call is made on the stream that captures.
    """
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        run = make_run()
        for _ in range(3):  # compiles, fills caches
            run()
    torch.cuda.synchronize(device)
    with torch.cuda.graph(graph, stream=stream):
        run()
    torch.cuda.synchronize(device)

    def replay(kept: Callable[[], object] = run) -> None:  # the graph reads what the call holds
        graph.replay()

    return replay


def measure_ceilings(options: BenchmarkOptions, dtype: torch.dtype) -> Device:
    """Measure how fast the device copies and multiplies matrices, on random data."""
    device = options.device
    on_gpu = device.type == "cuda"
    source = torch.randn(2**28 if on_gpu else 2**24, device=device)
    target = torch.empty_like(source)
    side = 8192 if on_gpu else 1024
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    runs = {"copy": lambda: target.copy_(source), "product": lambda: a @ b}
    if on_gpu:
        times = {name: _gpu_times(run, options) for name, run in runs.items()}
    else:
        times = cpu_times(runs, options)
    return Device(
        describe_device(device),
        2 * source.nbytes / times["copy"].p50,
        2 * side**3 / times["product"].p50,
    )
