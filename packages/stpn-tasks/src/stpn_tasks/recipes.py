"""What to train and how: inert values, one function per published or measured number.

A recipe holds values only; ``stpn_tasks.detection.build`` turns it into objects. It is written
into every file of weights, and as ``recipe.json`` beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

# Steps of a training from one checkpoint to the next; no part of a recipe, it changes no number.
CHECKPOINT_EVERY = 500


@dataclass(frozen=True)
class BackboneRecipe:
    """The prompted backbone.

    Attributes:
        name: timm's name of the model.
        pretrained: load timm's weights from the hub.
        weights: a checkpoint file to begin from instead.
        prompt_merging: channel order of prompts in patch merging; "released" for the authors'
            weights.
        drop_path_rate: stochastic depth of the last layer; earlier layers have less.
        embed_dim: width of the first stage, if not the model's own.
        depths: layers of each stage, if not the model's own.
        num_heads: heads of each stage, if not the model's own.
        window_size: rows and columns of a window, if not the model's own.
    """

    name: str = "swin_tiny_patch4_window7_224"
    pretrained: bool = False
    weights: Path | None = None
    prompt_merging: Literal["repeat", "released"] = "repeat"
    drop_path_rate: float = 0.2
    embed_dim: int | None = None
    depths: tuple[int, ...] | None = None
    num_heads: tuple[int, ...] | None = None
    window_size: int | None = None


@dataclass(frozen=True)
class PromptRecipe:
    """The dynamic video prompts.

    Attributes:
        predictor: which of the four predictors makes them; "static" prompts are learned and the
            same for every frame; "none" is the single-frame baseline.
        num_prompts: prompts per frame (N_P).
        ffn_dim: hidden width of the transformer predictor; a quarter of its width if not given.
        deep: prompts for every transformer layer instead of the first only.
        support_grad: let gradients through the pass over the support frames.
        support_video: whose frames support: the "own" video's, or as a control an "other" one's.
        centre_clips: training clips whose mean support token the predictor's reduction takes to
            zero at the start; 0 leaves it as drawn.
        frame_range: training draws support frames from that many frames on each side.
        num_support: support frames of a training clip, half of them on each side.
        test_sampler: support frames when testing: "window" t ± jS, "grid" the multiples of S
            around t, "causal" the multiples of S before t, "uniform" over the whole video, once.
        test_support: support frames when testing; for "window" and "grid" half on each side.
        stride: S, frames between support frames when testing.
    """

    predictor: Literal["transformer", "mixer", "attention", "average", "static", "none"] = (
        "transformer"
    )
    num_prompts: int = 7
    ffn_dim: int | None = None
    deep: bool = False
    support_grad: bool = False
    support_video: Literal["own", "other"] = "own"
    centre_clips: int = 0
    frame_range: int = 9
    num_support: int = 2
    test_sampler: Literal["window", "grid", "causal", "uniform"] = "window"
    test_support: int = 14
    stride: int = 8

    @property
    def reads_support(self) -> bool:
        """Whether support frames have a say in the prompts."""
        return self.predictor not in ("none", "static")


@dataclass(frozen=True)
class HeadRecipe:
    """Arguments of ``FasterRCNN``; what is not here is as in the paper.

    Attributes:
        fpn_channels: width of the feature pyramid.
        fc_dim: width of the two shared layers.
        anchor_scale: side of a square anchor in strides.
        finest_scale: regions smaller than twice this side (pixels) use the finest map.
        rpn_samples: anchors per image in the loss.
        roi_samples: regions per image in the loss.
        candidates_per_level: best anchors of each level that enter NMS.
        num_proposals: proposals per image.
    """

    fpn_channels: int = 256
    fc_dim: int = 1024
    anchor_scale: float = 8.0
    finest_scale: float = 56.0
    rpn_samples: int = 256
    roi_samples: int = 256
    candidates_per_level: int = 1000
    num_proposals: int = 300


@dataclass(frozen=True)
class SelsaRecipe:
    """The second stage of the detector "selsa"; the paper leaves all but the heads open.

    Attributes:
        num_heads: heads of each of the two aggregators.
        references: regions of support frames are pooled from the "plain" pass that prompts are
            predicted from, or from a second one, "prompted" by that support frame alone.
        reference_grad: let gradients through the pass that these regions are pooled from.
    """

    num_heads: int = 16
    references: Literal["plain", "prompted"] = "plain"
    reference_grad: bool = False


@dataclass(frozen=True)
class ImageRecipe:
    """Sizes of images in pixels.

    Attributes:
        test_size: short side when testing.
        max_size: longest long side when testing.
        size_divisor: batches are padded to multiples of it.
        augmentation: "paper" is flip and multi-scale resize or crop, "flip" only flips.
    """

    test_size: int = 600
    max_size: int = 1000
    size_divisor: int = 16
    augmentation: Literal["paper", "flip"] = "paper"


@dataclass(frozen=True)
class OptimRecipe:
    """AdamW and its schedule.

    Attributes:
        lr: learning rate.
        backbone_factor: of the learning rate, for the backbone.
        predictor_factor: of the learning rate, for the prompt predictor.
        weight_decay: of all weights but norms and relative-position tables.
        batch_size: clips of a step, over all processes, which share them out equally.
        epochs: passes over the training clips.
        epoch_size: clips drawn per epoch; each once if not given. What does not fill a step is
            left out.
        warmup_steps: steps of linear warm-up, from a third of the rate.
        schedule: "step" divides the rate by ten after ``decay_epoch``, "cosine" lets it fall to 0.
        decay_epoch: see ``schedule``.
        clip_norm: largest norm of the gradient; not clipped if not given.

    Raises:
        ValueError: if a count is below 1; names it.
    """

    lr: float = 2.5e-5
    backbone_factor: float = 1.0
    predictor_factor: float = 1.0
    weight_decay: float = 0.05
    batch_size: int = 8
    epochs: int = 9
    epoch_size: int | None = None
    warmup_steps: int = 500
    schedule: Literal["step", "cosine"] = "step"
    decay_epoch: int = 6
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        """Check the counts: nothing would be trained, or without end."""
        for name in ("batch_size", "epochs", "epoch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"optim.{name} must be at least 1, got {value}")


@dataclass(frozen=True)
class DetectionRecipe:
    """Video object detection.

    Attributes:
        backbone: the prompted backbone.
        prompts: the dynamic video prompts.
        detector: "faster-rcnn", or "selsa", which refines regions by those of the support frames.
        head: Faster R-CNN, which SELSA is built on.
        selsa: what SELSA adds.
        images: sizes and augmentation.
        optim: optimiser and schedule.
        init: a detector's checkpoint to begin from; a predictor or aggregators that it lacks
            begin anew.
        seed: of weights, order and augmentation.
    """

    backbone: BackboneRecipe = field(default_factory=BackboneRecipe)
    prompts: PromptRecipe = field(default_factory=PromptRecipe)
    detector: Literal["faster-rcnn", "selsa"] = "faster-rcnn"
    head: HeadRecipe = field(default_factory=HeadRecipe)
    selsa: SelsaRecipe = field(default_factory=SelsaRecipe)
    images: ImageRecipe = field(default_factory=ImageRecipe)
    optim: OptimRecipe = field(default_factory=OptimRecipe)
    init: Path | None = None
    seed: int = 0

    @property
    def reads_support(self) -> bool:
        """Whether support frames have a say: in the prompts, or as SELSA's references."""
        return self.prompts.reads_support or self.detector == "selsa"


