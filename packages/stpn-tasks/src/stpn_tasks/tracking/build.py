"""From a tracking recipe to objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from stpn_backbones import read_state_dict
from stpn_data.sampling import CausalSampler
from stpn_data.sequences import TrackingDataset
from stpn_data.track_samples import TrackSamples
from stpn_data.track_sampling import CausalTrackSampler, TridentTrackSampler
from stpn_data.videos import DataError
from stpn_tasks.predictors import PREDICTORS
from stpn_tasks.recipes import OptimRecipe
from stpn_tasks.tracking.mixformer import MixFormer, create_mixformer
from stpn_tasks.tracking.options import TrackerOptions
from stpn_tasks.tracking.recipes import TrackingRecipe, TrackPromptRecipe
from stpn_tasks.tracking.samples import CropOptions, TrainingCrops
from stpn_tasks.tracking.weights import (
    initialise_backbone,
    load_mixformer_weights,
    own_name,
)

Stage = Literal["box", "score"]


def build_network(recipe: TrackingRecipe, *, score: bool, load_weights: bool = True) -> MixFormer:
    """Build the network of a recipe, with random or the recipe's initial weights.

    Random weights are a function of the recipe's seed; the state of torch's generator stays as
    it was.

    Args:
        recipe: what to build.
        score: with the score module, as in the second stage of training and after it.
        load_weights: load what the recipe names to begin with.

    Raises:
        ValueError: if options of the recipe exclude each other; names them.
    """
    network, prompts = recipe.network, recipe.prompts
    if network.cvt is not None and network.mixformer is not None:
        raise ValueError("network.cvt and network.mixformer are two beginnings: choose one")
    if prompts.ffn_dim is not None and prompts.predictor not in ("transformer", "none"):
        raise ValueError(f"prompts.ffn_dim must be None for the predictor {prompts.predictor!r}")
    options: dict[str, Any] = {"prompt_conv": network.prompt_conv}
    if network.drop_path_rate is not None:
        options["drop_path_rate"] = network.drop_path_rate
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed)
        built = create_mixformer(
            network.name,
            score=score,
            predictor=None if prompts.predictor == "none" else PREDICTORS[prompts.predictor],
            num_prompts=prompts.num_prompts,
            deep=prompts.deep,
            predictor_options={} if prompts.ffn_dim is None else {"ffn_dim": prompts.ffn_dim},
            prompt_gate=prompts.gate,
            **options,
        )
    if load_weights and network.cvt is not None:
        initialise_backbone(built, network.cvt)
    if load_weights and network.mixformer is not None:
        _begin_with(built, network.mixformer)
    return built


def _begin_with(network: MixFormer, path: Path) -> None:
    """Load another tracker's weights; what it has no weights for begins anew."""
    weights = read_state_dict(path, skip_objects=True)
    there = {own_name(key).partition(".")[0] for key in weights}
    parts = [part for part in ("score_head", "predictor") if getattr(network, part) is not None]
    load_mixformer_weights(network, weights, new=[part for part in parts if part not in there])


def build_samples(
    recipe: TrackingRecipe, sequences: TrackingDataset, stage: Stage, optim: OptimRecipe
) -> TrainingCrops:
    """Return the training crops of a stage: as many an epoch as its optimiser takes.

    Raises:
        DataError: if no sequence is long enough, or the score module has nothing to tell the
            target from.
        ValueError: if the recipe does not say how many.
    """
    if optim.epoch_size is None:
        raise ValueError(f"{stage}.epoch_size must be given: samples are drawn without end")
    sampler = (
        CausalTrackSampler(recipe.max_gap)
        if stage == "box"
        else TridentTrackSampler(recipe.max_gap)
    )
    samples = TrackSamples(sequences, sampler, optim.epoch_size, recipe.seed)
    if stage == "score" and not samples.has_negatives:
        raise DataError(
            f"{sequences.sequences[samples.usable[0]].name} is the only sequence that is long "
            "enough, and its target is always visible: the score module would learn that every "
            "crop has the target. Give more sequences, or train without it, has_score = False "
            "(--no-has-score)"
        )
    return TrainingCrops(samples, crop_options(recipe))


def crop_options(recipe: TrackingRecipe) -> CropOptions:
    """Return how the recipe's crops are cut in training."""
    crops = recipe.crops
    return CropOptions(
        template_size=crops.template_size,
        template_factor=crops.template_factor,
        search_size=crops.search_size,
        search_factor=crops.search_factor,
        scale_jitter=crops.scale_jitter,
        centre_jitter=crops.centre_jitter,
        grey=crops.grey,
        brightness=crops.brightness,
        support=_support(recipe.prompts),
        support_video=recipe.prompts.support_video,
        support_crop=recipe.prompts.support_crop,
    )


def build_tracker_options(recipe: TrackingRecipe) -> TrackerOptions:
    """Return how the recipe's tracker follows a target."""
    crops, follow = recipe.crops, recipe.follow
    return TrackerOptions(
        template_size=crops.template_size,
        template_factor=crops.template_factor,
        search_size=crops.search_size,
        search_factor=follow.search_factor,
        online_size=follow.online_size,
        update_interval=follow.update_interval,
        score_decay=follow.score_decay,
        lost_score=follow.lost_score,
        support=_support(recipe.prompts) or CausalSampler(),
        support_crop=recipe.prompts.support_crop,
    )


def _support(prompts: TrackPromptRecipe) -> CausalSampler | None:
    if prompts.predictor == "none":
        return None
    return CausalSampler(prompts.num_support, prompts.stride)
