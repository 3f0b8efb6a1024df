"""Whose a run's folder is: notes of its recipe and data, and refuses those of another run."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

from accelerate import Accelerator

from stpn_data.sequences import TrackingDataset
from stpn_data.videos import VideoDataset
from stpn_tasks.files import write_text

# How many videos tell with their objects, too, which data they are of.
_LOOKED_INTO = 16


def claim_folder(output: Path, recipe: str, accelerator: Accelerator) -> None:
    """Write ``recipe.json`` into the output folder, unless another one is there.

    Args:
        output: folder of a run.
        recipe: its recipe as JSON text.
        accelerator: devices and processes.

    Raises:
        ValueError: if the folder holds a run of another recipe.
    """
    _claim(output / "recipe.json", recipe, "of another recipe", accelerator)


def claim_videos(output: Path, videos: VideoDataset, accelerator: Accelerator) -> None:
    """Write ``data.json`` into the output folder, unless one of other annotated videos is there.

    All names, sizes, lengths and key frames tell them, but objects of a few frames only: those of
    ImageNet VID are in a file per frame.

    Args:
        output: folder of a run.
        videos: its data.
        accelerator: devices and processes.

    Raises:
        DataError: if the objects of one of these frames cannot be read.
        ValueError: if the folder holds a run on other data.
    """
    checksum = hashlib.sha256()
    for one in videos.videos:
        values = (one.name, one.num_frames, one.height, one.width, one.key_frames)
        checksum.update(f"{values}\n".encode())
    number = len(videos.videos)
    for index in range(0, number, max(1, math.ceil(number / _LOOKED_INTO))):
        for frame in videos.videos[index].key_frames[:1]:
            objects = videos.objects(index, frame)
            checksum.update(objects.boxes_xyxy.tobytes() + objects.labels.tobytes())
    data = {"classes": list(videos.classes), "videos": number}
    _claim_data(output, data, checksum.hexdigest(), accelerator)


def claim_sequences(output: Path, sequences: TrackingDataset, accelerator: Accelerator) -> None:
    """Write ``data.json`` into the output folder, unless one of other sequences is there.

    All annotations tell them; an epoch is as long on any.

    Args:
        output: folder of a run.
        sequences: its data.
        accelerator: devices and processes.

    Raises:
        ValueError: if the folder holds a run on other data.
    """
    checksum = hashlib.sha256()
    for one in sequences.sequences:
        checksum.update(f"{one.name} {one.size} {one.num_frames}".encode())
        checksum.update(one.boxes_xywh.tobytes() + one.visible.tobytes())
    frames = sum(one.num_frames for one in sequences.sequences)
    data = {"sequences": len(sequences.sequences), "frames": frames}
    _claim_data(output, data, checksum.hexdigest(), accelerator)


def _claim_data(
    output: Path, data: Mapping[str, object], checksum: str, accelerator: Accelerator
) -> None:
    text = json.dumps({**data, "annotations": checksum[:16]}) + "\n"
    _claim(output / "data.json", text, "on other data", accelerator)


def _claim(path: Path, text: str, other: str, accelerator: Accelerator) -> None:
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise ValueError(
            f"{path.parent} holds a run {other}, see {path.name}: choose another output folder"
        )
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        write_text(path, text)
