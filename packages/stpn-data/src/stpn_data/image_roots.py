"""Find the folder in which the images of a json are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from stpn_data.vid_folders import tree_folders


def image_roots(annotation_file: Path, given: Path | None = None) -> list[Path]:
    """Name the folders in which the images of a json may be, the likely ones first.

    Args:
        annotation_file: the json; near it are its own folder and the one above.
        given: where to look instead.
    """
    above, beside = annotation_file.resolve().parent.parent, annotation_file.resolve().parent
    near = [above, beside] if given is None else [given]
    trees = [tree for folder in near for tree in tree_folders(folder)]
    parts = [tree / "Data" / task for tree in trees for task in ("VID", "DET")]
    folders = [*(part for part in parts if part.is_dir()), *trees]
    return [given, *folders] if given is not None else folders


def find_image_root(roots: Sequence[Path], file_names: Sequence[str]) -> Path | None:
    """Return the folder with most of a few of the files; None if none has any.

    Args:
        roots: the folders; of several with as many, the first.
        file_names: relative to the folder that is looked for.
    """
    some = file_names[:: max(1, len(file_names) // 20)]
    found = {root: sum(os.path.isfile(root / name) for name in some) for root in roots}
    best = max(found, key=lambda root: found[root])
    return best if found[best] else None
