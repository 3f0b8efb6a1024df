"""The stages of one seed: the backbone on crops, the first segmenter, trainings, tests.

Each stage leaves its result in the seed's folder and is not repeated where that is there.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from stpn_data.deteriorated import DeterioratedSegmentation
from stpn_data.youtube_vis_json import to_youtube_vis
from stpn_tasks.comparison.rows import cpu_seconds, forget_tests, train_once
from stpn_tasks.comparison.seeds import Seed
from stpn_tasks.comparison.workers import line
from stpn_tasks.detection.pretraining import pretrain_on_crops
from stpn_tasks.segmentation.association import AssociationOptions
from stpn_tasks.segmentation.build import build_segmenter
from stpn_tasks.segmentation.checkpoint import load_segmenter, save_segmenter
from stpn_tasks.segmentation.command import evaluation_json
from stpn_tasks.segmentation.comparison.protocol import (
    ASSOCIATED,
    ASSOCIATIONS,
    BACKBONE,
    ROWS,
    SEGMENTER,
    Row,
    SegmentationScale,
    first_segmenter,
    training_recipe,
)
from stpn_tasks.segmentation.evaluation import evaluate_segmenter
from stpn_tasks.segmentation.inference import build_inference
from stpn_tasks.segmentation.recipes import SegmentationRecipe
from stpn_tasks.segmentation.training import train_segmenter
from stpn_tasks.segmentation.truth_file import parse_truth
from stpn_tasks.tables import read_json, write_json

TEST_BATCH = 15


class SegmentationSeed(Seed[SegmentationScale]):
    """One seed's folder, video and hardware."""

    def train_videos(self) -> DeterioratedSegmentation:
        """Render the clips to train on, or open them."""
        return self._videos("train", self.scale.train_videos)

    def test_videos(self) -> DeterioratedSegmentation:
        """Render the clips to test on, or open them."""
        return self._videos("test", self.scale.test_videos)

    def _videos(self, split: Literal["train", "test"], number: int) -> DeterioratedSegmentation:
        return DeterioratedSegmentation(self.cache, split=split, num_videos=number, seed=self.seed)

    def numbers(self, test: str) -> Path:
        """Return where the numbers of a test lie."""
        return self.folder / "tests" / f"{test}.json"


def train_first(space: SegmentationSeed) -> None:
    """Pretrain a backbone on object crops, then train the first segmenter from it.

    Raises:
        ValueError: if weights of another recipe lie there, or what was trained from weights that
            are gone; names them.
    """
    space.refuse_orphans(BACKBONE)
    space.refuse_orphans(SEGMENTER, before=[BACKBONE])
    recipe = first_segmenter(space.scale, space.seed)
    start = space.weights(BACKBONE)
    if not start.exists():
        videos = space.train_videos()
        segmenter = build_segmenter(recipe, len(videos.classes))
        pretrain_on_crops(
            segmenter.encoder.backbone,
            videos,
            space.scale.crop_steps,
            accelerator=space.accelerator(),
            seed=space.seed,
            title=f"seed {space.seed}, crops",
            line=line(),
        )
        save_segmenter(start, segmenter.cpu(), recipe, videos.classes)
    train_one(space, SEGMENTER, replace(recipe, init=start))


def train_one(space: SegmentationSeed, name: str, recipe: SegmentationRecipe) -> None:
    """Train by a recipe, unless that was done.

    Raises:
        ValueError: if weights of another recipe lie there; names the file.
    """
    path = space.weights(name)
    train_once(
        path,
        recipe,
        device=space.device,
        read_recipe=lambda path: load_segmenter(path).recipe,
        train=lambda: train_segmenter(
            recipe,
            space.train_videos(),
            path.parent,
            accelerator=space.accelerator(),
            title=f"seed {space.seed}, {name}",
            line=line(),
        ),
    )


def train_and_test(space: SegmentationSeed, training: str) -> dict[str, Any]:
    """Train the first segmenter on, and test it in every way that rows of this training ask for.

    Returns:
        The numbers of each row, by its name: "video", "frames", "windows" and "headroom" in
        percent, and with other associations "video" and "windows".
    """
    recipe = training_recipe(training, space.scale, space.seed, space.weights(SEGMENTER))
    rows = [row for row in ROWS if row.training == training]
    if not space.weights(training).exists():
        for row in rows:  # of weights that are no longer there
            forget_tests(space.folder, row.name)
    train_one(space, training, recipe)
    seconds = cpu_seconds(space.weights(training))
    steps = (recipe.optim.epoch_size or 0) // recipe.optim.batch_size
    found: dict[str, Any] = {}
    for row in rows:
        numbers = _test(space, row, "MinVIS", headroom=True)
        found[row.name] = {"steps": steps, "cpu_seconds": seconds, **numbers}
        if row.name in ASSOCIATED:
            found[row.name]["associations"] = {
                name: _test(space, row, name) for name in ASSOCIATIONS if name != "MinVIS"
            }
    return found


def _test(
    space: SegmentationSeed, row: Row, association: str, *, headroom: bool = False
) -> dict[str, Any]:
    name = f"{row.name}-{association.replace(' ', '-')}"
    path = space.numbers(name)
    if not path.exists():
        numbers = _evaluate(space, row, ASSOCIATIONS[association], name, headroom=headroom)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, numbers)
    found: dict[str, Any] = read_json(path)
    return found


def _evaluate(
    space: SegmentationSeed,
    row: Row,
    association: AssociationOptions,
    name: str,
    *,
    headroom: bool,
) -> dict[str, Any]:
    accelerator = space.accelerator()
    videos = space.test_videos()
    saved = load_segmenter(space.weights(row.training))
    evaluation = evaluate_segmenter(
        build_inference(saved, accelerator.device, row.support),
        videos,
        parse_truth(to_youtube_vis(videos), "generated"),
        accelerator=accelerator,
        headroom=headroom,
        association=association,
        batch_size=TEST_BATCH,
        title=f"seed {space.seed}, {name}",
        line=line(),
    )
    return evaluation_json(evaluation)
