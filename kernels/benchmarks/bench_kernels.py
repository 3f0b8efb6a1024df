"""Time the operators against named peers that compute the same numbers.

    nox -s bench -- kernels [--quick] [--device cuda] [--only TEXT ...] [--output FOLDER]

Every provider is first compared with the reference: output and gradients. Then forward, backward
and both are timed: on a GPU in bfloat16, each call alone and as a CUDA graph, with the L2 cache
overwritten before every call; on a CPU in float32, all providers in turns, one thread by its
processor time. A call's floor is the time in which the device, by what it copies and multiplies in
this run, moves the bytes and does the operations that no implementation can do without.

Without a GPU two tables about GPUs follow: what the cost model predicts, and what the compiler
says of the kernels. A provider that fails has a row that says why; if ours fails, so does the run.

``--output FOLDER`` writes ``FOLDER/kernels/<device>/``: ``timings.csv``, ``summary.md``, plots.
``--only`` times what has one of the texts in "operator: shape", such as "batch 1," or "pool:".
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any

import support_providers
import torch
import window_providers
from measure import (
    DIRECTIONS,
    EAGER,
    GPU_MODES,
    MakeRun,
    cpu_times,
    directed,
    measure_ceilings,
)
from predictions import compile_table, predicted_floors
from problem import Expected, Problem, Provider, check, expect
from report import Report, Row, describe_run

from stpn_kernels.cost import Device
from stpn_kernels.timing import BenchmarkOptions, benchmark_parser, peak_bytes

DTYPES = {"cpu": torch.float32, "cuda": torch.bfloat16}
Measured = tuple[str, str, dict[str, Any]]  # provider, mode, columns of a row


def time_shape(
    problem: Problem, shape: Any, options: BenchmarkOptions, ceilings: Device
) -> list[Row]:
    """Check and time all providers of a problem at one shape."""
    torch.compiler.reset()  # graphs of other shapes would count towards the recompilation limit
    device = options.device
    dtype = DTYPES[device.type]
    providers = {p.name: p for p in problem.providers if device.type == "cuda" or not p.gpu_only}

    def row(name: str, direction: str, mode: str, columns: Mapping[str, Any]) -> Row:
        cost = problem.costs(providers[name].change(shape), dtype.itemsize)[direction]
        return Row(
            *(problem.operator, str(shape), name, direction, mode, str(dtype).split(".")[1]),
            minimal_bytes=cost.bytes,
            flops=cost.flops,
            floor_seconds=ceilings.floor_seconds(cost),
            **{"note": providers[name].note, **columns},
        )

    @cache
    def expected(own: Any) -> Expected:
        return expect(problem, own, device, dtype)

    make_runs: dict[str, dict[str, MakeRun]] = {direction: {} for direction in DIRECTIONS}
    rows = []
    for name, provider in providers.items():
        try:
            forward, asked = _checked(provider, shape, expected)
        except Exception as error:  # whatever it is, the others are timed
            rows.append(row(name, "both", EAGER, _failure(error)))
            continue
        for direction in DIRECTIONS:
            make_runs[direction][name] = partial(directed, direction, forward, asked)
    times = _gpu if device.type == "cuda" else _cpu
    for direction, runs in make_runs.items():
        rows += [row(name, direction, *measured) for name, *measured in times(runs, options)]
    return rows


def _checked(
    provider: Provider, shape: Any, expected: Callable[[Any], Expected]
) -> tuple[Callable[[], torch.Tensor], list[torch.Tensor]]:
    """Return the forward of a provider that agrees with the reference, and what has gradients."""
    own = provider.change(shape)
    checked_at = provider.check_at(own)
    check(provider, checked_at, expected(checked_at))
    inputs = expected(own).inputs
    asked = [x for place, x in enumerate(inputs) if place not in provider.without_gradient]
    return provider.build(own, inputs), asked


def _cpu(make_runs: Mapping[str, MakeRun], options: BenchmarkOptions) -> Iterator[Measured]:
    runs = {name: make_run() for name, make_run in make_runs.items()}
    peaks = {name: peak_bytes(run, options.device) for name, run in runs.items()}
    for name, times in cpu_times(runs, options).items():
        yield name, EAGER, {"times": times, "peak_bytes": peaks[name]}


def _gpu(make_runs: Mapping[str, MakeRun], options: BenchmarkOptions) -> Iterator[Measured]:
    for name, make_run in make_runs.items():
        for mode, measure in GPU_MODES.items():
            try:
                gc.collect()  # what failed before leaves cycles that hold memory
                torch.cuda.empty_cache()
                columns: dict[str, Any] = {"times": measure(make_run, options)}
                if mode == EAGER:
                    columns["peak_bytes"] = peak_bytes(make_run(), options.device)
            except Exception as error:  # whatever it is, the others are timed
                columns = _failure(error)
            yield name, mode, columns


def _failure(error: Exception) -> dict[str, Any]:
    lines = str(error).strip().splitlines() or [""]
    return {"failed": True, "note": f"{type(error).__name__}: {lines[0][:200]}"}


def parse_options() -> tuple[BenchmarkOptions, list[str]]:
    parser = benchmark_parser(__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="see the script")
    parser.set_defaults(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    arguments: argparse.Namespace = parser.parse_args()
    return BenchmarkOptions.of(arguments), arguments.only


def main() -> None:
    options, only = parse_options()
    device_type = options.device.type
    ceilings = measure_ceilings(options, DTYPES[device_type])
    report = Report(describe_run(options, ceilings), options.output)
    print(report.run.heading(), flush=True)
    start = time.perf_counter()
    problems = [
        *window_providers.problems(device_type, options.quick),
        *support_providers.problems(device_type, options.quick),
    ]
    for problem in problems:
        for shape in problem.shapes:
            if any(text in f"{problem.operator}: {shape}" for text in only):
                report.add(time_shape(problem, shape, options, ceilings), problem.providers[0].name)
    if device_type == "cpu":
        left_out = dict.fromkeys(p.name for each in problems for p in each.providers if p.gpu_only)
        report.append(f"Left out without a GPU: {'; '.join(left_out)}.\n")
        report.append(predicted_floors(options.quick), compile_table())
    report.finish()
    print(f"{time.perf_counter() - start:.0f} s")
    failed = report.failures_of_ours()
    if failed or not report.rows:
        sys.exit(f"failed: {failed}" if failed else f"nothing is called {only}")


if __name__ == "__main__":
    main()
