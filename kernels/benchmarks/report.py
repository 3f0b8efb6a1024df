"""What a run says: lines as it goes, one CSV row per time, a summary in Markdown."""

from __future__ import annotations

import csv
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import geometric_mean

import torch
from measure import Times

from stpn_kernels.cost import Device
from stpn_kernels.timing import BenchmarkOptions, command, commit, installed


@dataclass(frozen=True)
class Row:
    """One provider at one shape, in one direction and mode.

    Attributes:
        operator: what is computed.
        shape: where.
        provider: by whom.
        direction: ``forward``, ``backward`` or ``both``.
        mode: ``eager`` or ``CUDA graph``.
        dtype: of all tensors.
        minimal_bytes: what has to be read and written.
        flops: what has to be computed.
        floor_seconds: what that takes at least on this device.
        times: of a call; None if it failed.
        peak_bytes: what a call holds at most; None where it isn't measured.
        times_ours: its time as a multiple of ours: above 1 ours is faster.
        failed: whether the provider could not be timed.
        note: why, or what to know of the times.
    """

    operator: str
    shape: str
    provider: str
    direction: str
    mode: str
    dtype: str
    minimal_bytes: int
    flops: int
    floor_seconds: float
    times: Times | None = None
    peak_bytes: int | None = None
    times_ours: float | None = None
    failed: bool = False
    note: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What is the same for all providers that are compared with each other."""
        return self.operator, self.shape, self.direction, self.mode

    @property
    def percent_of_floor(self) -> float | None:
        """How near the time is to the floor: 100 is on it."""
        return None if self.times is None else 100 * self.floor_seconds / self.times.p50

    def cells(self) -> dict[str, str]:
        """Return the columns of the CSV; empty where nothing was measured."""
        times = asdict(self.times) if self.times else dict.fromkeys(("p20", "p50", "p80"))
        rate = self.minimal_bytes / self.times.p50 / 1e9 if self.times else None
        return {
            "operator": self.operator,
            "shape": self.shape,
            "provider": self.provider,
            "direction": self.direction,
            "mode": self.mode,
            "dtype": self.dtype,
            **{f"{name}_ms": number(value, 1e3) for name, value in times.items()},
            "times_ours": number(self.times_ours),
            "gb_per_s": number(rate),
            "percent_of_floor": number(self.percent_of_floor),
            "floor_ms": number(self.floor_seconds, 1e3),
            "peak_mb": number(self.peak_bytes, 1e-6),
            "minimal_mb": number(self.minimal_bytes, 1e-6),
            "gflop": number(self.flops, 1e-9),
            "failed": "yes" if self.failed else "no",
            "note": self.note,
        }


@dataclass(frozen=True)
class Run:
    """Where, with what and how the rows came about; a column of every row each."""

    device: str
    driver: str
    torch: str
    triton: str
    timm: str
    python: str
    commit: str
    threads: int
    copy_gb_per_s: str
    matmul_tflop_per_s: str
    command: str

    def heading(self) -> str:
        """Return all of it in a few lines."""
        versions = (f"{name} {getattr(self, name)}" for name in ("torch", "triton", "timm"))
        return (
            f"{self.device}, driver {self.driver}; {', '.join(versions)}, Python {self.python};"
            f" {self.threads} CPU thread(s); commit {self.commit}\n"
            f"measured in this run: copies {self.copy_gb_per_s} GB/s (read and written),"
            f" matrix products {self.matmul_tflop_per_s} TFLOP/s\n"
        )


def describe_run(options: BenchmarkOptions, ceilings: Device) -> Run:
    return Run(
        device=ceilings.name,
        driver=_driver(options.device),
        torch=torch.__version__,
        triton=installed("triton"),
        timm=installed("timm"),
        python=platform.python_version(),
        commit=commit() or "unknown",
        threads=options.threads,
        copy_gb_per_s=number(ceilings.bytes_per_second, 1e-9),
        matmul_tflop_per_s=number(ceilings.flops_per_second, 1e-12),
        command=command(),
    )


class Report:
    """Collect rows, print them, and write them down as they come.

    Args:
        run: where they come from.
        output: folder for ``kernels/<device>/``; None writes nothing.
    """

    def __init__(self, run: Run, output: Path | None) -> None:
        self.run = run
        self.rows: list[Row] = []
        self.ours: dict[str, str] = {}
        self.sections: list[str] = []
        self.folder = None if output is None else output / "kernels" / slug(run.device)

    def add(self, rows: Iterable[Row], ours: str) -> None:
        """Take the rows of one shape, all providers; ``ours`` is what they are compared with."""
        rows = list(rows)
        base = {row.key: row.times.p50 for row in rows if row.provider == ours and row.times}
        for row in rows:
            if row.times and row.key in base:
                row = replace(row, times_ours=row.times.p50 / base[row.key])
            self.rows.append(row)
            self.ours[row.operator] = ours
        print(_lines(self.rows[-len(rows) :]), flush=True)
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)
            cells = [{**row.cells(), **asdict(self.run)} for row in self.rows]
            with (self.folder / "timings.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, list(cells[0]))
                writer.writeheader()
                writer.writerows({k: str(v) for k, v in cell.items()} for cell in cells)

    def append(self, *sections: str) -> None:
        """Print more Markdown, and put it at the end of the summary."""
        self.sections += sections
        print(*sections, sep="\n", flush=True)

    def finish(self) -> None:
        """Print the geometric means; write the summary and the plots."""
        means = self._means()
        print(means)
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        parts = ["# Kernel benchmark", f"`{self.run.command}`", self.run.heading(), means]
        parts += [self._shapes(operator) for operator in self.ours]
        parts += [self._notes(), *self.sections]
        (self.folder / "summary.md").write_text("\n\n".join(filter(None, parts)) + "\n")
        try:
            from plots import draw_plot
        except ModuleNotFoundError as error:
            print(f"no plots: {error.name} is not installed")
        else:
            for operator, ours in self.ours.items():
                rows = [row for row in self.rows if row.operator == operator and row.times]
                path = self.folder / f"{slug(operator)}.png"
                draw_plot(rows, ours, f"{operator}, {self.run.device}", path)
        print(f"written to {self.folder}")

    def failures_of_ours(self) -> list[str]:
        """Return what of ours failed, by provider and key."""
        failed = [row for row in self.rows if row.failed and row.provider.startswith("ours")]
        return [f"{row.provider}: {', '.join(row.key)}: {row.note}" for row in failed]

    def _peers(self, operator: str) -> list[str]:
        names = dict.fromkeys(row.provider for row in self.rows if row.operator == operator)
        return [name for name in names if name != self.ours[operator]]

    def _means(self) -> str:
        """Return each peer's time as a multiple of ours: geometric means over the shapes."""
        lines = [
            "## Times ours: above 1 ours is faster; geometric means over the shapes",
            "100 % of the floor is as fast as memory and arithmetic allow; a cache allows more.",
        ]
        for operator, ours in self.ours.items():
            rows = [row for row in self.rows if row.operator == operator]
            peers = self._peers(operator)
            kinds = dict.fromkeys((row.direction, row.mode) for row in rows if row.times)
            table = []
            for kind in kinds:
                alike = [row for row in rows if (row.direction, row.mode) == kind]
                near = [row.percent_of_floor for row in alike if row.provider == ours and row.times]
                means = [_mean([r.times_ours for r in alike if r.provider == p]) for p in peers]
                table.append([*kind, str(len(near)), _mean(near), *means])
            head = ["direction", "mode", "shapes", "ours, % of floor", *peers]
            lines += [f"### {operator}", markdown_table(head, table)]
        return "\n\n".join(lines)

    def _shapes(self, operator: str) -> str:
        """Return every shape of an operator: ours, and the peers as multiples of it."""
        peers, table = self._peers(operator), []
        by_key: dict[tuple[str, ...], dict[str, Row]] = {}
        for row in self.rows:
            if row.operator == operator:
                by_key.setdefault(row.key, {})[row.provider] = row
        for (_, *kind), providers in by_key.items():
            ours = providers.get(self.ours[operator])
            cells = ours.cells() if ours else {}
            columns = ("p50_ms", "p20_ms", "p80_ms", "gb_per_s", "percent_of_floor", "peak_mb")
            measured = [cells.get(name) or "–" for name in columns]
            ratios = [providers[p].cells()["times_ours"] if p in providers else "" for p in peers]
            table.append([*kind, *measured, *(ratio or "–" for ratio in ratios)])
        head = ["shape", "direction", "mode", "ours, ms", "20 %", "80 %", "GB/s", "% of floor"]
        return f"## {operator}\n\n" + markdown_table([*head, "peak MB", *peers], table)

    def _notes(self) -> str:
        notes = dict.fromkeys((row.provider, row.operator, row.note) for row in self.rows)
        lines = [f"- {who}, {what}: {note}" for who, what, note in notes if note]
        return "\n".join(["## Notes and failures\n", *lines]) if lines else ""


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def slug(name: str) -> str:
    """Return a name for a file: without the marks of processors, spaces and capitals."""
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((R|TM)\)", "", name).lower()).strip("-")


