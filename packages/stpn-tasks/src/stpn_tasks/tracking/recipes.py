"""What tracker to train and how: inert values, one function per published number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from stpn_tasks.recipes import OptimRecipe
from stpn_tasks.tracking.options import SupportCrop


@dataclass(frozen=True)
class NetworkRecipe:
    """MixFormer.

    Attributes:
        name: size of the network.
        cvt: weights of a CvT trained on images to begin with: a file, or a name that
            ``stpn_backbones.create_backbone`` knows, then of the hub; none if not given.
        mixformer: a tracker's checkpoint to begin with instead, the authors' or ours; a predictor
            or score module that it lacks begins anew.
        prompt_conv: how prompts pass the convolutions before queries, keys and values.
        drop_path_rate: stochastic depth of the last layer; the size's own if not given.
    """

    name: Literal["cvt_21", "cvt_w24", "small"] = "cvt_21"
    cvt: str | None = None
    mixformer: Path | None = None
    prompt_conv: Literal["bypass", "image", "padded_image"] = "bypass"
    drop_path_rate: float | None = None


@dataclass(frozen=True)
class TrackPromptRecipe:
    """The dynamic video prompts of a tracker; no source tells K and S, they are detection's.

    Attributes:
        predictor: which of the four predictors makes them; "none" is plain MixFormer.
        num_prompts: prompts per frame (N_P); a square number.
        ffn_dim: hidden width of the transformer predictor; a quarter of its width if not given.
        deep: prompts for every transformer layer instead of the first only.
        num_support: K, earlier frames whose crops support a frame.
        stride: S, frames between them.
        support_crop: what of an earlier frame supports: the crop that was "searched" in there, or
            around the "target" alone, see `TrackerOptions`.
        support_video: whose crops support in training: the "own" sequence's, or as a control those
            of an "other" one.
        centre_samples: training samples whose mean support token the predictor's reduction takes to
            zero at the start; 0 leaves it as drawn.
        gate: how much prompts weigh at first, see ``MixFormer``; as any token if not given.
    """

    predictor: Literal["transformer", "mixer", "attention", "average", "none"] = "transformer"
    num_prompts: int = 9
    ffn_dim: int | None = None
    deep: bool = False
    num_support: int = 7
    stride: int = 8
    support_crop: SupportCrop = "searched"
    support_video: Literal["own", "other"] = "own"
    centre_samples: int = 0
    gate: float | None = None


@dataclass(frozen=True)
class CropRecipe:
    """Crops of templates and of what is searched in.

    Attributes:
        template_size: rows and columns of a template.
        template_factor: its side in the frame, by the mean side of the target.
        search_size: rows and columns of a search crop; a multiple of 32.
        search_factor: its side in the frame in training.
        scale_jitter: spread of the logarithm of the target's sides in training.
        centre_jitter: the target's centre is off by up to half of this, in mean sides.
        grey: share of the samples in training whose crops are all grey.
        brightness: a crop's factor in training is 1 - brightness .. 1 + brightness.
    """

    template_size: int = 128
    template_factor: float = 2.0
    search_size: int = 320
    search_factor: float = 5.0
    scale_jitter: float = 0.5
    centre_jitter: float = 4.5
    grey: float = 0.05
    brightness: float = 0.2


@dataclass(frozen=True)
class FollowRecipe:
    """How the trained tracker follows a target; see ``TrackerOptions``.

    Attributes:
        search_factor: side of the search crop in the frame.
        online_size: online templates that are kept.
        update_interval: frames from one online template to the next; none if not given.
        score_decay: factor of the best score at every frame.
        lost_score: below it, the target counts as lost.
    """

    search_factor: float = 4.55
    online_size: int = 2
    update_interval: int | None = 10
    score_decay: float = 0.98
    lost_score: float = 0.5


def _box_stage() -> OptimRecipe:
    return OptimRecipe(
        lr=1e-4,
        backbone_factor=0.1,
        weight_decay=1e-4,
        batch_size=64,
        epochs=500,
        epoch_size=60_000,
        warmup_steps=0,
        decay_epoch=400,
        clip_norm=0.1,
    )


def _score_stage() -> OptimRecipe:
    return replace(_box_stage(), batch_size=256, epochs=40, decay_epoch=30)


@dataclass(frozen=True)
class TrackingRecipe:
    """Visual object tracking, trained in two stages.

    Attributes:
        network: MixFormer.
        prompts: the dynamic video prompts.
        crops: of templates and of what is searched in.
        follow: how the trained tracker follows a target.
        max_gap: frames between templates and search frame in training.
        box: the first stage: all but the score module, on the losses of boxes.
        place_weight: in it, of the cross entropy of the corners' cells, which is ours: from random
            weights and a few minutes, boxes alone do not learn to choose among equal objects.
        score: the second stage: the score module alone.
        has_score: with a score module; without it there is no second stage.
        seed: of weights, samples and augmentation.
    """

    network: NetworkRecipe = field(default_factory=NetworkRecipe)
    prompts: TrackPromptRecipe = field(default_factory=TrackPromptRecipe)
    crops: CropRecipe = field(default_factory=CropRecipe)
    follow: FollowRecipe = field(default_factory=FollowRecipe)
    max_gap: int = 200
    place_weight: float = 0.0
    box: OptimRecipe = field(default_factory=_box_stage)
    score: OptimRecipe = field(default_factory=_score_stage)
    has_score: bool = True
    seed: int = 0


def stpn_22k() -> TrackingRecipe:
    """STPN on MixFormer, CvT-21 from ImageNet-22k, trained on GOT-10k.

    stpn train tracking stpn-22k --data GOT-10k

    The paper: AO 71.8, SR0.5 81.6, SR0.75 69.0 on GOT-10k's test split, 8 GPUs. Not run by us.
    """
    return TrackingRecipe(network=NetworkRecipe(cvt="cvt_21.384_22k"))


def mixformer_22k() -> TrackingRecipe:
    """Plain MixFormer from the same start as ``stpn_22k``.

    stpn train tracking mixformer-22k --data GOT-10k

    The paper's baseline: AO 70.7, SR0.5 80.0, SR0.75 67.8. Not run by us.
    """
    return replace(stpn_22k(), prompts=TrackPromptRecipe(predictor="none"))


def stpn_1k() -> TrackingRecipe:
    """STPN on MixFormer, CvT-21 from ImageNet-1k, trained on GOT-10k.

    stpn train tracking stpn-1k --data GOT-10k

    The paper: AO 72.7, SR0.5 81.9, SR0.75 67.7; whether MixFormer-1k saw GOT-10k alone is not
    known. Not run by us.
    """
    follow = FollowRecipe(online_size=3, score_decay=1.0)
    box = replace(_box_stage(), backbone_factor=1.0)
    return TrackingRecipe(network=NetworkRecipe(cvt="cvt_21"), follow=follow, box=box)


def mixformer_1k() -> TrackingRecipe:
    """Plain MixFormer from the same start as ``stpn_1k``.

    stpn train tracking mixformer-1k --data GOT-10k

    The paper's baseline: AO 71.2, SR0.5 79.9, SR0.75 65.8. Not run by us.
    """
    return replace(stpn_1k(), prompts=TrackPromptRecipe(predictor="none"))


def small() -> TrackingRecipe:
    """A small STPN tracker for two CPU cores, on generated sequences.

    stpn train tracking small --data generated

    ``stpn demo tracking`` trains it from a backbone taught on crops; there it gains nothing over
    the baseline (docs/protocols.md).
    """
    optim = OptimRecipe(
        lr=1e-3,
        predictor_factor=5.0,
        weight_decay=1e-4,
        batch_size=16,
        epochs=1,
        epoch_size=16 * 6000,
        warmup_steps=50,
        schedule="cosine",
        clip_norm=1.0,
    )
    return TrackingRecipe(
        network=NetworkRecipe(name="small"),
        prompts=TrackPromptRecipe(
            ffn_dim=128,
            deep=True,
            num_support=4,
            stride=3,
            support_crop="target",
            centre_samples=128,
        ),
        crops=CropRecipe(
            template_size=64,
            search_size=128,
            search_factor=5.0,
            scale_jitter=0.2,
            centre_jitter=4.0,
            grey=0.0,
            brightness=0.05,
        ),
        follow=FollowRecipe(search_factor=5.0, online_size=1, update_interval=6, score_decay=1.0),
        max_gap=10,
        place_weight=1.0,
        box=optim,
        score=replace(optim, epoch_size=16 * 300),
    )


def small_baseline() -> TrackingRecipe:
    """The small tracker without prompts.

    stpn train tracking small-baseline --data generated

    With ``stpn demo tracking``: AO 23 on its sequences, 21 more points of one-step SR0.5 in the new
    look with a recent template.
    """
    recipe = small()
    return replace(recipe, prompts=TrackPromptRecipe(predictor="none"))


def gpu_small() -> TrackingRecipe:
    """STPN on CvT-21 from random weights, on generated sequences, for hours of one GPU.

    stpn train tracking gpu-small --data generated --num-sequences 10000

    Not run by us.
    """
    recipe = small()
    optim = replace(recipe.box, lr=5e-4, batch_size=64, epoch_size=64 * 40_000, warmup_steps=1000)
    return replace(
        recipe,
        network=NetworkRecipe(name="cvt_21"),
        prompts=replace(recipe.prompts, ffn_dim=None),
        crops=replace(recipe.crops, template_size=96, search_size=192, scale_jitter=0.5),
        box=optim,
        score=replace(optim, epoch_size=64 * 4000),
    )


def gpu_small_baseline() -> TrackingRecipe:
    """The tracker of ``gpu_small`` without prompts.

    stpn train tracking gpu-small-baseline --data generated --num-sequences 10000

    Not run by us.
    """
    return replace(gpu_small(), prompts=TrackPromptRecipe(predictor="none"))


TRACKING_RECIPES: dict[str, Callable[[], TrackingRecipe]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        stpn_22k,
        mixformer_22k,
        stpn_1k,
        mixformer_1k,
        small,
        small_baseline,
        gpu_small,
        gpu_small_baseline,
    )
}
