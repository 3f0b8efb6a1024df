"""What ``stpn eval tracking`` does: track, write results, evaluate them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.table import Table

from stpn_data.got10k import GOT10k
from stpn_data.own_sequences import OwnSequences
from stpn_data.sequences import TrackingDataset
from stpn_tasks.tracking.build import build_tracker_options
from stpn_tasks.tracking.checkpoint import SavedTracker, load_tracker
from stpn_tasks.tracking.data import GENERATED
from stpn_tasks.tracking.evaluation import (
    TrackingEvaluation,
    evaluate_results,
    write_evaluation,
)
from stpn_tasks.tracking.results_layout import results_folder, zip_for_test_server
from stpn_tasks.tracking.run import run_tracker
from stpn_tasks.tracking.tracker import OnlineTracker

_NOTHING_COUNTS = (
    "none: no frame after the first counts (boxes of GOT-10k's split test are not "
    "published; --zip-test packs the results for its server)"
)


def build_tracker(saved: SavedTracker, device: torch.device) -> OnlineTracker:
    """Return what follows a target with a tracker from a file, by its recipe."""
    options = build_tracker_options(saved.recipe)
    return OnlineTracker(saved.network.to(device), options, device)


def evaluate_saved(
    weights: Path,
    dataset: TrackingDataset,
    output: Path,
    name: str,
    *,
    accelerator: Accelerator,
    data: str,
    split: str,
    zip_test: bool = False,
) -> Table:
    """Track all sequences with a tracker from a file, write results and their evaluation.

    Where no frame after the first counts, as in sequences with one box only, there is nothing to
    evaluate, and the table says where the results are.

    Args:
        weights: the file.
        dataset: what to track.
        output: folder for ``results/`` and ``reports/`` in the toolkit's layout.
        name: of the tracker in these folders.
        accelerator: devices and processes.
        data: "generated" or the folder of the data set; said in table, plot and
            ``performance.json``.
        split: which part of it; not said of own sequences, which have no parts.
        zip_test: pack the results of GOT-10k's split test for its server, and evaluate nothing.

    Raises:
        DataError: a frame cannot be read, or results do not fit their sequence.
        ValueError: the file is no tracker; results of this name were made by something else or
            are of other data; or the zip is not of GOT-10k's split test.
    """
    if zip_test and not (isinstance(dataset, GOT10k) and dataset.split == "test"):
        raise ValueError("--zip-test is for GOT-10k's split test")
    tracker = build_tracker(load_tracker(weights), accelerator.device)
    results = output / "results"
    made_by = {"weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    run_tracker(tracker, dataset, results, name, accelerator=accelerator, made_by=made_by)
    accelerator.wait_for_everyone()
    part = None if isinstance(dataset, OwnSequences) else split
    title = f"GOT-10k's protocol; {data}" + (f" ({part})" if part else "")
    table = Table(title=title, title_justify="left")
    if not accelerator.is_main_process:
        return table
    if isinstance(dataset, GOT10k) and zip_test:
        table.add_column("for the server")
        table.add_row(str(zip_for_test_server(results, name, dataset)))
        return table
    if not any(one.counted[1:].any() for one in dataset.sequences):
        table.add_column("results")
        table.add_column("evaluation")
        table.add_row(str(results_folder(results, name)), _NOTHING_COUNTS)
        return table
    evaluation = evaluate_results(dataset, results, name)
    # A folder's name as given, such as ".", may say nothing elsewhere.
    about = {"data": data if data == GENERATED else str(Path(data).resolve()), "split": part}
    path = write_evaluation(output / "reports", name, evaluation, title, about)
    _add_numbers(table, name, evaluation, path)
    return table


def _add_numbers(table: Table, name: str, evaluation: TrackingEvaluation, path: Path) -> None:
    for column in ("tracker", "AO", "SR0.5", "SR0.75", "frames", "frames/s", "numbers"):
        table.add_column(column, justify="left" if column in ("tracker", "numbers") else "right")
    overall = evaluation.report.overall
    shares = (f"{100 * value:.1f}" for value in (overall.ao, overall.sr50, overall.sr75))
    speed = f"{evaluation.frames_per_second:.1f}"
    table.add_row(name, *shares, str(overall.num_frames), speed, str(path))
