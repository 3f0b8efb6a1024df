"""From a recipe's backbone and prompts to an encoder and the samplers of its support frames."""

from __future__ import annotations

from stpn_backbones import PromptedSwin, create_backbone
from stpn_core import PromptPredictor, StaticPrompts, TransformerPredictor, VideoEncoder
from stpn_data.sampling import (
    BilateralRandomSampler,
    CausalSampler,
    VideoUniformSampler,
    WindowSampler,
)
from stpn_tasks.predictors import PREDICTORS
from stpn_tasks.recipes import BackboneRecipe, PromptRecipe


def build_encoder(
    backbone: BackboneRecipe, prompts: PromptRecipe, *, load_weights: bool
) -> tuple[VideoEncoder, PromptedSwin]:
    """Build an encoder, with weights drawn by torch's generator or the recipe's initial ones.

    Args:
        backbone: what to build.
        prompts: the predictor to build with it.
        load_weights: load the weights that the backbone names.

    Returns:
        The encoder, and the backbone in it, which tells a head its maps.

    Raises:
        ValueError: if options of the recipe exclude each other; names them.
    """
    swin = _build_backbone(backbone, load_weights)
    predictor = _build_predictor(prompts, swin)
    return VideoEncoder(swin, predictor, support_grad=prompts.support_grad), swin


def _build_backbone(recipe: BackboneRecipe, load_weights: bool) -> PromptedSwin:
    names = ("embed_dim", "depths", "num_heads", "window_size")
    sizes = {name: getattr(recipe, name) for name in names}
    return create_backbone(
        recipe.name,
        pretrained=recipe.pretrained and load_weights,
        weights=recipe.weights if load_weights else None,
        prompt_merging=recipe.prompt_merging,
        drop_path_rate=recipe.drop_path_rate,
        **{name: value for name, value in sizes.items() if value is not None},
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


def training_sampler(prompts: PromptRecipe) -> BilateralRandomSampler:
    """Return the sampler of support frames in training."""
    return BilateralRandomSampler(prompts.frame_range, prompts.num_support)


def inference_sampler(prompts: PromptRecipe) -> WindowSampler | CausalSampler | VideoUniformSampler:
    """Return the sampler of support frames in testing.

    Raises:
        ValueError: if a window shall have an odd number of them.
    """
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
