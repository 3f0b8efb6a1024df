"""Check a user's own folder: every row of `objects.csv`, every frame."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from stpn_data.annotations import DataReport
from stpn_data.checks.subset import Subset, add_problems, box_problems, image_problems
from stpn_data.images import read_image
from stpn_data.own_folder import ObjectRow, object_row, read_classes, table_lines
from stpn_data.video import image_files
from stpn_data.videos import DataError


def check_own_folder(table: Path, report: DataReport, progress: bool) -> Subset:
    """Check a table and the frames of the videos beside it; return what was counted.

    Args:
        table: the file `objects.csv`.
        report: receives the problems.
        progress: show a bar.
    """
    subset = Subset(table.absolute().parent.name, table.name)
    rows: dict[str, list[ObjectRow]] = {}
    try:
        classes = read_classes(table)
        labels = {name: label for label, name in enumerate(classes)}
        for place, columns, fields in table_lines(table):
            try:
                row = object_row(columns, fields, place, labels)
            except DataError as error:
                report.add("row that cannot be read", str(error))
                continue
            rows.setdefault(row.video, []).append(row)
    except DataError as error:
        report.add("annotation that cannot be read", str(error))
        return subset
    folders = {path.name for path in table.parent.iterdir() if path.is_dir()}
    for name in sorted(folders - {video.partition("/")[0] for video in rows}):
        report.add("folder without rows", str(table.parent / name))
    with ThreadPoolExecutor() as pool:
        for name, video_rows in tqdm(rows.items(), subset.name, unit="video", disable=not progress):
            _check_video(table.parent / name, video_rows, subset, report, pool)
    used = {row.box.label for one in rows.values() for row in one if row.box is not None}
    subset.classes = {name for name, label in labels.items() if label in used}
    return subset


def _check_video(
    folder: Path,
    rows: list[ObjectRow],
    subset: Subset,
    report: DataReport,
    pool: ThreadPoolExecutor,
) -> None:
    try:
        files = image_files(folder)
    except DataError as error:
        report.add("video without frames", f"{rows[0].place}: {error}")
        return
    subset.videos += 1
    subset.frames += len(files)
    size = _first_size(files)
    for problems in pool.map(lambda file: image_problems(file, size), files):
        add_problems(report, problems)
    there = {file.name for file in files}
    in_frame: set[tuple[str, int]] = set()
    tracks: set[int] = set()
    for row in rows:
        if row.frame not in there:
            report.add("list entry without its file", f"{row.place}: {folder / row.frame}")
        if row.box is None:
            continue
        subset.objects += 1
        track = row.box.track_id
        if (row.frame, track) in in_frame:
            report.add("track twice in a frame", f"{row.place}: track {track} in {row.frame}")
        in_frame.add((row.frame, track))
        if track >= 0:
            tracks.add(track)
        if size is not None:
            add_problems(report, box_problems(row.box, size, row.place))
    subset.tracks += len(tracks)


def _first_size(files: list[Path]) -> tuple[int, int] | None:
    """Return the (height, width) of the first frame that can be read: that of its video."""
    for file in files:
        try:
            height, width, _ = read_image(file).shape
        except DataError:
            continue
        return height, width
    return None
