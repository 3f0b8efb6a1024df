"""What the benchmarks of all packages share: options, timing in turns, and a record of the rows."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class BenchmarkOptions:
    """How to run a benchmark.

    Attributes:
        quick: a part of the rows, fewer repeats.
        threads: CPU threads.
        device: where to run.
        output: folder for the record; None writes none.
    """

    quick: bool
    threads: int
    device: torch.device
    output: Path | None

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> BenchmarkOptions:
        """Take them from the command line, and set the number of threads."""
        names = [field.name for field in fields(cls)]
        options = cls(**{name: getattr(arguments, name) for name in names})
        torch.set_num_threads(options.threads)
        return options

    def seconds(self, run: Callable[[], object]) -> float:
        """Time one call: processor time of a single CPU thread, else time on the wall.

        Processor time leaves out what else the machine does, but adds up threads and does not see
        a GPU. A GPU has finished its work before either reading.
        """
        one_thread = self.device.type == "cpu" and self.threads == 1
        clock = time.process_time if one_thread else time.perf_counter
        self._synchronise()
        start = clock()
        run()
        self._synchronise()
        return clock() - start

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def parse_benchmark_options(description: str) -> BenchmarkOptions:
    """Read the command line, the same for every benchmark, and set the number of threads."""
    return BenchmarkOptions.of(benchmark_parser(description).parse_args())


def benchmark_parser(description: str) -> argparse.ArgumentParser:
    """Return the options of every benchmark, for one that has more."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer rows and repeats")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--device", type=_device, default=torch.device("cpu"))
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write the rows there")
    return parser


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Return the most bytes that tensors of one call hold at a time, beyond those held before.

    On the CPU the profiler's record of allocations is added up: what tensors take, not what the
    process happens to keep of it; the call may not free what was there before, which it does not
    know. On a GPU the allocator counts.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it prints a line per start and stop
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        run()
    results = profiler.profiler.kineto_results
    changes = [event for event in results.events() if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    held: Iterator[int] = accumulate((event.nbytes() for event in changes), initial=0)
    return max(held)


def median_seconds(
    runs: Mapping[str, Callable[[], object]],
    options: BenchmarkOptions,
    *,
    at_least: int,
    budget: float,
    warm_up: bool = True,
) -> dict[str, float]:
    """Return the median of what `seconds_in_turns` returns for each run."""
    times = seconds_in_turns(runs, options, at_least=at_least, budget=budget, warm_up=warm_up)
    return {name: statistics.median(values) for name, values in times.items()}


def seconds_in_turns(
    runs: Mapping[str, Callable[[], object]],
    options: BenchmarkOptions,
    *,
    at_least: int,
    budget: float,
    warm_up: bool = True,
) -> dict[str, list[float]]:
    """Return the seconds of each run, every time, one after the other in turns.

    Turns let load on the machine meet all runs alike, so ratios hold where seconds do not.

    Args:
        runs: calls by name.
        options: tells how to time a call.
        at_least: turns to take.
        budget: go on taking turns until this many seconds have passed.
        warm_up: take a first turn that is not timed; False if each has run before.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values() if warm_up else ():
        run()
    start = time.perf_counter()
    turns = 0
    while turns < at_least or time.perf_counter() - start < budget:
        for name, run in runs.items():
            times[name].append(options.seconds(run))
        turns += 1
    return times


def describe_machine(options: BenchmarkOptions) -> str:
    """Return the processor or GPU, the threads, and the versions that decide about speed."""
    hardware = describe_device(options.device)
    if options.device.type != "cuda":
        hardware += f", {os.cpu_count()} cores, {options.threads} thread(s)"
    versions = ", ".join(f"{name} {installed(name)}" for name in ("torch", "timm"))
    return f"{hardware}; {versions}; Python {platform.python_version()}"


def describe_device(device: torch.device) -> str:
    """Return the name of the GPU, or that of the processor with the instructions torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()} {torch.backends.cpu.get_cpu_capability()}"


def write_record(options: BenchmarkOptions, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with command, commit and machine to ``FOLDER/<name of the script>.json``.

    Nothing is written without ``--output``. The file is complete or the old one.
    """
    if options.output is None:
        return
    record = {
        "command": command(),
        "commit": commit(),
        "machine": describe_machine(options),
        "rows": list(rows),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"{Path(sys.argv[0]).stem}.json"
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(record, indent=2) + "\n")
    os.replace(partial, path)


def command() -> str:
    """Return how this script was called."""
    return shlex.join(["python", *sys.argv])


def _device(name: str) -> torch.device:
    """Read ``--device``; one that is not there is an error before anything runs."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"no device is called {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("PyTorch finds no CUDA device here")
    return device


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def installed(distribution: str) -> str:
    """Return the version of a distribution, or that it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def commit() -> str | None:
    """Return the commit of the checkout, marked where files differ from it; None outside one."""
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    folder = Path(sys.argv[0]).resolve().parent
    try:
        done = subprocess.run(describe, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
