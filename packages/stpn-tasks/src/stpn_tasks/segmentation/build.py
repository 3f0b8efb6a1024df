"""From a segmentation recipe to objects."""

from __future__ import annotations

import dataclasses

import torch

from stpn_data.sampling import BilateralRandomSampler
from stpn_tasks.encoder_build import build_encoder, inference_sampler, training_sampler
from stpn_tasks.recipes import SupportOptions
from stpn_tasks.segmentation.head import Mask2FormerHead
from stpn_tasks.segmentation.losses import MaskCriterion
from stpn_tasks.segmentation.recipes import SegmentationRecipe
from stpn_tasks.segmentation.segmenter import MinVIS
from stpn_tasks.video_encoding import FramePreparation, TestSampler


def build_segmenter(
    recipe: SegmentationRecipe, num_classes: int, *, load_weights: bool = True
) -> MinVIS:
    """Build the segmenter of a recipe, with random weights or those that its backbone names.

    Random weights are a function of the recipe's seed, those of the head whatever prompts there
    are; the state of torch's generator stays as it was.

    Args:
        recipe: what to build.
        num_classes: K, without no-object.
        load_weights: load the backbone weights that the recipe names.

    Raises:
        ValueError: if options of the recipe exclude each other; names them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed)
        encoder, backbone = build_encoder(
            recipe.backbone, recipe.prompts, load_weights=load_weights
        )
        torch.default_generator.manual_seed(recipe.seed)
        head = Mask2FormerHead(
            backbone.out_channels, num_classes, **dataclasses.asdict(recipe.head)
        )
    return MinVIS(encoder, head, MaskCriterion(num_points=recipe.num_points))


def build_train_sampler(recipe: SegmentationRecipe) -> BilateralRandomSampler | None:
    """Return the sampler of support frames in training; ``None`` if they have no say."""
    return training_sampler(recipe.prompts) if recipe.prompts.reads_support else None


def check_support(recipe: SegmentationRecipe, support: SupportOptions) -> None:
    """Raise ValueError if an option chooses support frames of a segmenter that reads none."""
    chosen = [
        f"support.{field.name}"
        for field in dataclasses.fields(support)
        if field.name != "off" and getattr(support, field.name) is not None
    ]
    if chosen and not recipe.prompts.reads_support:
        raise ValueError(
            f"{chosen[0]} is for prompts of support frames, which the segmenter does not have"
        )


def build_test_sampler(recipe: SegmentationRecipe) -> TestSampler:
    """Return the sampler of support frames in testing; ``None`` if they have no say."""
    return inference_sampler(recipe.prompts) if recipe.prompts.reads_support else None


def build_preparation(recipe: SegmentationRecipe, device: torch.device) -> FramePreparation:
    """Return what turns raw frames into the segmenter's input in testing."""
    images = recipe.images
    return FramePreparation(images.test_size, images.max_size, images.size_divisor, device)