def swin_tiny() -> DetectionRecipe:
    """STPN on Swin-T with the paper's transformer predictor.

    stpn train detection swin-tiny --data ILSVRC ILSVRC/Data/DET

    The paper: 60.6 AP, 85.0 AP50, 68.8 AP75 on ImageNet VID, 8 GPUs. Not run by us.
    """
    return DetectionRecipe(backbone=BackboneRecipe(pretrained=True))


def swin_tiny_mixer() -> DetectionRecipe:
    """STPN on Swin-T with the paper's mixer predictor.

    stpn train detection swin-tiny-mixer --data ILSVRC ILSVRC/Data/DET

    Not run by us.
    """
    recipe = swin_tiny()
    return replace(recipe, prompts=replace(recipe.prompts, predictor="mixer"))


def swin_tiny_released() -> DetectionRecipe:
    """STPN on Swin-T as in the authors' released code: attention predictor, 5 prompts.

    stpn train detection swin-tiny-released --data ILSVRC ILSVRC/Data/DET --backbone.weights PATH

    It begins with the backbone of a Mask R-CNN trained on COCO, the file that the recipe names,
    which Swin-Transformer-Object-Detection offers. The authors: 85.15 AP50 (VID protocol), 8 GPUs,
    against 80.7 of a baseline that may have begun from ImageNet-1k instead: compare with
    ``swin_tiny_released_baseline``. Not run by us.
    """
    prompts = PromptRecipe(predictor="attention", num_prompts=5, test_sampler="uniform")
    weights = Path("mask_rcnn_swin_tiny_patch4_window7.pth")
    return DetectionRecipe(
        backbone=BackboneRecipe(weights=weights, prompt_merging="released"), prompts=prompts
    )


