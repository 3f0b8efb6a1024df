"""What segmenter to train and how: inert values, one function per published or measured number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from stpn_tasks.recipes import BackboneRecipe, ImageRecipe, OptimRecipe, PromptRecipe


@dataclass(frozen=True)
class MaskHeadRecipe:
    """Arguments of ``Mask2FormerHead``; what is not here is as in Mask2Former.

    Attributes:
        num_queries: Q, objects that can be found in a frame.
        dim: width of memory and queries.
        mask_dim: width of the features that masks are predicted from.
        num_heads: of all attention.
        encoder_layers: deformable layers of the pixel decoder.
        encoder_ffn_dim: width of their feed-forward networks.
        decoder_layers: layers of the masked decoder.
        decoder_ffn_dim: width of their feed-forward networks.
    """

    num_queries: int = 100
    dim: int = 256
    mask_dim: int = 256
    num_heads: int = 8
    encoder_layers: int = 6
    encoder_ffn_dim: int = 1024
    decoder_layers: int = 9
    decoder_ffn_dim: int = 2048


def _minvis_images() -> ImageRecipe:
    return ImageRecipe(test_size=480, max_size=1333, size_divisor=32)


def _minvis_optim() -> OptimRecipe:
    return OptimRecipe(
        lr=1e-4,
        backbone_factor=0.1,
        weight_decay=0.05,
        batch_size=32,
        epochs=3,
        epoch_size=32 * 2000,
        warmup_steps=0,
        schedule="step",
        decay_epoch=2,
        clip_norm=0.01,
    )


@dataclass(frozen=True)
class SegmentationRecipe:
    """Video instance segmentation.

    Attributes:
        backbone: the prompted backbone.
        prompts: the dynamic video prompts.
        head: Mask2Former.
        images: sizes and augmentation; "paper" draws a short side of 360 or 480 and flips.
        optim: optimiser and schedule. Frames are drawn evenly, where MinVIS draws videos evenly.
        num_points: of each mask in matching and losses; all cells of the masks' grid if not given.
        semantic_weight: in training, of the cross entropy of the class of every pixel, that a 1x1
            convolution says on each map of the backbone; they are thrown away after it. It is ours:
            from random weights it lets a small segmenter learn classes in minutes.
        init: weights to begin with: a segmenter of this project (``.safetensors``), whose predictor
            begins anew if it has none; or Mask2Former or MinVIS as published (``.pkl``, ``.pth``).
        seed: of weights, order and augmentation.
    """

    backbone: BackboneRecipe = field(default_factory=lambda: BackboneRecipe(drop_path_rate=0.3))
    prompts: PromptRecipe = field(default_factory=PromptRecipe)
    head: MaskHeadRecipe = field(default_factory=MaskHeadRecipe)
    images: ImageRecipe = field(default_factory=_minvis_images)
    optim: OptimRecipe = field(default_factory=_minvis_optim)
    num_points: int | None = 112 * 112
    semantic_weight: float = 0.0
    init: Path | None = None
    seed: int = 0


def stpn_swin_tiny() -> SegmentationRecipe:
    """STPN on MinVIS, Swin-T, trained on YouTube-VIS 2019.

    stpn train segmentation stpn-swin-tiny --data train.json --init PATH

    It begins with Mask2Former trained on COCO's instances, the file of its model zoo that the
    recipe names. The paper: 54.8 AP, 78.7 AP50, 61.0 AP75 on the validation set, 26.5 frames per
    second. Which support frames it takes is not known: prompts once per video, as in the released
    detector, agree with that speed. Not run by us.
    """
    return SegmentationRecipe(
        prompts=PromptRecipe(test_sampler="uniform"), init=Path("model_final_86143f.pkl")
    )


def minvis_swin_tiny() -> SegmentationRecipe:
    """Plain MinVIS on Swin-T from the same start as ``stpn_swin_tiny``.

    stpn train segmentation minvis-swin-tiny --data train.json --init PATH

    The paper's baseline: 51.9 AP, 75.1 AP50, 58.2 AP75, 27.1 frames per second. Not run by us.
    """
    return replace(stpn_swin_tiny(), prompts=PromptRecipe(predictor="none"))


def stpn_swin_large() -> SegmentationRecipe:
    """STPN on MinVIS, Swin-L, trained on YouTube-VIS 2019.

    stpn train segmentation stpn-swin-large --data train.json --init PATH

    The network of MinVIS' Swin-L, with 200 queries; the paper has no such row. Not run by us.
    """
    backbone = BackboneRecipe(name="swin_large_patch4_window12_384", drop_path_rate=0.3)
    return replace(
        stpn_swin_tiny(),
        backbone=backbone,
        head=MaskHeadRecipe(num_queries=200),
        init=Path("model_final_e5f453.pkl"),
    )


def minvis_swin_large() -> SegmentationRecipe:
    """Plain MinVIS on Swin-L from the same start as ``stpn_swin_large``.

    stpn train segmentation minvis-swin-large --data train.json --init PATH

    Not run by us.
    """
    return replace(stpn_swin_large(), prompts=PromptRecipe(predictor="none"))


def small() -> SegmentationRecipe:
    """A small STPN segmenter for two CPU cores, on generated video.

    stpn train segmentation small --data generated

    ``stpn demo segmentation`` trains it from the baseline: AP 20 instead of 8 on deteriorated
    frames (docs/protocols.md). Not run by us at its full length.
    """
    return SegmentationRecipe(
        backbone=BackboneRecipe(
            drop_path_rate=0.0,
            embed_dim=32,
            depths=(2, 2, 2),
            num_heads=(1, 2, 4),
            window_size=6,
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
        head=MaskHeadRecipe(
            num_queries=10,
            dim=64,
            mask_dim=64,
            num_heads=4,
            encoder_layers=1,
            encoder_ffn_dim=128,
            decoder_layers=3,
            decoder_ffn_dim=128,
        ),
        images=ImageRecipe(test_size=96, max_size=96, size_divisor=16, augmentation="flip"),
        optim=OptimRecipe(
            lr=1e-3,
            predictor_factor=3.0,
            batch_size=16,
            epochs=1,
            epoch_size=16 * 3000,
            warmup_steps=50,
            schedule="cosine",
            clip_norm=5.0,
        ),
        num_points=None,
        semantic_weight=2.0,
    )


def small_baseline() -> SegmentationRecipe:
    """The small segmenter without prompts: plain MinVIS.

    stpn train segmentation small-baseline --data generated

    Not run by us at its full length.
    """
    return replace(small(), prompts=PromptRecipe(predictor="none"))


def gpu_small() -> SegmentationRecipe:
    """STPN with the whole head on frames of 192 pixels, for hours of one GPU.

    stpn train segmentation gpu-small --data generated-large

    Not run by us.
    """
    return replace(
        small(),
        backbone=BackboneRecipe(
            drop_path_rate=0.1, embed_dim=64, num_heads=(2, 4, 8, 16), window_size=6
        ),
        head=MaskHeadRecipe(
            num_queries=20,
            dim=128,
            mask_dim=128,
            encoder_layers=3,
            encoder_ffn_dim=512,
            decoder_layers=6,
            decoder_ffn_dim=512,
        ),
        images=ImageRecipe(test_size=192, max_size=192, size_divisor=32, augmentation="flip"),
        optim=OptimRecipe(
            lr=5e-4,
            predictor_factor=3.0,
            batch_size=32,
            epochs=1,
            epoch_size=32 * 15_000,
            warmup_steps=500,
            schedule="cosine",
            clip_norm=5.0,
        ),
        semantic_weight=1.0,
    )


def gpu_small_baseline() -> SegmentationRecipe:
    """The segmenter of ``gpu_small`` without prompts.

    stpn train segmentation gpu-small-baseline --data generated-large

    Not run by us.
    """
    return replace(gpu_small(), prompts=PromptRecipe(predictor="none"))


SEGMENTATION_RECIPES: dict[str, Callable[[], SegmentationRecipe]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        stpn_swin_tiny,
        minvis_swin_tiny,
        stpn_swin_large,
        minvis_swin_large,
        small,
        small_baseline,
        gpu_small,
        gpu_small_baseline,
    )
}
