"""Evaluate detectors from files on the same frames, for ``stpn eval``."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator

from stpn_data.videos import VideoDataset
from stpn_tasks.detection.checkpoint import load_detector
from stpn_tasks.detection.evaluation import DetectionEvaluation
from stpn_tasks.detection.run import build_inference, evaluate_saved
from stpn_tasks.recipes import SupportOptions
from stpn_tasks.report.build import evaluation_report
from stpn_tasks.results import save_results
from stpn_tasks.tables import environment

COCO_PROTOCOL = "COCO box AP in percent, at most 100 detections a frame and class"


def vid_protocol(motion_table: Path | None) -> str:
    """Name the protocol of ImageNet VID, and where the motion of the objects comes from."""
    source = "the tracks" if motion_table is None else str(motion_table)
    return f"ImageNet VID AP50 in percent, all objects and by motion IoU of {source}"


def evaluate_files(
    files: Sequence[Path],
    videos: VideoDataset,
    *,
    accelerator: Accelerator,
    support: SupportOptions,
    batch_size: int,
    frames_per_pass: int = 1,
    motion_table: Path | None,
    output: Path | None,
    title: str,
) -> dict[str, DetectionEvaluation]:
    """Evaluate one detector, or a baseline and a detector, and write results and report.

    Args:
        files: weights, the baseline's first.
        videos: annotated videos.
        accelerator: devices and processes.
        support: other support frames than the recipes'.
        batch_size: videos of one size and length to run side by side.
        frames_per_pass: frames of each video that pass the network together.
        motion_table: the official ``.mat`` with the motion of the objects, which otherwise comes
            from their tracks.
        output: folder for ``results.json`` and ``report.html``; neither if not given.
        title: of the report.

    Returns:
        What was found, by the names of the models: the folders of their files.

    Raises:
        ValueError: if a detector does not know the classes of the videos, or the table of motion
            does not fit them.
    """
    start = time.perf_counter()
    about = environment(accelerator.device)
    names = model_names(files)
    saved = [load_detector(file) for file in files]
    evaluations = {
        name: evaluate_saved(
            one,
            videos,
            accelerator=accelerator,
            support=support,
            batch_size=batch_size,
            frames_per_pass=frames_per_pass,
            motion_table=motion_table,
        )
        for name, one in zip(names, saved, strict=True)
    }
    if output is not None and accelerator.is_main_process:
        results = evaluation_report(
            output / "report.html",
            evaluations,
            videos,
            build_inference(saved[-1], accelerator, support),
            title=title,
            about={
                "command": shlex.join(["stpn", *sys.argv[1:]]),
                "protocol": {"precision": COCO_PROTOCOL, "vid": vid_protocol(motion_table)},
                "num_frames": evaluations[names[-1]].num_frames,
                "minutes": round((time.perf_counter() - start) / 60, 2),
                **about,
            },
            descriptions={
                name: f"Weights {file}." for name, file in zip(names, files, strict=True)
            },
            seed=saved[-1].recipe.seed,
        )
        save_results(output / "results.json", results)
    return evaluations


def model_names(files: Sequence[Path]) -> list[str]:
    """Name files by their folders, or by their whole paths where these are the same.

    Raises:
        ValueError: if a file is there twice: its numbers would stand for two models.
    """
    resolved = [file.resolve() for file in files]
    if doubled := [file for file in files if resolved.count(file.resolve()) > 1]:
        raise ValueError(f"a file is compared with itself: {' and '.join(map(str, doubled))}")
    names = [file.resolve().parent.name for file in files]
    return names if len(set(names)) == len(names) else [str(file) for file in files]
