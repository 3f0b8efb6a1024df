"""Read a folder of frames and one of id masks, in the layout of DAVIS."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stpn_data.annotated_videos import AnnotatedVideos
from stpn_data.annotations import AnnotatedBox, DataReport, shown
from stpn_data.id_masks import read_id_mask
from stpn_data.images import read_image
from stpn_data.own_folder import CLASSES, read_classes, table_lines
from stpn_data.rle import tight_box
from stpn_data.video import image_files
from stpn_data.videos import DataError, Video
from stpn_data.youtube_vis import FRAMES

MASKS, TABLE = "Annotations", "instances.csv"
ONE_CLASS = "object"
_COLUMNS = ("video", "id", "class")


def is_mask_folder(root: Path) -> bool:
    """Tell whether a folder has frames and id masks."""
    return (root / FRAMES).is_dir() and (root / MASKS).is_dir()


def open_mask_folder(root: str | Path) -> AnnotatedVideos:
    """Open `JPEGImages/<video>/*` with the masks `Annotations/<video>/*.png` of the same names.

    A mask holds the number of an object in every pixel (`read_id_mask`), the same one in all frames
    of a video: its track id. Frames with a mask are the key frames; the others, taken for not
    annotated, only support these. `<video>` may be several folders, as DAVIS's `480p/bear`.

    Without `classes.txt` (a class a line, in the folder or the one above) all objects are of the
    class "object", with one line of the class that it names. With several, `instances.csv` says
    the class of every object: its columns are video, id, class.

    Raises:
        DataError: a file or folder is missing, or a line cannot be read; names file and line.
    """
    root, report = Path(root), DataReport()
    return AnnotatedVideos(layout := MaskFolder(root), layout.classes, report, with_masks=True)


class MaskFolder:
    """Index the frames and masks of a folder; a `Layout`.

    Args:
        root: the folder.

    Raises:
        DataError: as of `open_mask_folder`.
    """

    def __init__(self, root: Path) -> None:
        """List the files, read the classes, and the first frame of every video (its size)."""
        self._files: list[list[Path]] = []
        self._masks: list[dict[int, Path]] = []  # by frame, per video
        self.videos: list[Video] = []
        for name in _video_names(root / MASKS):
            self._add_video(root, name)
        self.classes = _classes(root)
        self._labels: Mapping[tuple[str, int], int] | None = None
        self._table = root / TABLE
        if len(self.classes) > 1:
            names = {video.name for video in self.videos}
            self._labels = _labels(self._table, self.classes, names)

    def image_path(self, video: int, index: int) -> Path:
        """Name the file of a frame."""
        return self._files[video][index]

    def image_size(self, video: int, index: int) -> tuple[int, int]:
        """Return the (height, width) of the frames of a video."""
        return self.videos[video].height, self.videos[video].width

    def boxes(self, video: int, index: int) -> list[AnnotatedBox]:
        """Return the objects of a frame, with masks.

        Raises:
            DataError: the mask cannot be read, has another size than the frames, or an object
                without a class.
        """
        path = self._masks[video].get(index)
        if path is None:
            return []
        ids, size = read_id_mask(path), self.image_size(video, index)
        if ids.shape != size:
            raise DataError(
                f"{path}: the mask is {ids.shape[1]}x{ids.shape[0]}, its video {size[1]}x{size[0]}"
            )
        boxes = []
        for number in np.unique(ids[ids != 0]).tolist():
            mask = ids == number
            label = self._label(video, number, path)
            boxes.append(AnnotatedBox(tight_box(mask), label, number, mask=mask))
        return boxes

    def _label(self, video: int, number: int, path: Path) -> int:
        if self._labels is None:
            return 0
        if (label := self._labels.get((self.videos[video].name, number))) is None:
            raise DataError(f"{path}: {self._table} has no row of object {number} of this video")
        return label

    def _add_video(self, root: Path, name: str) -> None:
        files = image_files(root / FRAMES / name)
        positions = {file.stem: index for index, file in enumerate(files)}
        masks: dict[int, Path] = {}
        for mask in image_files(root / MASKS / name):
            if mask.stem not in positions:
                raise DataError(f"{mask}: no frame {mask.stem} in {root / FRAMES / name}")
            masks[positions[mask.stem]] = mask
        height, width, _ = read_image(files[0]).shape
        self.videos.append(Video(name, len(files), height, width, tuple(sorted(masks))))
        self._files.append(files)
        self._masks.append(masks)


def _video_names(masks: Path) -> list[str]:
    """Return the folders with masks, relative to the folder of all masks."""
    if not masks.is_dir():
        raise DataError(f"{masks}: no such folder")
    folders = sorted({file.parent for file in masks.rglob("*.png")} - {masks})
    if not folders:
        raise DataError(f"{masks}: no masks, expected {MASKS}/<video>/*.png")
    return [folder.relative_to(masks).as_posix() for folder in folders]


def _classes(root: Path) -> tuple[str, ...]:
    beside = root.absolute()
    if not any((folder / CLASSES).is_file() for folder in (beside, beside.parent)):
        return (ONE_CLASS,)
    return read_classes(root / TABLE)


def _labels(table: Path, classes: tuple[str, ...], videos: set[str]) -> dict[tuple[str, int], int]:
    """Return the label of every object by its video and number.

    Raises:
        DataError: a line cannot be read, names what is not there, or says another class.
    """
    labels: dict[tuple[str, int], int] = {}
    for place, columns, fields in table_lines(table, _COLUMNS, ()):
        if len(fields) != len(columns):
            raise DataError(f"{place}: {len(fields)} fields for {len(columns)} columns")
        record = dict(zip(columns, fields, strict=True))
        video, number, name = record["video"], record["id"], record["class"]
        if video not in videos:
            raise DataError(f"{place}: 'video' is {shown(video)}, which has no masks")
        if not (number.isascii() and number.isdecimal() and len(number) <= 9):
            raise DataError(f"{place}: 'id' is {shown(number)}, expected a whole number")
        if name not in classes:
            raise DataError(f"{place}: 'class' is {shown(name)}, which {CLASSES} does not list")
        if (video, int(number)) in labels:
            raise DataError(f"{place}: object {number} of {shown(video)} occurs twice")
        labels[video, int(number)] = classes.index(name)
    return labels
