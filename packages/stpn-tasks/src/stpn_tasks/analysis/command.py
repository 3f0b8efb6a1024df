"""What ``stpn analyze`` does: look at detectors, write numbers and pictures, join the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.table import Table

from stpn_data.videos import VideoDataset
from stpn_tasks.analysis.cam import Cam, Focus, focus_by_condition, frame_cams, spread_frames
from stpn_tasks.analysis.cam_pictures import cam_section, focus_cells, save_cam
from stpn_tasks.analysis.models import about_analysis, open_models
from stpn_tasks.analysis.object_features import object_features
from stpn_tasks.analysis.targets import Target
from stpn_tasks.analysis.tsne import NUM_NEIGHBOURS, ClusterQuality, cluster_quality, project
from stpn_tasks.analysis.tsne_pictures import Plane, quality_cells, save_picture, tsne_section
from stpn_tasks.recipes import SupportOptions
from stpn_tasks.report.analyses import numbers_json, save_analysis
from stpn_tasks.report.command import RESULTS, report_folders
from stpn_tasks.report.strips import choose_strips

_NUM_STRIPS = 3


def analyse_cam(
    files: Sequence[Path],
    videos: VideoDataset,
    *,
    accelerator: Accelerator,
    support: SupportOptions,
    target: Target | None,
    num_frames: int,
    output: Path,
) -> Table:
    """Write EigenCAM of one detector, or of a baseline and a detector, side by side.

    Args:
        files: weights, the baseline's first.
        videos: annotated videos.
        accelerator: the device.
        support: other support frames than the recipes'.
        target: what the maps shall explain; EigenCAM without a target if not given.
        num_frames: key frames, spread evenly, that the numbers are of.
        output: folder for pictures and numbers.

    Returns:
        How much of the maps lies in annotated boxes.

    Raises:
        ValueError: if a file is no detector of these classes, or there is no frame.
    """
    frames = spread_frames(videos, num_frames)
    strips = choose_strips(videos)[:_NUM_STRIPS]
    models = open_models(files, videos, accelerator, support)
    focus, shown = {}, {}
    for name, inference in models.items():
        cams = list(frame_cams(inference, videos, frames, target))
        focus[name] = focus_by_condition(videos, cams)
        shown[name] = [
            list(frame_cams(inference, videos, {strip.video: strip.frames}, target))
            for strip in strips
        ]
    by_strip = [
        {name: of_model[place] for name, of_model in shown.items()} for place in range(len(strips))
    ]
    section = cam_section(videos, by_strip, focus, target)
    name = "cam" if target is None else f"cam-{target}"
    for model, strips_of_model in shown.items():
        for cam in (cam for of_strip in strips_of_model for cam in of_strip):
            save_cam(output / name / _file_name(videos, cam, model), videos, cam)
    about = about_analysis(models, files, accelerator)
    save_analysis(output, name, about, {"in_boxes": _json(focus)}, [section])
    return _focus_table(focus)


def analyse_tsne(
    files: Sequence[Path],
    videos: VideoDataset,
    *,
    accelerator: Accelerator,
    support: SupportOptions,
    num_frames: int,
    seed: int,
    output: Path,
) -> Table:
    """Write t-SNE of the objects as one detector sees them, or a baseline and a detector.

    Args:
        files: weights, the baseline's first.
        videos: annotated videos.
        accelerator: the device.
        support: other support frames than the recipes'.
        num_frames: key frames, spread evenly, whose objects are shown.
        seed: of the projection.
        output: folder for pictures and numbers.

    Returns:
        How well the classes cluster.

    Raises:
        ValueError: if a file is no detector of these classes, or there are too few objects or
            classes.
    """
    frames = spread_frames(videos, num_frames)
    models = open_models(files, videos, accelerator, support)
    planes, qualities = {}, {}
    for name, inference in models.items():
        objects = object_features(inference, videos, frames)
        qualities[name] = cluster_quality(objects)
        planes[name] = Plane(objects, project(objects, seed))
    save_picture(output / "tsne.png", planes, videos.classes)
    section = tsne_section(planes, qualities, videos.classes)
    about = about_analysis(models, files, accelerator)
    save_analysis(output, "tsne", about, {"seed": seed, "clusters": _json(qualities)}, [section])
    return _quality_table(qualities)


def join_report(output: Path) -> Path | None:
    """Write the report of an evaluation anew, with what was analysed in the same folder.

    Returns:
        The page; ``None`` where the folder has no results of an evaluation.
    """
    if not (output / RESULTS).is_file():
        return None
    return report_folders([output], output / "report.html")


def _file_name(videos: VideoDataset, cam: Cam, model: str) -> str:
    """Return a name of letters that every file system takes."""
    name = f"{videos.videos[cam.video].name}-{cam.frame:06d}-{model}"
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name) + ".png"


def _json(models: Mapping[str, Mapping[str, Focus | ClusterQuality]]) -> dict[str, Any]:
    """Return the numbers of each group of each model as json can hold them."""
    return {
        model: {group: numbers_json(one) for group, one in of_model.items()}
        for model, of_model in models.items()
    }


def _focus_table(focus: Mapping[str, Mapping[str, Focus]]) -> Table:
    rows = {
        model: {condition: focus_cells(one) for condition, one in of_model.items()}
        for model, of_model in focus.items()
    }
    return _table("frames", ("in boxes", "area", "number"), rows)


def _quality_table(qualities: Mapping[str, Mapping[str, ClusterQuality]]) -> Table:
    rows = {
        model: {group: quality_cells(one) for group, one in of_model.items()}
        for model, of_model in qualities.items()
    }
    columns = ("silhouette", f"{NUM_NEIGHBOURS}-NN", "commonest", "number")
    return _table("objects", columns, rows)


def _table(
    what: str, columns: Sequence[str], cells: Mapping[str, Mapping[str, Sequence[str]]]
) -> Table:
    """Return a table with a row for each group and model.

    Args:
        what: is in a group.
        columns: names of the numbers.
        cells: by group, by model.
    """
    table = Table()
    for name in (what, "model"):
        table.add_column(name, no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right")
    for group in next(iter(cells.values())):
        for model, by_group in cells.items():
            table.add_row(group, model, *by_group[group])
    return table
