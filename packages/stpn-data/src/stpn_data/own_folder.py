"""Read a user's own videos: a folder of frames per video, and one table of objects."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from stpn_data.annotated_videos import AnnotatedVideos
from stpn_data.annotations import AnnotatedBox, DataReport, shown
from stpn_data.images import read_image
from stpn_data.vid_folders import is_below
from stpn_data.video import image_files
from stpn_data.videos import DataError, Video

TABLE, CLASSES = "objects.csv", "classes.txt"
SPLITS = ("train", "val", "test")
_SIDES = ("left", "top", "right", "bottom")
COLUMNS = ("video", "frame", "class", *_SIDES)
OPTIONAL_COLUMN = "track"


def find_table(folder: Path, split: str) -> Path | None:
    """Return the table of a split, `<split>/objects.csv`, or that of a folder without splits.

    Where another split has a table, `objects.csv` in the folder itself does not stand for this
    one: it may hold the videos of all of them.

    Returns:
        The file; None without any.
    """
    if (own := folder / split / TABLE).is_file():
        return own
    is_split = any((folder / other / TABLE).is_file() for other in SPLITS)
    whole = folder / TABLE
    return whole if whole.is_file() and not is_split else None


def open_own_folder(table: str | Path) -> AnnotatedVideos:
    """Open the videos that `objects.csv` names; they are in the same folder.

    Args:
        table: the file. `classes.txt`, a class a line in the order of the labels, is beside it or
            in the folder above.

    Raises:
        DataError: a file or folder is missing, or a line cannot be read; names file and line.
    """
    path, report = Path(table), DataReport()
    classes = read_classes(path)
    labels = {name: label for label, name in enumerate(classes)}
    return AnnotatedVideos(OwnFolder(path, labels, report), classes, report)


class OwnFolder:
    """Index the rows of `objects.csv` by video and frame.

    Its first line names the columns: video, frame, class, left, top, right, bottom and, if there
    are tracks, track. A row is an object: the folder of its video, the file of its frame, its
    class, its sides in pixels, a whole number that is the same for the same object in all frames.
    A row without class and sides is a frame without objects. Frames with a row are the key
    frames; the others, taken for not annotated, only support these.

    Args:
        table: the file.
        labels: 0-based label of every class by name.
        report: receives what is left out.

    Raises:
        DataError: a line cannot be read, or what it names is not there.
    """

    def __init__(self, table: Path, labels: Mapping[str, int], report: DataReport) -> None:
        """Read the table, list the frames, and read the first frame of every video (its size)."""
        self._files: list[list[Path]] = []
        self._boxes: list[dict[int, list[AnnotatedBox]]] = []  # by frame, per video
        self.videos: list[Video] = []
        rows: dict[str, list[ObjectRow]] = {}
        for place, columns, fields in table_lines(table):
            row = object_row(columns, fields, place, labels)
            rows.setdefault(row.video, []).append(row)
        for name, video_rows in rows.items():
            self._add_video(table.parent / name, name, video_rows)
        if not self.videos:
            raise DataError(f"{table}: no rows")

    def image_path(self, video: int, index: int) -> Path:
        """Name the file of a frame."""
        return self._files[video][index]

    def image_size(self, video: int, index: int) -> tuple[int, int]:
        """Return the (height, width) of the frames of a video."""
        return self.videos[video].height, self.videos[video].width

    def boxes(self, video: int, index: int) -> list[AnnotatedBox]:
        """Return the objects of a frame."""
        return self._boxes[video].get(index, [])

    def _add_video(self, folder: Path, name: str, rows: list[ObjectRow]) -> None:
        try:
            files = image_files(folder)
        except DataError as error:
            raise DataError(f"{rows[0].place}: {error}") from error
        positions = {file.name: index for index, file in enumerate(files)}
        boxes: dict[int, list[AnnotatedBox]] = {}
        for row in rows:
            if row.frame not in positions:
                raise DataError(f"{row.place}: {folder / row.frame} is not there")
            objects = boxes.setdefault(positions[row.frame], [])
            if row.box is not None:
                objects.append(row.box)
        height, width, _ = read_image(files[0]).shape
        self.videos.append(Video(name, len(files), height, width, tuple(sorted(boxes))))
        self._files.append(files)
        self._boxes.append(boxes)


@dataclass(frozen=True)
class ObjectRow:
    """One row of the table; `box` is None where the frame has no object."""

    place: str
    video: str
    frame: str
    box: AnnotatedBox | None


def read_classes(table: Path) -> tuple[str, ...]:
    """Return the classes of a table: the lines of `classes.txt` beside it or in the folder above.

    Raises:
        DataError: there is no such file, it has no lines, or one twice.
    """
    folder = table.absolute().parent
    paths = (folder / CLASSES, folder.parent / CLASSES)
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise DataError(f"{paths[0]}: no such file, neither in the folder above: a class a line")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the classes cannot be read ({error})") from error
    classes: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        if (name := line.strip()) in classes:
            raise DataError(f"{path}:{number}: the class {shown(name)} occurs twice")
        if name:
            classes[name] = None
    if not classes:
        raise DataError(f"{path}: no classes")
    return tuple(classes)


def table_lines(
    path: Path,
    required: Sequence[str] = COLUMNS,
    optional: Sequence[str] = (OPTIONAL_COLUMN,),
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield `file:line`, the names of the columns and the fields of every row that is not blank.

    Args:
        path: the file.
        required: columns that it must have, in any order.
        optional: columns that it may have.

    Raises:
        DataError: the file cannot be read, or its columns are others.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            columns = [name.strip() for name in next(lines, [])]
            _check_columns(columns, required, optional, path)
            for line in lines:
                place = f"{path}:{lines.line_num}"
                if any(field.strip() for field in line):
                    yield place, columns, [field.strip() for field in line]
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path}: the table cannot be read ({error})") from error


def object_row(
    columns: list[str], fields: list[str], place: str, labels: Mapping[str, int]
) -> ObjectRow:
    """Read a row.

    Args:
        columns: their names.
        fields: of the row; the last ones may be missing where they are empty.
        place: file and line; where there are no tracks, it tells objects apart.
        labels: 0-based label of every class by name.

    Raises:
        DataError: a field is missing or wrong.
    """
    if len(fields) > len(columns):
        raise DataError(f"{place}: {len(fields)} fields for {len(columns)} columns")
    fields = fields + [""] * (len(columns) - len(fields))
    record = dict(zip(columns, fields, strict=True))
    frame, name = record["frame"], record["class"]
    video = PurePosixPath(record["video"]).as_posix()  # one name of a folder: v, not ./v or v/
    if video == "." or not is_below(video):
        wrong = shown(record["video"])
        raise DataError(f"{place}: 'video' is {wrong}, no folder beside the table")
    if not frame or Path(frame).name != frame:
        raise DataError(f"{place}: 'frame' is {shown(frame)}, no file of the folder of its video")
    if not any(record[column] for column in record if column not in ("video", "frame")):
        return ObjectRow(place, video, frame, None)
    if name not in labels:
        raise DataError(f"{place}: 'class' is {shown(name)}, which {CLASSES} does not list")
    left, top, right, bottom = (_number(record, side, place) for side in _SIDES)
    box = AnnotatedBox((left, top, right, bottom), labels[name], _track(record, place))
    return ObjectRow(place, video, frame, box)


def _check_columns(
    columns: list[str], required: Sequence[str], optional: Sequence[str], path: Path
) -> None:
    known = set(columns) - set(optional) == set(required)
    if not known or len(set(columns)) != len(columns):
        may_have = "".join(f" and, if there are {name}s, {name}" for name in optional)
        raise DataError(
            f"{path}:1: the columns are {shown(','.join(columns))}, expected "
            f"{','.join(required)}{may_have}"
        )


def _track(record: Mapping[str, str], place: str) -> int:
    text = record.get(OPTIONAL_COLUMN, "")
    if not text:
        # A track of its own: line numbers differ, and files have none below zero.
        return -int(place.rpartition(":")[2])
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise DataError(f"{place}: {OPTIONAL_COLUMN!r} is {shown(text)}, expected a whole number")
    return int(text)


def _number(record: Mapping[str, str], column: str, place: str) -> float:
    try:
        return float(record[column])
    except ValueError as error:
        text = shown(record[column])
        raise DataError(f"{place}: {column!r} is {text}, not a number") from error
