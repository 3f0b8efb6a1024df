"""Check a data set before it is trained on: find its format, count it, name every problem."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from stpn_data.annotations import DataReport
from stpn_data.checks.coco import check_coco
from stpn_data.checks.folders import check_folders
from stpn_data.checks.masks import check_mask_folder
from stpn_data.checks.own import check_own_folder
from stpn_data.checks.subset import Subset
from stpn_data.checks.youtube_vis import check_youtube_vis
from stpn_data.coco_fields import load_json
from stpn_data.image_roots import image_roots
from stpn_data.mask_folder import is_mask_folder
from stpn_data.own_folder import TABLE
from stpn_data.vid_folders import tree_folders
from stpn_data.videos import DataError
from stpn_data.youtube_vis import is_youtube_vis


@dataclass
class DataCheck:
    """What a check found.

    Attributes:
        subsets: the parts of the data, counted.
        problems: every problem with its file, by kind.
        other_files: json files that hold something else and were not checked.
    """

    subsets: list[Subset] = field(default_factory=list)
    problems: DataReport = field(default_factory=DataReport)
    other_files: list[Path] = field(default_factory=list)


def check_data(root: Path, image_root: Path | None = None, progress: bool = False) -> DataCheck:
    """Read all annotations and decode all images; go on after every problem.

    Args:
        root: a `.json` in COCO's or YouTube-VIS's form, or a folder with ImageNet's tree
            (`Data/VID`, `Data/DET`), with such files in itself, in its `annotations` or, named
            `instances.json`, in the folders of its splits, with `objects.csv` or with frames and
            id masks (`JPEGImages`, `Annotations`) in itself or in its `train`, `val` or `test`, or
            with several of these.
        image_root: where the file names of a json begin; looked for if not given.
        progress: show a bar.

    Raises:
        DataError: `root` is none of these.
    """
    check = DataCheck()
    if (tree := _tree(root)) is not None:
        check.subsets += check_folders(tree, check.problems, progress)
    for path in (root / name / TABLE for name in ("", "train", "val", "test")):
        if path.is_file():
            check.subsets.append(check_own_folder(path, check.problems, progress))
    for path in (root / name for name in ("", "train", "val", "test")):
        if is_mask_folder(path):
            check.subsets.append(check_mask_folder(path, check.problems, progress))
    for path in _json_files(root):
        _check_json(path, image_root, check, progress)
    if not check.subsets and not check.problems.counts:
        raise DataError(
            f"{root}: neither ImageNet's tree (Data/VID or Data/DET, also below ILSVRC), nor a "
            f"COCO or YouTube-VIS .json, nor a folder with one, itself or in annotations/, nor one "
            f"with {TABLE} or with JPEGImages and Annotations, itself or in train/, val/ or test/"
        )
    return check


def _check_json(path: Path, image_root: Path | None, check: DataCheck, progress: bool) -> None:
    try:
        data = load_json(path)
    except DataError as error:
        check.problems.add("annotation that cannot be read", str(error))
        return
    if is_youtube_vis(data):
        subset = check_youtube_vis(path, data, image_root, check.problems, progress)
        check.subsets.append(subset)
    elif "images" in data:
        roots = image_roots(path, image_root)
        check.subsets.append(check_coco(path, data, roots, check.problems, progress))
    else:
        check.other_files.append(path)


def _tree(root: Path) -> Path | None:
    """Return the folder with `Data/VID` or `Data/DET`, if there is one."""
    for folder in tree_folders(root):
        if any((folder / "Data" / task).is_dir() for task in ("VID", "DET")):
            return folder
    return None


def _json_files(root: Path) -> list[Path]:
    if root.suffix == ".json":
        return [root]
    patterns = ("*.json", "annotations/*.json", "*/instances.json")
    found = (path for pattern in patterns for path in sorted(root.glob(pattern)))
    return list(dict.fromkeys(found))


__all__ = ["DataCheck", "Subset", "check_data"]
