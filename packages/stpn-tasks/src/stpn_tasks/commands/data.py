"""Check a data set; convert it."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from stpn_tasks.commands.choices import Split


def check_data(root: Positional[Path], images: Path | None = None) -> None:
    """Check a data set: find its format, count what it holds, name every problem with its file.

    Reads every list and annotation and decodes every image; ends with 1 if there are problems.

    Args:
        root: the folder with ImageNet's tree, of VID and DET, or with CocoVID files in itself or
            in annotations/; or a CocoVID .json.
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


def convert_data(root: Positional[Path], output: Positional[Path], split: Split = "train") -> None:
    """Write a split of ImageNet VID's folders as one CocoVID json, as mmtracking does.

    Args:
        root: the folder with ImageNet VID's tree.
        output: the json to write; beside the tree, in annotations/, its images are found.
        split: which part of the data.
    """
    import json

    from stpn_data import DataReport, vid_folders_to_coco
    from stpn_tasks.files import write_text

    left_out = DataReport()
    data = vid_folders_to_coco(root, split, left_out, progress=True)
    write_text(output, json.dumps(data))
    print(left_out)
    print(f"{len(data['videos'])} videos, {len(data['images'])} frames: {output}")
