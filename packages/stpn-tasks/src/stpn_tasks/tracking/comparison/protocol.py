"""The protocol: what is trained, what it is compared with, and how it is tested.

One backbone, taught on crops to tell objects apart; every tracker is trained from it, on the same
samples in the same order. They differ in nothing but what their names say; equal compute takes more
samples, in another order. Each is tested on single steps from the true place, and as an online
tracker.

Prompts are there from the first step on: trained into a tracker that already finds what its
templates show, they went unused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from stpn_data.deteriorated.tracking_options import TrackingOptions
from stpn_tasks.comparison.rows import BASELINE, EQUAL_COMPUTE, OTHER, STPN, ComparedRow
from stpn_tasks.tracking.recipes import (
    TrackingRecipe,
    TrackPromptRecipe,
    small,
    small_baseline,
)

# What is trained on: the target keeps its look for long, so that few samples ask for a look that no
# template shows. With more of them little is learned of identity.
TRAIN_SEQUENCES = TrackingOptions(change_start=(0.55, 0.75))
# What is tested on: half of the frames show another look than the first.
TEST_SEQUENCES = replace(TRAIN_SEQUENCES, change_start=(0.25, 0.45))

Support = Literal["own", "other", "off"]
Template = Literal["first", "recent"]


@dataclass(frozen=True)
class TrackingScale:
    """How much a comparison renders and trains.

    Attributes:
        train_sequences: to train on.
        test_sequences: unseen ones.
        crop_steps: steps of teaching the backbone.
        tracker_steps: steps of every tracker but the next.
        equal_compute: steps of the baseline for about as long as STPN takes, as a multiple of
            ``tracker_steps``; results tell the measured processor time of both.
        score_steps: steps of the score module of each.
    """

    train_sequences: int
    test_sequences: int
    crop_steps: int
    tracker_steps: int
    equal_compute: float
    score_steps: int


SCALES = {
    "quick": TrackingScale(1500, 96, 300, 8000, 1.35, 200),
    "full": TrackingScale(3000, 192, 600, 12000, 1.35, 400),
    "smoke": TrackingScale(4, 2, 2, 2, 2.0, 2),
}


@dataclass(frozen=True)
class Row(ComparedRow):
    """One row of the comparison.

    Attributes:
        support: whose crops support in testing.
    """

    support: Support = "own"


ROWS = (
    Row(BASELINE, "baseline", "Plain MixFormer, trained for as many steps.", BASELINE, "off"),
    Row(
        EQUAL_COMPUTE,
        "baseline, equal compute",
        "Plain MixFormer, trained for about as long as STPN takes.",
        EQUAL_COMPUTE,
        "off",
    ),
    Row(STPN, "STPN", "Prompts from earlier crops of the sequence's own target.", STPN),
    Row(
        OTHER,
        "STPN, another video",
        "Trained and tested with support crops of another sequence: the same network and compute, "
        "without the information.",
        OTHER,
        "other",
    ),
    Row("stpn_off", "STPN, prompts off", "STPN's weights, tested without prompts.", STPN, "off"),
    Row(
        "stpn_other_tested",
        "STPN, tested with another video",
        "STPN's weights, tested with support crops of another sequence.",
        STPN,
        "other",
    ),
)

# What is compared with what, row by row, on the same sequences.
DIFFERENCES = (
    (STPN, BASELINE),
    (STPN, EQUAL_COMPUTE),
    (STPN, OTHER),
    (STPN, "stpn_other_tested"),
    (STPN, "stpn_off"),
)


def training_recipe(name: str, scale: TrackingScale, seed: int, start: Path) -> TrackingRecipe:
    """Return how a tracker is trained.

    Args:
        name: one of ``BASELINE``, ``EQUAL_COMPUTE``, ``STPN`` and ``OTHER``.
        scale: how long.
        seed: of samples and new weights.
        start: weights that all begin with, the backbone's taught on crops.
    """
    recipe = small() if name in (STPN, OTHER) else small_baseline()
    prompts: TrackPromptRecipe = recipe.prompts
    if name == OTHER:
        prompts = replace(prompts, support_video="other")
    network = replace(recipe.network, mixformer=start)
    steps = scale.tracker_steps
    if name == EQUAL_COMPUTE:
        steps = round(steps * scale.equal_compute)
    recipe = replace(recipe, seed=seed, network=network, prompts=prompts)
    score = replace(recipe.score, epoch_size=scale.score_steps * recipe.score.batch_size)
    box = replace(recipe.box, epochs=1, epoch_size=steps * recipe.box.batch_size)
    return replace(recipe, box=box, score=score)
