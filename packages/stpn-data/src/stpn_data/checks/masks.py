"""Check a folder of frames and id masks: every frame, every mask."""

from __future__ import annotations

from pathlib import Path

from stpn_data.annotations import DataReport
from stpn_data.checks.subset import Subset, check_listed_images
from stpn_data.mask_folder import MaskFolder
from stpn_data.videos import DataError


def check_mask_folder(root: Path, report: DataReport, progress: bool) -> Subset:
    """Check frames and masks; return what was counted.

    Args:
        root: the folder with `JPEGImages` and `Annotations`.
        report: receives the problems.
        progress: show a bar.
    """
    subset = Subset(root.absolute().name, "id masks")
    try:
        layout = MaskFolder(root)
    except DataError as error:
        report.add("folder that cannot be read", str(error))
        return subset
    images = []
    for number, video in enumerate(layout.videos):
        tracks: set[int] = set()
        for index in range(video.num_frames):
            path = str(layout.image_path(number, index))
            images.append((path, layout.image_size(number, index)))
            try:
                objects = layout.boxes(number, index)
            except DataError as error:
                report.add("mask that cannot be read", str(error))
                continue
            subset.objects += len(objects)
            tracks |= {one.track_id for one in objects}
            subset.classes |= {
                layout.classes[one.label] for one in objects if one.label is not None
            }
        subset.tracks += len(tracks)
        subset.frames += video.num_frames
    subset.videos = len(layout.videos)
    check_listed_images(images, [root], report, subset.name if progress else None)
    return subset
