"""The detectors that an analysis looks at: one, or a baseline and one."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from stpn_data.videos import VideoDataset
from stpn_tasks.detection.checkpoint import load_detector
from stpn_tasks.detection.inference import VideoInference
from stpn_tasks.detection.run import build_inference
from stpn_tasks.evaluate import model_names
from stpn_tasks.recipes import SupportOptions
from stpn_tasks.tables import environment


def open_models(
    files: Sequence[Path],
    videos: VideoDataset,
    accelerator: Accelerator,
    support: SupportOptions,
) -> dict[str, VideoInference]:
    """Return what runs each detector over videos, by the name that ``stpn eval`` gives it.

    Args:
        files: weights, the baseline's first.
        videos: annotated videos.
        accelerator: the device.
        support: other support frames than the recipes'.

    Raises:
        ValueError: if a file is no detector, or one that does not know the classes of the videos;
            names it.
    """
    models = {}
    for name, file in zip(model_names(files), files, strict=True):
        saved = load_detector(file)
        saved.check_classes(tuple(videos.classes), f"the detector in {file}")
        models[name] = build_inference(saved, accelerator, support)
    return models


def about_analysis(
    models: Mapping[str, VideoInference], files: Sequence[Path], accelerator: Accelerator
) -> dict[str, Any]:
    """Return what an analysis was made with: command, weights, commit, hardware."""
    return {
        "command": shlex.join(["stpn", *sys.argv[1:]]),
        "weights": {name: str(file) for name, file in zip(models, files, strict=True)},
        **environment(accelerator.device),
    }
