"""What ``stpn eval segmentation`` does: segment, compare, write results."""

from __future__ import annotations

import dataclasses
import math
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.table import Table

from stpn_data.videos import VideoDataset
from stpn_data.youtube_vis_json import youtube_vis_ids
from stpn_tasks.checkpoints import check_writable
from stpn_tasks.metrics import VideoPrediction, YtvisPrecision
from stpn_tasks.recipes import SupportOptions
from stpn_tasks.segmentation.association import AssociationOptions
from stpn_tasks.segmentation.build import check_support
from stpn_tasks.segmentation.checkpoint import SavedSegmenter, load_segmenter
from stpn_tasks.segmentation.data import GENERATED, Split, check_annotated, open_truth, part_of
from stpn_tasks.segmentation.evaluation import (
    WINDOW_FRAMES,
    SegmentationEvaluation,
    evaluate_segmenter,
    find_in_videos,
)
from stpn_tasks.segmentation.findings import Questions
from stpn_tasks.segmentation.inference import build_inference
from stpn_tasks.segmentation.results_file import write_results
from stpn_tasks.tables import environment, write_json

PROTOCOL = "YouTube-VIS AP in percent, of masks over whole videos; frames count as videos of one"
_COLUMNS = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ar1": "AR1", "ar10": "AR10"}
_CONDITIONS = ("all", "deteriorated", "clean")


def evaluate_saved(
    weights: Path,
    data: str,
    videos: VideoDataset,
    *,
    accelerator: Accelerator,
    split: Split,
    support: SupportOptions,
    association: AssociationOptions = AssociationOptions(),  # noqa: B008
    headroom: bool = False,
    batch_size: int = 1,
    frames_per_pass: int = 1,
    output: Path | None = None,
) -> SegmentationEvaluation:
    """Evaluate a segmenter from a file; write its predictions and numbers.

    Args:
        weights: the file.
        data: what `open_videos` opened.
        videos: what it returned.
        accelerator: devices and processes.
        split: which part of the data; said in ``evaluation.json`` where it has parts.
        support: other support frames than the recipe's.
        association: how objects are followed from frame to frame.
        headroom: also tell what association and classes cost.
        batch_size: videos of one size and length to run side by side.
        frames_per_pass: frames of each video that pass the network together.
        output: folder for ``results.json``, as YouTube-VIS' server has it, and
            ``evaluation.json``; neither if not given.

    Raises:
        ValueError: the file is no segmenter, knows other classes or reads no support frames to
            choose, or annotations are missing or cannot be used.
        OSError: the folder cannot be written; this shows before the work.
    """
    start = time.perf_counter()
    about = environment(accelerator.device)
    saved = _load(weights, videos, support)
    check_annotated(videos, data, "an evaluation; --zip-test packs predictions for the server")
    if output is not None:
        check_writable(output, accelerator)
    evaluation = evaluate_segmenter(
        build_inference(saved, accelerator.device, support, frames_per_pass),
        videos,
        open_truth(data, videos),
        accelerator=accelerator,
        headroom=headroom,
        association=association,
        batch_size=batch_size,
    )
    if output is not None and accelerator.is_main_process:
        write_results(output / "results.json", records(videos, evaluation.predictions))
        about |= {
            "command": shlex.join(["stpn", *sys.argv[1:]]),
            # A folder's name as given, such as ".", may say nothing elsewhere.
            "data": data if data in GENERATED else str(Path(data).resolve()),
            "split": part_of(data, split),
            "num_videos": len(videos.videos),
            "protocol": PROTOCOL,
            "minutes": round((time.perf_counter() - start) / 60, 2),
        }
        write_json(output / "evaluation.json", {"about": about, **evaluation_json(evaluation)})
    return evaluation


