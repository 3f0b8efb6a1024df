"""Segmentation that costs next to nothing; tests have a fixture of that name."""

from dataclasses import replace

import torch
from torch import nn

from stpn_data import DeterioratedSegmentation, SegmentationOptions
from stpn_tasks.recipes import BackboneRecipe, ImageRecipe, OptimRecipe
from stpn_tasks.segmentation.build import build_segmenter
from stpn_tasks.segmentation.recipes import MaskHeadRecipe, small

OPTIONS = SegmentationOptions(
    size=(48, 64),
    num_frames=8,
    num_objects=(2, 2),
    object_size=(14.0, 20.0),
    deteriorated=0.7,
    spread=0.0,
    run_frames=(4, 6),
    vanishing=0.0,
    leaving=0.0,
)


def videos(folder, num_videos=2, split="train"):
    """Render clips of 48 x 64 with windows of four deteriorated frames."""
    return DeterioratedSegmentation(
        folder,
        split=split,
        num_videos=num_videos,
        options=OPTIONS,
        num_workers=0,
        progress=False,
    )


def recipe(predictor="transformer", **prompts):
    """Two stages of one layer, five queries; prompts as given."""
    base = small()
    options = {"num_prompts": 3, "test_support": 4, "stride": 2, "centre_clips": 2, **prompts}
    if predictor == "none":
        options |= {"deep": False, "centre_clips": 0}
    return replace(
        base,
        backbone=BackboneRecipe(
            drop_path_rate=0.0, embed_dim=16, depths=(1, 1), num_heads=(1, 2), window_size=4
        ),
        prompts=replace(base.prompts, predictor=predictor, ffn_dim=None, **options),
        head=MaskHeadRecipe(
            num_queries=5,
            dim=32,
            mask_dim=16,
            num_heads=4,
            encoder_layers=1,
            encoder_ffn_dim=24,
            decoder_layers=2,
            decoder_ffn_dim=40,
        ),
        images=ImageRecipe(test_size=48, max_size=64, size_divisor=16, augmentation="flip"),
        optim=OptimRecipe(
            lr=1e-3, batch_size=2, epochs=1, epoch_size=4, warmup_steps=0, clip_norm=5.0
        ),
    )


def segmenter(recipe, num_classes=6):
    """Build a segmenter in eval mode whose weights are large enough to tell frames apart."""
    built = build_segmenter(recipe, num_classes).eval()
    generator = torch.Generator().manual_seed(1)
    for module in built.encoder.backbone.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5, generator=generator)
    return built
