"""The stages of one seed: pretraining, the single-frame detector, fine-tuning, tests.

Each stage leaves its result in the seed's folder and is not repeated where that is there.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stpn_data.deteriorated import DeterioratedVideo, RenderOptions
from stpn_tasks.comparison.options import Scale
from stpn_tasks.comparison.protocol import (
    CLIPS,
    SINGLE_FRAME,
    TEST_SETS,
    Row,
    Training,
    fine_tuning,
)
from stpn_tasks.comparison.seeds import Seed
from stpn_tasks.comparison.workers import line
from stpn_tasks.detection.build import build_detector
from stpn_tasks.detection.checkpoint import initialise, load_detector, save_detector
from stpn_tasks.detection.data import build_clips, build_collate
from stpn_tasks.detection.detections import Detections, save_detections
from stpn_tasks.detection.detector import VideoDetector
from stpn_tasks.detection.evaluation import evaluate_detector
from stpn_tasks.detection.pretraining import pretrain_on_crops
from stpn_tasks.detection.run import build_inference, centre_predictor
from stpn_tasks.engine import train
from stpn_tasks.recipes import DetectionRecipe, small_baseline
from stpn_tasks.results import Run, run_from_json, run_json
from stpn_tasks.tables import environment, read_json, write_json

TEST_BATCH = 16
# Weaker detections count in the evaluation, but nobody draws them.
KEPT_SCORE = 0.05


class Workspace(Seed[Scale]):
    """One seed's folder, data and hardware."""

    def train_videos(self, clips: RenderOptions) -> DeterioratedVideo:
        """Render training clips, or open them."""
        return DeterioratedVideo(
            self.cache,
            split="train",
            num_videos=self.scale.train_videos,
            options=clips,
            seed=self.seed,
        )

    def test_videos(self) -> dict[str, DeterioratedVideo]:
        """Render the clips of every test set, or open them."""
        return {
            name: DeterioratedVideo(
                self.cache,
                split="test",
                num_videos=self.scale.test_videos,
                options=options,
                seed=self.seed,
            )
            for name, options in TEST_SETS.items()
        }

    def numbers(self, row: str) -> Path:
        """Return where the numbers of a row lie."""
        return self.folder / row / "run.json"

    def detections(self, row: str, test_set: str) -> Path:
        """Return where the detections of a row lie."""
        return self.folder / row / f"detections-{test_set}.npz"


def train_single_frame(space: Workspace) -> None:
    """Pretrain a backbone on object crops, then train the single-frame detector from it.

    Raises:
        ValueError: if weights of another recipe lie there, or what was trained from weights that
            are gone; names them.
    """
    space.refuse_orphans(SINGLE_FRAME)
    weights = space.weights(SINGLE_FRAME)
    recipe = fine_tuning(small_baseline(), space.scale.detector_steps)
    recipe = replace(recipe, seed=space.seed)
    if weights.exists():
        _check_recipe(weights, recipe)
        return
    videos = space.train_videos(CLIPS)
    detector = build_detector(recipe, len(videos.classes))
    pretrain_on_crops(
        detector.encoder.backbone,
        videos,
        space.scale.crop_steps,
        accelerator=space.accelerator(),
        seed=space.seed,
        title=f"seed {space.seed}, crops",
        line=line(),
    )
    _fit(space, detector, recipe, videos, SINGLE_FRAME, time.process_time())
    save_detector(weights, detector.cpu(), recipe, videos.classes)


def _fit(
    space: Workspace,
    detector: VideoDetector,
    recipe: DetectionRecipe,
    videos: DeterioratedVideo,
    name: str,
    start: float,
) -> None:
    """Train, and write how long it took and the losses beside where the weights will be.

    ``start`` is the processor time (s) that counts as the beginning.
    """
    losses = train(
        detector,
        build_clips(recipe, videos),
        build_collate(recipe),
        recipe.optim,
        accelerator=space.accelerator(),
        seed=recipe.seed,
        title=f"seed {space.seed}, {name}",
        line=line(),
    )
    steps = (recipe.optim.epoch_size or 0) // recipe.optim.batch_size
    seconds = round(time.process_time() - start, 1)
    values = {
        "steps": steps,
        "cpu_seconds": seconds,
        "losses": losses[-1],
        "environment": environment(space.device),
    }
    write_json(space.folder / name / "training.json", values)


def fine_tune_and_test(
    space: Workspace, training: Training | None, rows: Sequence[Row]
) -> dict[str, Run]:
    """Fine-tune the single-frame detector and test it in every way that some rows ask for.

    Args:
        space: the seed.
        training: what to fine-tune; ``None`` tests the single-frame detector as it is.
        rows: how to test; all have this training.

    Returns:
        The numbers of each row, by its name.

    Raises:
        ValueError: if weights of another recipe lie where these would; names their file.
    """
    name = SINGLE_FRAME if training is None else training.name
    if training is not None:
        _fine_tune(space, training, rows)
    about = read_json(space.folder / name / "training.json")
    return {row.name: _test(space, row, name, about) for row in rows}


def _fine_tune(space: Workspace, training: Training, rows: Sequence[Row]) -> None:
    weights = space.weights(training.name)
    recipe = replace(training.recipe, seed=space.seed)
    if weights.exists():
        _check_recipe(weights, recipe)
        return
    for row in rows:  # of weights that are no longer there
        space.numbers(row.name).unlink(missing_ok=True)
    videos = space.train_videos(training.clips or CLIPS)
    detector = build_detector(recipe, len(videos.classes))
    initialise(detector, space.weights(SINGLE_FRAME))
    start = time.process_time()
    centre_predictor(detector, recipe, videos, space.accelerator().device)
    _fit(space, detector, recipe, videos, training.name, start)
    save_detector(weights, detector.cpu(), recipe, videos.classes)


def _check_recipe(weights: Path, recipe: DetectionRecipe) -> None:
    if load_detector(weights).recipe != recipe:
        raise ValueError(
            f"{weights} was trained by another recipe than this one: remove its folder, or choose "
            f"another output folder"
        )


def _test(space: Workspace, row: Row, weights: str, about: dict[str, Any]) -> Run:
    path = space.numbers(row.name)
    if path.exists():
        return run_from_json(read_json(path))
    accelerator = space.accelerator()
    inference = build_inference(load_detector(space.weights(weights)), accelerator, row.support)
    precision = {}
    for name, videos in space.test_videos().items():
        evaluation = evaluate_detector(
            inference,
            videos,
            accelerator=accelerator,
            batch_size=TEST_BATCH,
            title=f"seed {space.seed}, test {row.name}, {name}",
            line=line(),
        )
        precision[name] = evaluation.precision
        drawn = {
            number: [_confident(found) for found in video]
            for number, video in evaluation.detections.items()
        }
        save_detections(space.detections(row.name, name), drawn)
    run = Run(space.seed, precision)
    if row.training is not None:
        run = replace(run, steps=int(about["steps"]), cpu_seconds=about["cpu_seconds"])
    write_json(path, run_json(run))
    return run


def _confident(found: Detections) -> Detections:
    kept = found.scores >= KEPT_SCORE
    return Detections(found.boxes_xyxy[kept], found.scores[kept], found.labels[kept])