def zip_predictions(
    weights: Path,
    videos: VideoDataset,
    output: Path,
    *,
    accelerator: Accelerator,
    support: SupportOptions,
    association: AssociationOptions = AssociationOptions(),  # noqa: B008
    batch_size: int = 1,
    frames_per_pass: int = 1,
) -> Path:
    """Segment videos, annotated or not, and pack the predictions as the server takes them.

    Returns:
        ``results.zip`` in the output folder, which holds ``results.json`` alone.

    Raises:
        ValueError: the file is no segmenter, knows other classes or reads no support frames to
            choose, or a frame cannot be read.
        OSError: the folder cannot be written; this shows before the work.
    """
    saved = _load(weights, videos, support)
    check_writable(output, accelerator)
    found = find_in_videos(
        build_inference(saved, accelerator.device, support, frames_per_pass),
        videos,
        lambda _: Questions(association=association),
        accelerator=accelerator,
        batch_size=batch_size,
    )
    path = output / "results.zip"
    if accelerator.is_main_process:
        write_results(path, records(videos, [findings.video for findings in found]))
    return path


def evaluation_title(data: str, split: Split) -> str:
    """Return what to print above the numbers: the protocol, the data and which part of it."""
    part = part_of(data, split)
    return f"{PROTOCOL}; {data}" + (f" ({part})" if part else "")


def _load(weights: Path, videos: VideoDataset, support: SupportOptions) -> SavedSegmenter:
    """Return a segmenter from a file that fits the videos and the options."""
    saved = load_segmenter(weights)
    saved.check_classes(videos.classes)
    check_support(saved.recipe, support)
    return saved


def records(videos: VideoDataset, predictions: list[list[VideoPrediction]]) -> list[dict[str, Any]]:
    """Return the entries of ``results.json``."""
    return [
        {
            "video_id": video_id,
            "category_id": one.category,
            "score": one.score,
            "segmentations": list(one.masks),
        }
        for video_id, of_video in zip(youtube_vis_ids(videos)[0], predictions, strict=True)
        for one in of_video
    ]


def evaluation_table(evaluation: SegmentationEvaluation) -> Table:
    """Return a table of what an evaluation found, in percent."""
    rows = {"videos": evaluation.video}
    rows |= {
        f"{name} frames": evaluation.frames[name]
        for name in _CONDITIONS
        if name in evaluation.frames
    }
    if evaluation.windows is not None:
        name = f"{evaluation.num_windows} windows of {WINDOW_FRAMES} frames, none clean"
        rows[name] = evaluation.windows
    if evaluation.headroom:
        rows["videos, tracks by annotations"] = evaluation.headroom["oracle"]
        rows["videos, no classes"] = evaluation.headroom["video, no classes"]
        of_frames = {name: f"{name} frames, no classes" for name in _CONDITIONS}
        rows |= {
            name: evaluation.headroom[name]
            for name in of_frames.values()
            if name in evaluation.headroom
        }
    table = Table()
    table.add_column("of", no_wrap=True)
    for name in _COLUMNS.values():
        table.add_column(name, justify="right")
    for name, precision in rows.items():
        table.add_row(name, *(_percent(getattr(precision, field)) for field in _COLUMNS))
    return table


def evaluation_json(evaluation: SegmentationEvaluation) -> dict[str, Any]:
    """Return what an evaluation found as json can hold it: percent, null without an object."""
    windows = {} if evaluation.windows is None else {"windows": evaluation.windows}
    return {
        "video": _of_json(evaluation.video),
        "frames": {name: _of_json(one) for name, one in evaluation.frames.items()},
        **{name: _of_json(one) for name, one in windows.items()},
        "num_windows": evaluation.num_windows,
        "headroom": {name: _of_json(one) for name, one in evaluation.headroom.items()},
    }


def _of_json(precision: YtvisPrecision) -> dict[str, Any]:
    return {
        name: {key: _rounded(one) for key, one in value.items()}
        if isinstance(value, Mapping)
        else _rounded(value)
        for name, value in dataclasses.asdict(precision).items()
    }


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(100 * value, 3)


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"
