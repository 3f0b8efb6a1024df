"""Check a data set; convert it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from stpn_tasks.commands.choices import Split

if TYPE_CHECKING:
    from stpn_data import DataReport


def check_data(root: Positional[Path], images: Path | None = None) -> None:
    """Check a data set: find its format, count what it holds, name every problem with its file.

    Reads every list and annotation and decodes every image; ends with 1 if there are problems.

    Args:
        root: the folder with ImageNet's tree, of VID and DET; with files in COCO's form in itself
            or in annotations/; with objects.csv of your own videos in itself or in train/, val/
            or test/; or a .json.
        images: where the file names of a .json begin; looked for if not given.
    """
    import stpn_data
    from stpn_tasks.data_check import problem_lines, subset_table
    from stpn_tasks.tables import print_table

    check = stpn_data.check_data(root, images, progress=True)
    for line in problem_lines(check):
        print(line)
    print_table(subset_table(check))
    total = check.problems.counts.total()
    print(f"problems: {total}" if total else "no problems")
    if total:
        raise SystemExit(1)


def convert_data(
    source: Positional[Path], output: Positional[Path], split: Split = "train"
) -> None:
    """Convert ImageNet's folders into a CocoVID json, as mmtracking does, or a json into folders.

    Args:
        source: the folder with ImageNet VID's tree, or its Data/DET; or a .json of either.
        output: the json to write; beside the tree, in annotations/, its images are found. Of a
            .json, the folder with Data, to write Annotations and Lists into. Nothing is
            overwritten.
        split: which part of the folders; a .json is one part already.
    """
    from stpn_data import DataReport

    left_out = DataReport()
    if source.suffix == ".json":
        summary = _convert_to_folders(source, output, left_out)
    else:
        summary = _convert_to_json(source, output, split, left_out)
    print(left_out)
    print(f"{summary}: {output}")


def _convert_to_folders(source: Path, output: Path, left_out: DataReport) -> str:
    from stpn_data import coco_to_folders

    return f"{coco_to_folders(source, output, left_out, progress=True)} XML files"


def _convert_to_json(source: Path, output: Path, split: Split, left_out: DataReport) -> str:
    import json

    from stpn_data import det_folders_to_coco, vid_folders_to_coco
    from stpn_tasks.files import write_text

    if output.suffix != ".json":  # by which readers know it
        raise ValueError(f"the output must be named *.json, got {output}")
    if output.exists():
        raise ValueError(f"{output} is there already, and is not overwritten")
    if source.parts[-2:] == ("Data", "DET"):
        data = det_folders_to_coco(source.parent.parent, split, left_out, progress=True)
        summary = f"{len(data['images'])} images"
    else:
        data = vid_folders_to_coco(source, split, left_out, progress=True)
        summary = f"{len(data['videos'])} videos, {len(data['images'])} frames"
    write_text(output, json.dumps(data))
    return summary
