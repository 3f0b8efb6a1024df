"""From a recipe to objects."""

from __future__ import annotations

import dataclasses

import torch

from stpn_data.sampling import BilateralRandomSampler
from stpn_tasks.detection.detector import SelsaDetector, VideoDetector
from stpn_tasks.detection.faster_rcnn import FasterRCNN
from stpn_tasks.detection.selsa import SelsaRCNN
from stpn_tasks.encoder_build import build_encoder, inference_sampler, training_sampler
from stpn_tasks.recipes import DetectionRecipe, SelsaRecipe
from stpn_tasks.video_encoding import FramePreparation, TestSampler


def build_detector(
    recipe: DetectionRecipe, num_classes: int, *, load_weights: bool = True
) -> VideoDetector:
    """Build the detector of a recipe, with random or the recipe's initial weights.

    Random weights are a function of the recipe's seed; the state of torch's generator stays as
    it was.

    Args:
        recipe: what to build.
        num_classes: object classes, without background.
        load_weights: load the backbone weights that the recipe names; not needed before a
            checkpoint of the whole detector is loaded.

    Raises:
        ValueError: if options of the recipe exclude each other; names them.
    """
    prompts, selsa = recipe.prompts, recipe.selsa
    _check_selsa(recipe)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed)
        encoder, backbone = build_encoder(recipe.backbone, prompts, load_weights=load_weights)
        maps, settings = backbone.out_channels, dataclasses.asdict(recipe.head)
        settings["strides"] = backbone.strides
        if recipe.detector == "faster-rcnn":
            return VideoDetector(encoder, FasterRCNN(maps, num_classes, **settings))
        return SelsaDetector(
            encoder,
            SelsaRCNN(maps, num_classes, num_heads=selsa.num_heads, **settings),
            prompted_references=selsa.references == "prompted",
            reference_grad=selsa.reference_grad,
        )


def _check_selsa(recipe: DetectionRecipe) -> None:
    if recipe.detector != "selsa" and recipe.selsa != SelsaRecipe():
        raise ValueError(f"options of selsa are for detector 'selsa', not for {recipe.detector!r}")
    if recipe.selsa.references == "prompted" and recipe.prompts.predictor == "none":
        raise ValueError("selsa.references must be 'plain' for the predictor 'none'")


def build_train_sampler(recipe: DetectionRecipe) -> BilateralRandomSampler | None:
    """Return the sampler of support frames in training; ``None`` if they have no say."""
    return training_sampler(recipe.prompts) if recipe.reads_support else None


def build_test_sampler(recipe: DetectionRecipe) -> TestSampler:
    """Return the sampler of support frames in testing; ``None`` if they have no say."""
    return inference_sampler(recipe.prompts) if recipe.reads_support else None


def build_preparation(recipe: DetectionRecipe, device: torch.device) -> FramePreparation:
    """Return what turns raw frames into the detector's input in testing."""
    images = recipe.images
    return FramePreparation(images.test_size, images.max_size, images.size_divisor, device)
