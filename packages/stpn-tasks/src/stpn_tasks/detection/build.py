"""From a recipe to objects."""

from __future__ import annotations

import dataclasses

import torch

from stpn_backbones import PromptedSwin, create_backbone
from stpn_core import (
    PromptPredictor,
    StaticPrompts,
    TransformerPredictor,
    VideoEncoder,
)
from stpn_data.sampling import (
    BilateralRandomSampler,
    CausalSampler,
    VideoUniformSampler,
    WindowSampler,
)
from stpn_tasks.detection.detector import SelsaDetector, VideoDetector
from stpn_tasks.detection.faster_rcnn import FasterRCNN
from stpn_tasks.detection.inference import FramePreparation, TestSampler
from stpn_tasks.detection.selsa import SelsaRCNN
from stpn_tasks.predictors import PREDICTORS
from stpn_tasks.recipes import BackboneRecipe, DetectionRecipe, PromptRecipe, SelsaRecipe


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
        backbone = _build_backbone(recipe.backbone, load_weights)
        predictor = _build_predictor(prompts, backbone)
        encoder = VideoEncoder(backbone, predictor, support_grad=prompts.support_grad)
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


def _build_backbone(recipe: BackboneRecipe, load_weights: bool) -> PromptedSwin:
    widths = {name: getattr(recipe, name) for name in ("embed_dim", "depths", "num_heads")}
    return create_backbone(
        recipe.name,
        pretrained=recipe.pretrained and load_weights,
        weights=recipe.weights if load_weights else None,
        prompt_merging=recipe.prompt_merging,
        drop_path_rate=recipe.drop_path_rate,
        **{name: value for name, value in widths.items() if value is not None},
    )


def _build_predictor(
    recipe: PromptRecipe, backbone: PromptedSwin
) -> PromptPredictor | StaticPrompts | None:
    if recipe.predictor == "none":
        return None
    if recipe.predictor == "transformer":
        return TransformerPredictor.for_backbone(
            backbone, recipe.num_prompts, deep=recipe.deep, ffn_dim=recipe.ffn_dim
        )
    if recipe.ffn_dim is not None:
        raise ValueError(f"prompts.ffn_dim must be None for the predictor {recipe.predictor!r}")
    if recipe.predictor == "static":
        return StaticPrompts.for_backbone(backbone, recipe.num_prompts, deep=recipe.deep)
    return PREDICTORS[recipe.predictor].for_backbone(backbone, recipe.num_prompts, deep=recipe.deep)


def build_train_sampler(recipe: DetectionRecipe) -> BilateralRandomSampler | None:
    """Return the sampler of support frames in training; ``None`` if they have no say."""
    prompts = recipe.prompts
    if not recipe.reads_support:
        return None
    return BilateralRandomSampler(prompts.frame_range, prompts.num_support)


def build_test_sampler(recipe: DetectionRecipe) -> TestSampler:
    """Return the sampler of support frames in testing; ``None`` if they have no say."""
    prompts = recipe.prompts
    if not recipe.reads_support:
        return None
    if prompts.test_sampler == "causal":
        return CausalSampler(prompts.test_support, prompts.stride)
    if prompts.test_sampler == "uniform":
        return VideoUniformSampler(prompts.test_support)
    if prompts.test_support % 2:
        raise ValueError(
            f"prompts.test_support must be even for a window, half a side, "
            f"got {prompts.test_support}"
        )
    on_grid = prompts.test_sampler == "grid"
    return WindowSampler(prompts.test_support // 2, prompts.stride, on_grid=on_grid)


def build_preparation(recipe: DetectionRecipe, device: torch.device) -> FramePreparation:
    """Return what turns raw frames into the detector's input in testing."""
    images = recipe.images
    return FramePreparation(images.test_size, images.max_size, images.size_divisor, device)
