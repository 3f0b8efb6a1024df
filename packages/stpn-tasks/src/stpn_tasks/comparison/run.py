"""Run a comparison: all seeds and rows, as many at a time as there are workers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from tqdm import tqdm

from stpn_data.deteriorated.options import RENDERER_VERSION
from stpn_tasks.comparison.options import ComparisonOptions
from stpn_tasks.comparison.protocol import CLIPS, TEST_SETS, Row, Training, trainings
from stpn_tasks.comparison.seeds import open_seeds
from stpn_tasks.comparison.stages import (
    Workspace,
    fine_tune_and_test,
    train_single_frame,
)
from stpn_tasks.comparison.workers import in_two_stages
from stpn_tasks.results import Model, Results, Run, save_results
from stpn_tasks.tables import environment


def workspaces(options: ComparisonOptions) -> tuple[Workspace, ...]:
    """Return one workspace per seed, after a check that the folder is not another comparison's.

    Raises:
        ValueError: if the folder holds a comparison of another size, precision or on other video.
    """
    sets = {"train": CLIPS, **TEST_SETS}
    data = {
        "renderer": RENDERER_VERSION,
        "video": {name: dataclasses.asdict(clips) for name, clips in sets.items()},
    }
    return open_seeds(options, Workspace, options.scale, data)


def compare(
    options: ComparisonOptions,
    rows: Sequence[Row],
    *,
    title: str,
    command: str,
    filename: str | None = "results.json",
) -> Results:
    """Train and test every row with every seed, and write the results as json.

    What is there already, from a run that stopped or with other rows, is not made again.

    Args:
        options: sizes, seeds, hardware, folder.
        rows: what is compared; the first one is what the others are compared with.
        title: of the results.
        command: that gives them.
        filename: of the json in the output folder; none is written if not given.

    Raises:
        ValueError: if the folder holds another comparison, or weights of another recipe.
    """
    start = time.perf_counter()
    spaces = workspaces(options)
    about = environment(spaces[0].device)  # before a long run, in which files may change
    resumed = any(space.folder.exists() for space in spaces)
    for space in spaces:  # with all processors, before they are shared out
        for clips in {training.clips or CLIPS for training in trainings(rows)}:
            space.train_videos(clips)
        space.test_videos()
    runs = _runs(spaces, rows, options.workers)
    minutes = f"{(time.perf_counter() - start) / 60:.1f}"
    results = Results(
        title,
        {
            "command": command,
            "minutes": minutes + (", after an earlier start" if resumed else ""),
            **about,
            "mixed_precision": spaces[0].mixed_precision,
            "workers": options.workers,
            **dataclasses.asdict(options.scale),
        },
        tuple(
            Model(row.name, row.label, row.about, runs[row.name], row.in_figures) for row in rows
        ),
    )
    if filename is not None:
        save_results(options.output / filename, results)
    return results


def _runs(
    spaces: Sequence[Workspace], rows: Sequence[Row], workers: int
) -> dict[str, tuple[Run, ...]]:
    """Train the single-frame detector of each seed, then fine-tune and test its rows.

    Long trainings come first, so that no worker waits at the end.
    """
    jobs: list[tuple[Training | None, list[Row]]] = [
        (training, [row for row in rows if row.training == training])
        for training in (*trainings(rows), None)
    ]
    jobs = [job for job in jobs if job[1]]
    found: dict[str, list[Run]] = {row.name: [] for row in rows}
    of_seeds = in_two_stages(
        [partial(train_single_frame, space) for space in spaces],
        [
            [partial(fine_tune_and_test, space, training, tested) for training, tested in jobs]
            for space in spaces
        ],
        workers,
    )
    for by_row in (by_row for of_seed in of_seeds for by_row in of_seed):
        for name, run in by_row.items():
            found[name].append(run)
    return {name: tuple(sorted(of_row, key=lambda run: run.seed)) for name, of_row in found.items()}


def say(what: str, detail: str) -> None:
    """Tell what comes next, above the progress bars."""
    tqdm.write(f"── {what}: {detail}")


def as_command(name: str, options: ComparisonOptions, *extra: Any) -> str:
    """Return the command line that gives these results."""
    words = ["stpn", name, *map(str, extra)]
    if options.size != "quick":
        words.append(f"--{options.size}")
    if options.seeds != (0,):
        words += ["--seeds", *map(str, options.seeds)]
    if options.mixed_precision != "auto":
        words += ["--mixed-precision", options.mixed_precision]
    if options.device is not None:
        words += ["--device", options.device]
    return " ".join(words)
