"""Write and read tracking results in the folders of the GOT-10k toolkit; zip them for its server.

``RESULTS/GOT-10k/TRACKER/SEQ/SEQ_001.txt`` has a box x, y, width, height per frame, SEQ_002.txt
.. those of further repetitions, and ``SEQ_time.txt`` the seconds of each frame, a column for each
repetition. The first frame is the given box, and its time that of setting up the tracker.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np

from stpn_data.got10k import GOT10k
from stpn_data.sequences import read_rows
from stpn_data.videos import DataError
from stpn_tasks.files import atomic_path, write_text

BENCHMARK = "GOT-10k"
_NO_NAME = re.compile(r"[/\\\x00-\x1f\x7f-\x9f]")
_TIME_OF_ZIP = (1980, 1, 1, 0, 0, 0)  # so that the same results make the same file


@dataclass(frozen=True)
class TrackRun:
    """Hold what a tracker gave in one pass over a sequence.

    Attributes:
        boxes_xywh: (T, 4) float64 x, y, width, height in pixels.
        times: (T,) float64 seconds per frame; NaN where none was taken.
    """

    boxes_xywh: np.ndarray
    times: np.ndarray


def results_folder(root: Path, tracker: str, sequence: str | None = None) -> Path:
    """Name the folder of a tracker's results, or of those of a sequence.

    (The toolkit looks for results by a pattern, so that it finds none of a tracker or sequence
    with ``[``, ``*`` or ``?`` in its name; we do.)

    Raises:
        ValueError: a name that is no name of a folder: empty, ``.``, ``..``, or with a separator
            or control character.
    """
    names = (tracker,) if sequence is None else (tracker, sequence)
    for name in names:
        if name in ("", ".", "..") or _NO_NAME.search(name):
            raise ValueError(f"{name!r} cannot be a folder of results")
    return Path(root, BENCHMARK, *names)


def write_results(root: Path, tracker: str, sequence: str, runs: Sequence[TrackRun]) -> None:
    """Write all repetitions of a sequence; what was there of it is replaced.

    Boxes have three decimals, times eight, as the toolkit writes them. (The toolkit itself skips a
    sequence that has results, and appends to its times.)

    Args:
        root: the folder of results, below which GOT-10k lies.
        tracker: name of the tracker.
        sequence: name of the sequence.
        runs: the repetitions; one unless the tracker is random.

    Raises:
        ValueError: no run, arrays of different lengths, a box that is not finite, or a name that
            is no name of a folder.
    """
    if not runs:
        raise ValueError(f"{sequence}: there is no run to write")
    count = len(runs[0].times)
    for number, run in enumerate(runs, start=1):
        if run.boxes_xywh.shape != (count, 4) or run.times.shape != (count,) or not count:
            raise ValueError(
                f"{sequence}: boxes {run.boxes_xywh.shape} and times {run.times.shape} of run "
                f"{number} do not agree, or not with the first run's {count} frames"
            )
        if not np.isfinite(run.boxes_xywh).all():
            raise ValueError(f"{sequence}: a box of run {number} is not finite")
    folder = results_folder(root, tracker, sequence)
    for number, run in enumerate(runs, start=1):
        write_text(folder / f"{sequence}_{number:03d}.txt", _rows(run.boxes_xywh, "%.3f"))
    write_text(_time_file(folder), _rows(np.stack([r.times for r in runs], 1), "%.8f"))
    for number, stale in _box_files(folder, sequence).items():
        if number > len(runs):
            stale.unlink()


def read_results(root: Path, tracker: str, sequence: str, num_frames: int) -> list[TrackRun]:
    """Read all repetitions of a sequence, ours or the toolkit's.

    Args:
        root: the folder of results, below which GOT-10k lies.
        tracker: name of the tracker.
        sequence: name of the sequence.
        num_frames: frames of the sequence.

    Returns:
        The repetitions in order; all times are NaN where there is no file of times.

    Raises:
        DataError: no results, a file that cannot be read, another number of lines than frames, or
            another number of times than repetitions; the file is named.
    """
    folder = results_folder(root, tracker, sequence)
    files = list(_box_files(folder, sequence).values())
    if not files:
        raise DataError(f"{folder}: no results of {sequence}")
    time_file = _time_file(folder)
    times = np.full((num_frames, len(files)), np.nan)
    if time_file.is_file():
        times = _read(time_file, None, num_frames)
    if times.shape[1] != len(files):
        raise DataError(
            f"{time_file}:1: {times.shape[1]} times of a frame for {len(files)} repetitions"
        )
    runs = [
        TrackRun(_read(file, 4, num_frames), of_run)
        for file, of_run in zip(files, times.T, strict=True)
    ]
    for file, run in zip(files, runs, strict=True):
        for frame in np.flatnonzero(np.isnan(run.boxes_xywh).any(axis=1)):
            raise DataError(f"{file}:{frame + 1}: the box is not finite")
    return runs


def zip_for_test_server(
    root: Path, tracker: str, dataset: GOT10k, path: Path | None = None
) -> Path:
    """Pack a tracker's results of the split test, and nothing else, for the evaluation server.

    (The toolkit packs the whole folder of the tracker, with results of val that lie there.) Every
    sequence has to be there with a box for each of its frames.

    Args:
        root: the folder of results, below which GOT-10k lies.
        tracker: name of the tracker.
        dataset: the split test.
        path: the zip to write; beside the tracker's folder if not given.

    Returns:
        The zip: ``SEQ/SEQ_001.txt`` .. and ``SEQ/SEQ_time.txt`` of every sequence.

    Raises:
        ValueError: another split.
        DataError: results that are missing or do not fit their sequence; the file is named.
    """
    if dataset.split != "test":
        raise ValueError(f"the server takes results of the split test, not of {dataset.split}")
    folder = results_folder(root, tracker)
    files: list[Path] = []
    for one in dataset.sequences:
        read_results(root, tracker, one.name, one.num_frames)
        time_file = _time_file(folder / one.name)
        if not time_file.is_file():
            raise DataError(f"{time_file}: the times, which the toolkit packs too, are missing")
        files += [*_box_files(folder / one.name, one.name).values(), time_file]
    path = path or folder.with_name(f"{tracker}.zip")
    with atomic_path(path) as partial, ZipFile(partial, "w", ZIP_DEFLATED) as archive:
        for file in files:
            entry = ZipInfo(file.relative_to(folder).as_posix(), _TIME_OF_ZIP)
            entry.compress_type, entry.external_attr = ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, file.read_bytes())
    return path


def _box_files(folder: Path, sequence: str) -> dict[int, Path]:
    """Return the box files of a sequence by the numbers of their repetitions, ascending."""
    pattern = re.compile(rf"{re.escape(sequence)}_(\d+)\.txt", re.ASCII)
    matches = [(pattern.fullmatch(file.name), file) for file in folder.glob("*.txt")]
    return dict(sorted((int(match[1]), file) for match, file in matches if match))


def _time_file(folder: Path) -> Path:
    return folder / f"{folder.name}_time.txt"


def _read(path: Path, num_columns: int | None, num_frames: int) -> np.ndarray:
    rows = read_rows(path, num_columns)
    if len(rows) != num_frames:
        line = min(len(rows), num_frames) + 1
        raise DataError(f"{path}:{line}: {len(rows)} lines for {num_frames} frames")
    return rows


def _rows(values: np.ndarray, number: str) -> str:
    return "".join(",".join(number % value for value in row) + "\n" for row in values.tolist())
