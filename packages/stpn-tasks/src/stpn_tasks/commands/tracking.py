"""Train, evaluate and predict: visual object tracking."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional
from tyro.extras import SubcommandApp

from stpn_tasks.commands.choices import Precision, Split
from stpn_tasks.commands.per_recipe import per_recipe
from stpn_tasks.recipes import CHECKPOINT_EVERY
from stpn_tasks.tracking.recipes import TRACKING_RECIPES, TrackingRecipe


def eval_tracking(
    weights: Path,
    data: str,
    split: Split = "val",
    output: Path = Path("tracking-results"),
    name: str | None = None,
    num_sequences: int | None = None,
    zip_test: bool = False,
    device: str | None = None,
) -> None:
    """Track all sequences of a data set and evaluate by GOT-10k's protocol: AO, SR0.5, SR0.75.

    Results are written in the toolkit's layout; those that are there are not tracked again.

    Args:
        weights: a model.safetensors that ``stpn train tracking`` wrote.
        data: "generated", the folder of GOT-10k, or a folder of your own sequences.
        split: which part of GOT-10k or generated data; without effect for own sequences.
        output: folder for results/ and reports/.
        name: of the tracker in these folders; that of the weights' folder if not given.
        num_sequences: how many generated sequences.
        zip_test: pack the results of GOT-10k's split test for its server, and evaluate nothing.
        device: "cpu" or "cuda"; chosen if not given.
    """
    from stpn_tasks.engine import main_process_first, make_accelerator
    from stpn_tasks.tables import print_table
    from stpn_tasks.tracking.command import evaluate_saved
    from stpn_tasks.tracking.data import open_sequences
    from stpn_tasks.weights_file import check_is_file

    check_is_file(weights)
    accelerator = make_accelerator(device)
    with main_process_first(accelerator):
        sequences = open_sequences(data, split, num_sequences=num_sequences)
    table = evaluate_saved(
        weights,
        sequences,
        output,
        name or weights.resolve().parent.name,
        accelerator=accelerator,
        data=data,
        split=split,
        zip_test=zip_test,
    )
    if accelerator.is_main_process:
        print_table(table)


def predict_tracking(
    video: Positional[Path],
    weights: Path,
    box: tuple[float, float, float, float],
    output: Path = Path("predictions"),
    fps: float = 25.0,
    device: str | None = None,
) -> None:
    """Follow a target through a video and write it with the box, and a json of the boxes.

    Args:
        video: a video file, or a folder of frames.
        weights: a model.safetensors that ``stpn train tracking`` wrote.
        box: x, y, width, height of the target in the first frame, in pixels.
        output: folder for NAME.mp4 and NAME.json.
        fps: frames per second, where the video does not say.
        device: "cpu" or "cuda"; chosen if not given.
    """
    from stpn_data.video import VideoReader
    from stpn_tasks.engine import make_accelerator
    from stpn_tasks.tracking.checkpoint import load_tracker
    from stpn_tasks.tracking.command import build_tracker
    from stpn_tasks.tracking.predict import predict_tracking as predict

    tracker = build_tracker(load_tracker(weights), make_accelerator(device).device)
    prediction = predict(tracker, VideoReader(video), box, output, fps=fps)
    print(f"{prediction.num_frames} frames: {prediction.video} {prediction.boxes}")
    if prediction.failure is not None:
        raise prediction.failure


def train_tracking_app() -> SubcommandApp:
    """Return one training command per recipe."""
    return per_recipe(TRACKING_RECIPES, _train_command)


def _train_command(default: TrackingRecipe) -> Callable[..., None]:
    """Return the command that trains a recipe, whose every value can be overridden."""

    def train_tracking(
        data: str,
        recipe: Annotated[TrackingRecipe, tyro.conf.arg(name="")] = default,
        split: Split = "train",
        output: Path = Path("runs/tracking"),
        num_sequences: int | None = None,
        num_workers: int = 2,
        checkpoint_every: int = CHECKPOINT_EVERY,
        accumulate: int = 1,
        mixed_precision: Precision = "no",
        device: str | None = None,
    ) -> None:
        """Train.

        Args:
            data: "generated", the folder of GOT-10k, or a folder of your own sequences.
            recipe: what to train and how.
            split: which part of GOT-10k or generated data; without effect for own sequences.
            output: folder for weights, losses and checkpoints; a run stopped there goes on.
            num_sequences: how many generated sequences.
            num_workers: processes that load samples.
            checkpoint_every: steps from one checkpoint to the next.
            accumulate: micro-batches that a process makes of its samples of a step.
            mixed_precision: arithmetic of the network.
            device: "cpu" or "cuda"; chosen if not given.
        """
        from stpn_tasks.engine import main_process_first, make_accelerator
        from stpn_tasks.tracking.data import open_sequences
        from stpn_tasks.tracking.training import train_tracker

        accelerator = make_accelerator(device, mixed_precision)
        with main_process_first(accelerator):
            sequences = open_sequences(data, split, num_sequences=num_sequences)
        weights = train_tracker(
            recipe,
            sequences,
            output,
            accelerator=accelerator,
            num_workers=num_workers,
            checkpoint_every=checkpoint_every,
            accumulate=accumulate,
        )
        if accelerator.is_main_process:
            print(f"weights: {weights}")

    return train_tracking
