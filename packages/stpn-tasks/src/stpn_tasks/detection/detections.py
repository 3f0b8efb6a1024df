"""What a detector returns: boxes of one image, and the losses of a batch."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from stpn_tasks.files import atomic_path


@dataclass(frozen=True)
class Detections:
    """Hold the detections of one image, best score first.

    Attributes:
        boxes_xyxy: float32 absolute pixels.
        scores: probability of the label, float32.
        labels: class indices from 0.
    """

    boxes_xyxy: Float[Tensor, "n 4"]
    scores: Float[Tensor, " n"]
    labels: Int64[Tensor, " n"]


@dataclass(frozen=True)
class DetectionLosses:
    """Hold the four losses of a batch, float32 scalars.

    Attributes:
        rpn_objectness: binary cross entropy of the sampled anchors.
        rpn_box: smooth L1 of the positive anchors.
        roi_classification: cross entropy of the sampled regions.
        roi_box: smooth L1 of the positive regions, in the row of their class.
    """

    rpn_objectness: Float[Tensor, ""]
    rpn_box: Float[Tensor, ""]
    roi_classification: Float[Tensor, ""]
    roi_box: Float[Tensor, ""]

    @property
    def total(self) -> Tensor:
        """Sum the four losses, each with weight 1."""
        return self.rpn_objectness + self.rpn_box + self.roi_classification + self.roi_box


def save_detections(path: Path, detections: Mapping[int, Sequence[Detections]]) -> None:
    """Write the detections of every frame of some videos, by video number, as a ``.npz``."""
    frames = [found for video in detections.values() for found in video]
    arrays = {
        "videos": np.array(list(detections), np.int64),
        "num_frames": np.array([len(video) for video in detections.values()], np.int64),
        "counts": np.array([len(found.scores) for found in frames], np.int64),
        "boxes_xyxy": torch.cat([found.boxes_xyxy for found in frames]).numpy(),
        "scores": torch.cat([found.scores for found in frames]).numpy(),
        "labels": torch.cat([found.labels for found in frames]).numpy(),
    }
    with atomic_path(path) as partial:
        np.savez_compressed(partial, allow_pickle=False, **arrays)


def load_detections(path: Path) -> dict[int, list[Detections]]:
    """Read what ``save_detections`` wrote.

    Raises:
        ValueError: if the file is missing or damaged; names it.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            counts = arrays["counts"].tolist()
            boxes, scores, labels = (
                torch.from_numpy(arrays[name]).split(counts)
                for name in ("boxes_xyxy", "scores", "labels")
            )
            videos, num_frames = arrays["videos"].tolist(), arrays["num_frames"].tolist()
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a whole file of detections: {error}") from error
    frames = iter(zip(boxes, scores, labels, strict=True))
    return {
        video: [Detections(*next(frames)) for _ in range(length)]
        for video, length in zip(videos, num_frames, strict=True)
    }
