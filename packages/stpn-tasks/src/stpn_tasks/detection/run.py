"""Training and evaluation of a recipe, from data on disk to files."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from stpn_data.videos import VideoDataset
from stpn_tasks.centring import centre_on_clips
from stpn_tasks.checkpoints import check_writable, has_checkpoint
from stpn_tasks.claims import claim_folder, claim_videos
from stpn_tasks.detection.build import build_detector, build_preparation, build_test_sampler
from stpn_tasks.detection.checkpoint import SavedDetector, initialise, save_detector
from stpn_tasks.detection.data import build_clips, build_collate
from stpn_tasks.detection.detector import VideoDetector
from stpn_tasks.detection.evaluation import DetectionEvaluation, evaluate_detector
from stpn_tasks.detection.inference import VideoInference
from stpn_tasks.engine import train
from stpn_tasks.recipe_json import to_json
from stpn_tasks.recipes import CHECKPOINT_EVERY, DetectionRecipe, SupportOptions
from stpn_tasks.tables import write_training


def train_detector(
    recipe: DetectionRecipe,
    videos: VideoDataset,
    output: Path,
    *,
    accelerator: Accelerator,
    num_workers: int = 0,
    checkpoint_every: int = CHECKPOINT_EVERY,
    accumulate: int = 1,
) -> Path:
    """Train the detector of a recipe and return the path of its weights.

    Begins where an earlier run in the same folder stopped, at its last whole checkpoint.

    Args:
        recipe: what to train and how.
        videos: annotated videos.
        output: folder for ``model.safetensors``, ``recipe.json``, ``data.json``,
            ``training.json`` and checkpoints.
        accelerator: devices and processes.
        num_workers: processes that load clips.
        checkpoint_every: steps from one checkpoint to the next.
        accumulate: micro-batches that a process makes of its clips of a step, to save memory.

    Raises:
        FloatingPointError: if a loss or a gradient is not finite; names the step.
        OSError: if a checkpoint cannot be written; names its folder, the reason and the last one.
        ValueError: if the folder holds a run of another recipe or on other data.
    """
    check_writable(output, accelerator)
    claim_folder(output, to_json(recipe), accelerator)
    claim_videos(output, videos, accelerator)
    start, resumed = time.perf_counter(), has_checkpoint(output / "checkpoints")
    detector = build_detector(recipe, len(videos.classes))
    if recipe.init is not None:
        differing = initialise(detector, recipe.init)
        names = ", ".join(differing) or "none"
        accelerator.print(f"begins from {recipe.init}; weights in only one of the two: {names}")
    centre_predictor(detector, recipe, videos, accelerator.device)
    history = train(
        detector,
        build_clips(recipe, videos),
        build_collate(recipe),
        recipe.optim,
        accelerator=accelerator,
        seed=recipe.seed,
        checkpoints=output / "checkpoints",
        checkpoint_every=checkpoint_every,
        accumulate=accumulate,
        num_workers=num_workers,
    )
    weights = output / "model.safetensors"
    if accelerator.is_main_process:
        save_detector(weights, detector.cpu(), recipe, tuple(videos.classes))
        write_training(output, history, start, resumed=resumed, device=accelerator.device)
    accelerator.wait_for_everyone()
    return weights


def centre_predictor(
    detector: VideoDetector, recipe: DetectionRecipe, videos: VideoDataset, device: torch.device
) -> None:
    """Centre a predictor before it is trained, on as many clips as its recipe says.

    The clips are a function of the recipe's seed.

    Raises:
        ValueError: if there is nothing to centre.
    """
    centre_on_clips(
        detector.to(device).eval().encoder,
        recipe.prompts,
        build_clips(recipe, videos),
        build_collate(recipe),
        seed=recipe.seed,
        device=device,
    )


def evaluate_saved(
    saved: SavedDetector,
    videos: VideoDataset,
    *,
    accelerator: Accelerator,
    support: SupportOptions,
    batch_size: int = 1,
    frames_per_pass: int = 1,
    motion_table: Path | None = None,
) -> DetectionEvaluation:
    """Evaluate a detector from a file.

    Raises:
        ValueError: if its classes are not the data set's, or the table of motion does not fit.
    """
    saved.check_classes(videos.classes)
    inference = build_inference(saved, accelerator, support, frames_per_pass)
    return evaluate_detector(
        inference,
        videos,
        accelerator=accelerator,
        batch_size=batch_size,
        motion_table=motion_table,
    )


def build_inference(
    saved: SavedDetector,
    accelerator: Accelerator,
    support: SupportOptions,
    frames_per_pass: int = 1,
) -> VideoInference:
    """Return what runs a detector from a file over videos, on the accelerator's device.

    Raises:
        ValueError: if static prompts shall be off, which are part of their network; or no frame
            shall pass it.
    """
    recipe = replace(saved.recipe, prompts=support.change(saved.recipe.prompts))
    prompts = recipe.prompts
    if support.off and prompts.predictor == "static":
        raise ValueError("support.off is for prompts of support frames, not for static ones")
    detector = saved.detector.to(accelerator.device)
    prepare = build_preparation(saved.recipe, accelerator.device)
    sampler = None if support.off else build_test_sampler(recipe)
    return VideoInference(detector, sampler, prepare, prompts.support_video, frames_per_pass)
