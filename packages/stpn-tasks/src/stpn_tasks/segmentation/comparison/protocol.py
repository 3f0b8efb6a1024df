"""The protocol: what is trained, what it is compared with, and how it is tested.

One backbone, pretrained on object crops; one segmenter without prompts trained from it; from its
weights every training goes on, on the same clips in the same order. They differ in nothing but what
their names say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from stpn_tasks.comparison.rows import BASELINE, EQUAL_COMPUTE, OTHER, STPN, ComparedRow
from stpn_tasks.recipes import SupportOptions
from stpn_tasks.segmentation.association import AssociationOptions
from stpn_tasks.segmentation.recipes import SegmentationRecipe, small, small_baseline

BACKBONE, SEGMENTER = "backbone", "segmenter"


@dataclass(frozen=True)
class SegmentationScale:
    """How much a comparison renders and trains.

    Attributes:
        train_videos: clips to train on.
        test_videos: unseen clips.
        crop_steps: steps of pretraining the backbone on crops.
        segmenter_steps: steps of the segmenter that all begin with.
        finetune_steps: further steps, the same for every training but the next.
        equal_compute: further steps of the baseline for about as long as STPN takes, as a multiple
            of ``finetune_steps``; results tell the measured processor time of both.
    """

    train_videos: int
    test_videos: int
    crop_steps: int
    segmenter_steps: int
    finetune_steps: int
    equal_compute: float


SCALES = {
    "quick": SegmentationScale(1400, 100, 500, 2200, 600, 1.6),
    "full": SegmentationScale(4000, 300, 1000, 12_000, 3000, 1.6),
    "smoke": SegmentationScale(4, 3, 2, 2, 2, 1.5),
}

# How tracks go on: as in MinVIS, and three ways beyond it.
ASSOCIATIONS = {
    "MinVIS": AssociationOptions(),
    "and masks": AssociationOptions(mask_weight=1.0),
    "running mean": AssociationOptions(momentum=0.8),
    "both": AssociationOptions(mask_weight=1.0, momentum=0.8),
}


@dataclass(frozen=True)
class Row(ComparedRow):
    """One row of the comparison.

    Attributes:
        support: other support frames in testing than the recipe's.
    """

    support: SupportOptions = SupportOptions()


ROWS = (
    Row(BASELINE, "baseline", "MinVIS, trained on for as many steps.", BASELINE),
    Row(
        EQUAL_COMPUTE,
        "baseline, equal compute",
        "MinVIS, trained on for about as long as STPN takes.",
        EQUAL_COMPUTE,
    ),
    Row(STPN, "STPN", "Prompts from the clip's own frames.", STPN),
    Row(
        OTHER,
        "STPN, another video",
        "Trained and tested with support frames of another video: the same network and compute, "
        "without the information.",
        OTHER,
    ),
    Row(
        "stpn_off",
        "STPN, prompts off",
        "STPN's weights, tested without prompts.",
        STPN,
        SupportOptions(off=True),
    ),
    Row(
        "stpn_other_tested",
        "STPN, tested with another video",
        "STPN's weights, tested with support frames of another video.",
        STPN,
        SupportOptions(support_video="other"),
    ),
)

# Rows that are also tested with every association.
ASSOCIATED = (BASELINE, EQUAL_COMPUTE, STPN)


def first_segmenter(scale: SegmentationScale, seed: int) -> SegmentationRecipe:
    """Return how the segmenter is trained that all others begin with."""
    return _steps(replace(small_baseline(), seed=seed), scale.segmenter_steps)


def training_recipe(
    name: str, scale: SegmentationScale, seed: int, start: Path
) -> SegmentationRecipe:
    """Return how a training goes on.

    Args:
        name: one of ``BASELINE``, ``EQUAL_COMPUTE``, ``STPN`` and ``OTHER``.
        scale: how long.
        seed: of the order and of new weights.
        start: weights of the first segmenter.
    """
    recipe = replace(small() if name in (STPN, OTHER) else small_baseline(), seed=seed, init=start)
    if name == OTHER:
        recipe = replace(recipe, prompts=replace(recipe.prompts, support_video="other"))
    steps = scale.finetune_steps
    if name == EQUAL_COMPUTE:
        steps = round(steps * scale.equal_compute)
    return _steps(recipe, steps)


def _steps(recipe: SegmentationRecipe, steps: int) -> SegmentationRecipe:
    optim = replace(recipe.optim, epochs=1, epoch_size=steps * recipe.optim.batch_size)
    return replace(recipe, optim=optim)
