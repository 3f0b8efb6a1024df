"""Run a tracker over a data set: a file of boxes and one of times for every sequence."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from stpn_data.sequences import TrackingDataset, TrackingSequence
from stpn_data.videos import DataError
from stpn_tasks.engine import evaluate
from stpn_tasks.tables import read_json, write_json
from stpn_tasks.tracking.crops import Image
from stpn_tasks.tracking.results_layout import (
    TrackRun,
    read_results,
    results_folder,
    write_results,
)
from stpn_tasks.tracking.tracker import OnlineTracker

MADE_BY_FILE = "made_by.json"
_SEQUENCES = "sequences"
_PRECISION = 6e-4  # of boxes in files, which have three decimals


def run_tracker(
    tracker: OnlineTracker,
    dataset: TrackingDataset,
    root: Path,
    name: str,
    *,
    accelerator: Accelerator,
    made_by: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> int:
    """Track every sequence of a data set and write what was found as the toolkit does.

    A sequence is written when its last frame was tracked. Those that are there already, with
    their times, are not tracked again, so that a run that was broken off goes on. Several
    processes share the sequences.

    ``made_by.json`` keeps what made the results and, by the name of every sequence, a checksum of
    its number of frames, first frame and first box: the same name in another data set is not taken
    for it. Later frames are not compared.

    Args:
        tracker: with its network in eval mode on the accelerator's device.
        dataset: what to track; only the first box of a sequence is read.
        root: folder of results, below which GOT-10k/NAME is written.
        name: of the tracker.
        accelerator: devices and processes.
        made_by: what made the results, such as the weights' checksum; kept together with the
            tracker's options.
        progress: show a progress bar.

    Returns:
        The number of sequences that were tracked, over all processes.

    Raises:
        DataError: a frame cannot be read, or a sequence has no box to begin with; those before it
            are written, unless it is a first frame, all of which are read before.
        ValueError: results of this name were made by something else or are of other data, or a
            name that is no name of a folder.
    """
    values = {**(made_by or {}), "options": asdict(tracker.options)}
    _claim(root, name, dataset, values, accelerator)
    missing = [n for n, one in enumerate(dataset.sequences) if not _is_done(root, name, one)]
    accelerator.wait_for_everyone()  # so that all have listed the same ones
    tracked = evaluate(
        partial(_track_and_write, tracker, dataset, root, name),
        [[number] for number in missing],
        accelerator=accelerator,
        title="track",
        progress=progress,
    )
    return len(tracked)


def track_sequence(
    tracker: OnlineTracker, frames: Iterable[Image], box_xywh: Sequence[float]
) -> TrackRun:
    """Track a target through frames, of which there is one at least.

    Times are those of the tracker alone, from an image in memory to a box; that of the first frame
    is the time of setting up.

    Args:
        tracker: follows the target.
        frames: (H, W, 3) uint8 RGB each.
        box_xywh: x, y, width, height in the first of them.
    """
    boxes, times = [list(box_xywh)], []
    for number, frame in enumerate(frames):
        start = time.perf_counter()
        if number == 0:
            tracker.init(frame, box_xywh)
        else:
            boxes.append(list(tracker.track(frame).box_xywh))
        if tracker.device.type != "cpu":  # setting up returns before it is done
            torch.accelerator.synchronize(tracker.device)
        times.append(time.perf_counter() - start)
    return TrackRun(np.array(boxes, np.float64), np.array(times, np.float64))


def _track_and_write(
    tracker: OnlineTracker, dataset: TrackingDataset, root: Path, name: str, group: Sequence[int]
) -> list[None]:
    for number in group:
        one = dataset.sequences[number]
        if not one.has_box[0]:
            raise DataError(f"{one.name}: the first frame has no box to begin with")
        found = track_sequence(tracker, dataset.frames(number), one.boxes_xywh[0].tolist())
        write_results(root, name, one.name, [found])
    return [None] * len(group)


def _is_done(root: Path, name: str, one: TrackingSequence) -> bool:
    """Tell whether a sequence has whole results from its first box; times are written last."""
    try:
        runs = read_results(root, name, one.name, one.num_frames)
    except DataError:
        return False
    return all(
        np.isfinite(run.times).all()
        and np.allclose(run.boxes_xywh[0], one.boxes_xywh[0], rtol=0, atol=_PRECISION)
        for run in runs
    )


def _claim(
    root: Path,
    name: str,
    dataset: TrackingDataset,
    made_by: Mapping[str, Any],
    accelerator: Accelerator,
) -> None:
    """Note what makes the results and of which data, unless others are there."""
    path = results_folder(root, name) / MADE_BY_FILE
    values = json.loads(json.dumps(made_by, default=str))  # as it will be read
    checksums = {
        one.name: _checksum(dataset, number) for number, one in enumerate(dataset.sequences)
    }
    known = _known(path, values)
    for sequence, checksum in checksums.items():
        if _has_files(results_folder(root, name, sequence)):
            _check_same_data(path, sequence, known.get(sequence), checksum)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        write_json(path, {**values, _SEQUENCES: {**known, **checksums}})


def _known(path: Path, values: Mapping[str, Any]) -> dict[str, str]:
    """Return the checksums by sequence of the results beside a file, which must be made alike."""
    if not any(path.parent.glob("*/*.txt")):
        return {}
    if not path.exists():
        raise ValueError(
            f"{path.parent} holds results of which {MADE_BY_FILE} does not tell what made them: "
            "choose another name or folder"
        )
    found = read_json(path)
    checksums: dict[str, str] = found.pop(_SEQUENCES, {})  # older files have none
    keys = sorted(key for key in {*found, *values} if found.get(key) != values.get(key))
    if keys:
        raise ValueError(
            f"{path}: the results there were made by something else ({', '.join(keys)} "
            "differ): choose another name or folder"
        )
    return checksums


def _has_files(folder: Path) -> bool:
    return any(folder.glob("*.txt"))


def _check_same_data(path: Path, sequence: str, known: str | None, checksum: str) -> None:
    if known is None:
        raise ValueError(
            f"{path} does not tell of which data the results of {sequence} beside it are: choose "
            "another name or folder, or remove them"
        )
    if known != checksum:
        raise ValueError(
            f"{path}: the results of {sequence} beside it are of other data (the number of "
            "frames, the first frame or its box differs): choose another name or folder, or "
            "remove them"
        )


def _checksum(dataset: TrackingDataset, number: int) -> str:
    one = dataset.sequences[number]
    box = ",".join(f"{value:.3f}" for value in one.boxes_xywh[0].tolist())
    digest = hashlib.sha256(f"{one.num_frames} {one.size} {box}".encode())
    # Pixels too: the same clip, made worse or better, has the same boxes.
    digest.update(dataset.frame(number, 0).tobytes())
    return digest.hexdigest()[:16]
