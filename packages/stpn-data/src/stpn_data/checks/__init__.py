"""Check a data set before it is trained on: find its format, count it, name every problem."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from stpn_data.annotations import DataReport
from stpn_data.checks.coco import check_coco
from stpn_data.checks.folders import check_folders
from stpn_data.checks.subset import Subset
from stpn_data.coco_fields import load_json
from stpn_data.videos import DataError


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
        root: a CocoVID `.json`, or a folder with ImageNet's tree (`Data/VID`, `Data/DET`), with
            CocoVID files in itself or in its `annotations`, or with both.
        image_root: where the file names of a json begin; looked for if not given.
        progress: show a bar.

    Raises:
        DataError: `root` is none of these.
    """
    check = DataCheck()
    if (tree := _tree(root)) is not None:
        check.subsets += check_folders(tree, check.problems, progress)
    for path in _json_files(root):
        try:
            data = load_json(path)
        except DataError as error:
            check.problems.add("annotation that cannot be read", str(error))
            continue
        if "images" not in data:
            check.other_files.append(path)
            continue
        image_roots = [image_root] if image_root is not None else _image_roots(path)
        check.subsets.append(check_coco(path, data, image_roots, check.problems, progress))
    if not check.subsets and not check.problems.counts:
        raise DataError(
            f"{root}: neither ImageNet's tree (Data/VID or Data/DET, also below ILSVRC), nor a "
            "CocoVID .json, nor a folder with one, itself or in annotations/"
        )
    return check


def _tree(root: Path) -> Path | None:
    """Return the folder with `Data/VID` or `Data/DET`, if there is one."""
    for folder in (root, root / "ILSVRC", root / "ILSVRC2015"):
        if any((folder / "Data" / task).is_dir() for task in ("VID", "DET")):
            return folder
    return None


def _json_files(root: Path) -> list[Path]:
    if root.suffix == ".json":
        return [root]
    return [*sorted(root.glob("*.json")), *sorted((root / "annotations").glob("*.json"))]


def _image_roots(path: Path) -> list[Path]:
    """Name the folders in which the images of a json usually are."""
    near = [path.resolve().parent.parent, path.resolve().parent]
    trees = [tree for folder in near if (tree := _tree(folder)) is not None]
    return [*(tree / "Data" / task for tree in trees for task in ("VID", "DET")), *trees, *near]


__all__ = ["DataCheck", "Subset", "check_data"]