def swin_tiny_released_baseline() -> DetectionRecipe:
    """Single-frame Swin-T from the same COCO weights as ``swin_tiny_released``.

    stpn train detection swin-tiny-released-baseline --data ILSVRC ILSVRC/Data/DET \\
        --backbone.weights PATH

    What prompts add is the difference between the two; nobody has published it. Not run by us.
    """
    return replace(swin_tiny_released(), prompts=PromptRecipe(predictor="none"))


def swin_tiny_baseline() -> DetectionRecipe:
    """Single-frame Swin-T from the same start as ``swin_tiny``.

    stpn train detection swin-tiny-baseline --data ILSVRC ILSVRC/Data/DET

    The paper's baseline: 80.7 AP50; from which weights it began is not known. Not run by us.
    """
    return replace(swin_tiny(), prompts=PromptRecipe(predictor="none"))


def swin_base() -> DetectionRecipe:
    """STPN on Swin-B with the paper's transformer predictor.

    stpn train detection swin-base --data ILSVRC ILSVRC/Data/DET

    The paper: 63.6 AP, 86.1 AP50, 71.6 AP75 on ImageNet VID. Not run by us.
    """
    return DetectionRecipe(
        backbone=BackboneRecipe(name="swin_base_patch4_window7_224", pretrained=True)
    )


def swin_base_baseline() -> DetectionRecipe:
    """Single-frame Swin-B from the same start as ``swin_base``.

    stpn train detection swin-base-baseline --data ILSVRC ILSVRC/Data/DET

    The paper has no such row. Not run by us.
    """
    return replace(swin_base(), prompts=PromptRecipe(predictor="none"))


def swin_tiny_selsa() -> DetectionRecipe:
    """STPN on Swin-T with SELSA in place of Faster R-CNN.

    stpn train detection swin-tiny-selsa --data ILSVRC ILSVRC/Data/DET

    The paper: 60.9 AP, 86.5 AP50, 68.6 AP75 on ImageNet VID. Which features of support frames
    SELSA sees there is not known, see ``SelsaRecipe``. Not run by us.
    """
    return replace(swin_tiny(), detector="selsa")


def swin_tiny_selsa_baseline() -> DetectionRecipe:
    """SELSA on Swin-T without prompts, from the same start as ``swin_tiny_selsa``.

    stpn train detection swin-tiny-selsa-baseline --data ILSVRC ILSVRC/Data/DET

    The paper's re-implementation: 52.3 AP, 82.3 AP50, 58.2 AP75; from which weights it began is
    not known. Not run by us.
    """
    return replace(swin_tiny_baseline(), detector="selsa")


def swin_base_selsa() -> DetectionRecipe:
    """STPN on Swin-B with SELSA in place of Faster R-CNN.

    stpn train detection swin-base-selsa --data ILSVRC ILSVRC/Data/DET

    The paper: 65.2 AP, 90.6 AP50, 73.5 AP75 on ImageNet VID. Not run by us.
    """
    return replace(swin_base(), detector="selsa")


def swin_base_selsa_baseline() -> DetectionRecipe:
    """SELSA on Swin-B without prompts, from the same start as ``swin_base_selsa``.

    stpn train detection swin-base-selsa-baseline --data ILSVRC ILSVRC/Data/DET

    The paper has no such row. Not run by us.
    """
    return replace(swin_base_baseline(), detector="selsa")


