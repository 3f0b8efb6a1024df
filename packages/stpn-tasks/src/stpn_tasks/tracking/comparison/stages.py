"""The stages of one seed: the backbone on crops, trackers from it, tests.

Each stage leaves its result in the seed's folder and is not repeated where that is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from stpn_data.deteriorated import DeterioratedTracking, TrackingOptions
from stpn_tasks.comparison.rows import BASELINE, cpu_seconds, forget_tests, train_once
from stpn_tasks.comparison.seeds import Seed
from stpn_tasks.comparison.workers import line
from stpn_tasks.engine import train
from stpn_tasks.files import atomic_path
from stpn_tasks.recipes import OptimRecipe
from stpn_tasks.tracking.build import build_network
from stpn_tasks.tracking.checkpoint import SavedTracker, load_tracker, save_tracker
from stpn_tasks.tracking.comparison.protocol import (
    ROWS,
    TEST_SEQUENCES,
    TRAIN_SEQUENCES,
    Row,
    Template,
    TrackingScale,
    training_recipe,
)
from stpn_tasks.tracking.comparison.testing import Bar, single_steps, summary, track_all
from stpn_tasks.tracking.one_step import FrameOverlaps
from stpn_tasks.tracking.pretraining import ObjectPairs, PairMatcher, collate_pairs
from stpn_tasks.tracking.recipes import TrackingRecipe, small_baseline
from stpn_tasks.tracking.training import train_tracker

BACKBONE = "backbone"
PAIR_SEQUENCES = 12  # of a step: about 60 objects


class TrackingSeed(Seed[TrackingScale]):
    """One seed's folder, sequences and hardware."""

    def train_sequences(self) -> DeterioratedTracking:
        """Render the sequences to train on, or open them."""
        return self._sequences("train", self.scale.train_sequences, TRAIN_SEQUENCES)

    def test_sequences(self) -> DeterioratedTracking:
        """Render the sequences to test on, or open them."""
        return self._sequences("test", self.scale.test_sequences, TEST_SEQUENCES)

    def _sequences(
        self, split: Literal["train", "test"], number: int, options: TrackingOptions
    ) -> DeterioratedTracking:
        return DeterioratedTracking(
            self.cache, split=split, num_sequences=number, options=options, seed=self.seed
        )

    def found(self, name: str) -> Path:
        """Return where the overlaps of a test lie."""
        return self.folder / "tests" / f"{name}.npz"


def train_backbone(space: TrackingSeed) -> None:
    """Teach a backbone on crops, unless that was done.

    Raises:
        ValueError: if it is gone, but trackers that began with it are there; names them.
    """
    space.refuse_orphans(BACKBONE)
    start = space.weights(BACKBONE)
    if start.exists():
        return
    recipe = replace(small_baseline(), seed=space.seed, has_score=False)
    network = build_network(recipe, score=False)
    optim = OptimRecipe(
        lr=1e-3,
        batch_size=PAIR_SEQUENCES,
        epochs=1,
        epoch_size=PAIR_SEQUENCES * space.scale.crop_steps,
        warmup_steps=min(30, space.scale.crop_steps),
        schedule="cosine",
    )
    crops = recipe.crops
    pairs = ObjectPairs(
        space.train_sequences(),
        crops.template_size,
        crops.template_factor,
        optim.epoch_size or 0,
        space.seed,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(space.seed)
        matcher = PairMatcher(network.backbone)
    train(
        matcher,
        pairs,
        collate_pairs,
        optim,
        accelerator=space.accelerator(),
        seed=space.seed,
        title=f"seed {space.seed}, crops",
        line=line(),
    )
    save_tracker(start, network.cpu(), recipe)


def train_one(space: TrackingSeed, name: str, recipe: TrackingRecipe) -> None:
    """Train by a recipe, unless that was done.

    Raises:
        ValueError: if weights of another recipe lie there; names the file.
    """
    path = space.weights(name)
    train_once(
        path,
        recipe,
        device=space.device,
        read_recipe=lambda path: load_tracker(path).recipe,
        train=lambda: train_tracker(
            recipe,
            space.train_sequences(),
            path.parent,
            accelerator=space.accelerator(),
            title=f"seed {space.seed}, {name}",
            line=line(),
        ),
    )


def train_and_test(space: TrackingSeed, training: str) -> dict[str, Any]:
    """Train a tracker, and test it in every way that rows of this training ask for.

    Returns:
        What each row gave, by its name: of single steps and of online tracking, with the first
        template alone and with renewed ones, by condition, in percent.
    """
    recipe = training_recipe(training, space.scale, space.seed, space.weights(BACKBONE))
    rows = [row for row in ROWS if row.training == training]
    if not space.weights(training).exists():
        for row in rows:  # of weights that are no longer there
            forget_tests(space.folder, row.name)
        if training == BASELINE:
            forget_tests(space.folder, "gate")
    train_one(space, training, recipe)
    saved = load_tracker(space.weights(training))
    seconds = cpu_seconds(space.weights(training))
    about = {"steps": (recipe.box.epoch_size or 0) // recipe.box.batch_size, "cpu_seconds": seconds}
    return {row.name: {**about, **_test(space, saved, row)} for row in rows}


def gate(space: TrackingSeed) -> Mapping[str, Any]:
    """Return what the baseline finds in single steps with the template of another sequence."""
    saved = load_tracker(space.weights("baseline"))
    test = partial(
        single_steps,
        saved,
        space.test_sequences(),
        template="first",
        support="off",
        accelerator=space.accelerator(),
        seed=space.seed,
        first_of="other",
    )
    return summary(_once(space, "gate-other_template", test))


def _test(space: TrackingSeed, saved: SavedTracker, row: Row) -> dict[str, Any]:
    dataset = space.test_sequences()
    accelerator = space.accelerator()
    found: dict[str, Any] = {}
    templates: tuple[Template, ...] = ("first", "recent")
    for template in templates:
        step = partial(
            single_steps,
            saved,
            dataset,
            template=template,
            support=row.support,
            accelerator=accelerator,
            seed=space.seed,
        )
        track = partial(
            track_all,
            saved,
            dataset,
            online=template == "recent",
            support=row.support,
            device=accelerator.device,
        )
        found[f"step_{template}"] = summary(_once(space, f"{row.name}-step-{template}", step))
        found[f"track_{template}"] = summary(_once(space, f"{row.name}-track-{template}", track))
    return found


def _once(space: TrackingSeed, name: str, test: Callable[..., FrameOverlaps]) -> FrameOverlaps:
    """Test, or read what the test gave before."""
    path = space.found(name)
    if not path.exists():
        found = test(bar=Bar(f"seed {space.seed}, {name}", line()))
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial:
            np.savez_compressed(
                partial,
                overlaps=found.overlaps,
                sequences=found.sequences,
                conditions=np.array([" ".join(sorted(names)) for names in found.conditions]),
            )
    return read_overlaps(path)


def read_overlaps(path: Path) -> FrameOverlaps:
    """Read the overlaps that a test left.

    Raises:
        OSError: the file cannot be read.
        KeyError: it holds something else.
    """
    with np.load(path) as arrays:
        conditions = tuple(frozenset(names.split()) for names in arrays["conditions"].tolist())
        return FrameOverlaps(arrays["overlaps"], arrays["sequences"], conditions)
