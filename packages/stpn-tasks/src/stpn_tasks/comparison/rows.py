"""Rows of a comparison whose numbers are plain json: run them all, tell them by seed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from stpn_tasks.comparison.options import ComparisonOptions
from stpn_tasks.comparison.run import as_command
from stpn_tasks.comparison.seeds import Seed
from stpn_tasks.comparison.workers import in_two_stages
from stpn_tasks.results import summary
from stpn_tasks.tables import environment, read_json, write_json

SeedT = TypeVar("SeedT", bound=Seed[Any])
RecipeT = TypeVar("RecipeT")

BASELINE, EQUAL_COMPUTE, STPN, OTHER = "baseline", "baseline_equal_compute", "stpn", "stpn_other"


@dataclass(frozen=True)
class ComparedRow:
    """One row of a comparison: weights, and how they are tested.

    Attributes:
        name: short, for files.
        label: for people.
        about: one sentence: what it is.
        training: whose weights.
    """

    name: str
    label: str
    about: str
    training: str


def run_rows(
    options: ComparisonOptions,
    seeds: Sequence[SeedT],
    rows: Sequence[ComparedRow],
    *,
    command: str,
    render: Callable[[SeedT], object],
    train_first: Callable[[SeedT], None],
    train_and_test: Callable[[SeedT, str], dict[str, Any]],
) -> dict[str, Any]:
    """Train and test all rows with all seeds, side by side where there are workers.

    Args:
        options: workers and what else the command line says.
        seeds: what is common to each seed.
        rows: what is compared.
        command: of ``stpn`` that gives the results.
        render: makes a seed's data, with all processors, before they are shared out.
        train_first: trains what all trainings of a seed begin with.
        train_and_test: trains by name; returns the numbers of the rows of this training by name.

    Returns:
        "about" the run; and the "rows", each with the numbers of every seed.
    """
    start = time.perf_counter()
    about = environment(seeds[0].device)  # before a long run, in which files may change
    resumed = any(seed.folder.exists() for seed in seeds)
    for seed in seeds:
        render(seed)
    trainings = tuple(dict.fromkeys(row.training for row in rows))
    found = in_two_stages(
        [partial(train_first, seed) for seed in seeds],
        [[partial(train_and_test, seed, name) for name in trainings] for seed in seeds],
        options.workers,
    )
    of_rows = [{name: row for one in of_seed for name, row in one.items()} for of_seed in found]
    minutes = f"{(time.perf_counter() - start) / 60:.1f}"
    return {
        "about": {
            "command": as_command(command, options),
            "minutes": minutes + (", after an earlier start" if resumed else ""),
            **about,
            "mixed_precision": seeds[0].mixed_precision,
            "workers": options.workers,
            **dataclasses.asdict(seeds[0].scale),
        },
        "rows": [
            {
                "name": row.name,
                "label": row.label,
                "about": row.about,
                "seeds": by_seed(seeds, [of_seed[row.name] for of_seed in of_rows]),
            }
            for row in rows
        ],
    }


def by_seed(seeds: Sequence[Seed[Any]], values: Sequence[Any]) -> dict[str, Any]:
    """Return a value of each seed, by its number as json has it."""
    return {str(seed.seed): value for seed, value in zip(seeds, values, strict=True)}


def train_once(
    path: Path,
    recipe: RecipeT,
    *,
    device: str,
    read_recipe: Callable[[Path], RecipeT],
    train: Callable[[], object],
) -> None:
    """Train by a recipe unless that was done; write what it cost as ``cost.json`` beside it.

    Args:
        path: of the weights.
        recipe: what to train by.
        device: where the network runs.
        read_recipe: tells by what recipe weights were trained.
        train: trains, and writes the weights.

    Raises:
        ValueError: if weights of another recipe lie there; names the file.
    """
    cost = path.parent / "cost.json"
    if path.exists() and cost.exists():
        if read_recipe(path) != recipe:
            raise ValueError(
                f"{path} was trained by another recipe than this one: remove its folder, or "
                "choose another output folder"
            )
        return
    spent = cpu_seconds(path) if cost.exists() else 0.0  # of a run that was broken off
    start = time.process_time()
    try:
        train()
    finally:
        seconds = round(spent + time.process_time() - start, 1)
        write_json(cost, {"cpu_seconds": seconds, "environment": environment(device)})


def forget_tests(folder: Path, name: str) -> None:
    """Remove what tests of a row left in a seed's folder, since its weights are to be made anew."""
    for path in (folder / "tests").glob(f"{name}-*"):
        path.unlink()


def cpu_seconds(path: Path) -> float:
    """Return the processor time (s) that weights cost to train, all threads together."""
    return float(read_json(path.parent / "cost.json")["cpu_seconds"])


def mean_and_spread(values: Sequence[float | None]) -> str:
    """Return "53.0 ± 1.2" of several seeds, "53.0" of one, or a dash where nothing is known."""
    return str(summary(value for value in values if value is not None))