def small() -> DetectionRecipe:
    """A small STPN that learns within minutes on two CPU cores: the demo's.

    stpn train detection small --data generated

    The demo trains it in stages; see ``stpn demo``. The backbone learns ten times slower than the
    head: at the full rate the detector's training wiped the classes out of the last-stage tokens
    (6.5 % of their variance against 0.06 %), and prompts had nothing to say.
    """
    return DetectionRecipe(
        backbone=BackboneRecipe(
            drop_path_rate=0.0, embed_dim=32, depths=(2, 2, 2), num_heads=(1, 2, 4)
        ),
        prompts=PromptRecipe(
            ffn_dim=128,
            deep=True,
            centre_clips=128,
            frame_range=4,
            num_support=4,
            test_sampler="window",
            test_support=4,
            stride=2,
        ),
        head=HeadRecipe(
            fpn_channels=64,
            fc_dim=128,
            anchor_scale=4.0,
            finest_scale=28.0,
            rpn_samples=64,
            roi_samples=32,
            candidates_per_level=100,
            num_proposals=60,
        ),
        images=ImageRecipe(test_size=112, max_size=112, augmentation="flip"),
        optim=OptimRecipe(
            lr=1e-3,
            backbone_factor=0.1,
            predictor_factor=5.0,
            batch_size=16,
            epochs=1,
            epoch_size=16 * 600,
            warmup_steps=50,
            schedule="cosine",
            clip_norm=5.0,
        ),
    )


def small_baseline() -> DetectionRecipe:
    """The single-frame detector of ``small``.

    stpn train detection small-baseline --data generated
    """
    return replace(small(), prompts=PromptRecipe(predictor="none"))


def small_selsa() -> DetectionRecipe:
    """The small STPN with SELSA in place of Faster R-CNN.

    stpn train detection small-selsa --data generated

    ``stpn sweep detector --seeds 0 1 2`` trains it in stages, as the demo does ``small``, in 12
    minutes of an AMD EPYC's core after the single-frame detector. AP50 89.5 ± 0.7 on same-class
    clips, 75.8 ± 0.5 on deteriorated frames; ``small_selsa_baseline`` 89.2 ± 0.9 and 75.0 ± 0.8.
    """
    return replace(small(), detector="selsa")


def small_selsa_baseline() -> DetectionRecipe:
    """The small SELSA without prompts, with the support frames of ``small_selsa``.

    stpn train detection small-selsa-baseline --data generated
    """
    recipe = small_selsa()
    plain = replace(recipe.prompts, predictor="none", ffn_dim=None, deep=False, centre_clips=0)
    return replace(recipe, prompts=plain)


DETECTION_RECIPES: dict[str, Callable[[], DetectionRecipe]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        swin_tiny,
        swin_tiny_mixer,
        swin_tiny_released,
        swin_tiny_released_baseline,
        swin_tiny_baseline,
        swin_base,
        swin_base_baseline,
        swin_tiny_selsa,
        swin_tiny_selsa_baseline,
        swin_base_selsa,
        swin_base_selsa_baseline,
        small,
        small_baseline,
        small_selsa,
        small_selsa_baseline,
    )
}


@dataclass(frozen=True)
class SupportOptions:
    """Other support frames than the recipe's, when testing.

    Attributes:
        off: no support frames, and no prompts of them.
        test_sampler: "window" t ± jS, "grid" the multiples of S around t, "causal" the multiples
            of S before t, "uniform" over the whole video, once.
        test_support: how many; for "window" and "grid" half on each side.
        stride: S, frames between support frames.
        support_video: whose frames support: the "own" video's, or as a control those of an "other"
            one, the next of the same size and length.
    """

    off: bool = False
    test_sampler: Literal["window", "grid", "causal", "uniform"] | None = None
    test_support: int | None = None
    stride: int | None = None
    support_video: Literal["own", "other"] | None = None

    def change(self, prompts: PromptRecipe) -> PromptRecipe:
        """Return prompts with what is chosen here in place of the recipe's."""
        chosen = {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name != "off" and value is not None
        }
        return replace(prompts, **chosen)