def number(value: float | None, scale: float = 1.0) -> str:
    """Write a number with four digits; nothing for None."""
    return "" if value is None else f"{value * scale:.4g}"


def _lines(rows: Sequence[Row]) -> str:
    lines = [f"{rows[0].operator}: {rows[0].shape}"]
    for row in rows:
        c = row.cells()
        head = f"  {row.provider:26s} {row.direction:8s} {row.mode:10s}"
        if row.times is None:
            lines.append(f"{head} failed: {row.note}")
            continue
        spread = f"({c['p20_ms']} to {c['p80_ms']})"
        lines.append(
            f"{head} {c['p50_ms']:>7s} ms {spread:20s} {c['times_ours'] or '–':>6s} times ours"
            f"  {c['gb_per_s']:>6s} GB/s  {c['percent_of_floor']:>6s} % of floor"
            f"  {c['peak_mb'] or '–':>6s} MB  {row.note}".rstrip()
        )
    return "\n".join(lines)


def _mean(values: Iterable[float | None]) -> str:
    measured = [value for value in values if value is not None]
    return number(geometric_mean(measured)) if measured else "–"


def _driver(device: torch.device) -> str:
    """Return the version of the GPU's driver, which torch does not tell."""
    if device.type != "cuda":
        return "none"
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.split()[0]
