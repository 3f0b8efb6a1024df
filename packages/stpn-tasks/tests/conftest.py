"""A recipe and a data set that cost next to nothing, for the tests of everything around them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from stpn_data.videos import FrameObjects, Video
from stpn_tasks.detection.build import build_detector
from stpn_tasks.recipes import BackboneRecipe, HeadRecipe, ImageRecipe, OptimRecipe, small


def make_recipe(predictor="transformer", **prompts):
    """Two stages of one layer, images of 32 x 48; prompts as given."""
    recipe = small()
    options = {"num_prompts": 3, "test_support": 4, "stride": 2, "centre_clips": 0, **prompts}
    return replace(
        recipe,
        backbone=BackboneRecipe(drop_path_rate=0.0, embed_dim=16, depths=(1, 1), num_heads=(1, 2)),
        prompts=replace(recipe.prompts, predictor=predictor, ffn_dim=None, **options),
        head=HeadRecipe(
            fpn_channels=16,
            fc_dim=16,
            anchor_scale=4.0,
            finest_scale=28.0,
            rpn_samples=16,
            roi_samples=16,
            candidates_per_level=20,
            num_proposals=10,
        ),
        images=ImageRecipe(test_size=32, max_size=64, augmentation="flip"),
        optim=OptimRecipe(lr=1e-3, batch_size=2, epochs=1, epoch_size=4, warmup_steps=0),
    )


def make_detector(recipe, num_classes=2):
    """Build a detector in eval mode whose random heads tell regions apart."""
    detector = build_detector(recipe, num_classes).eval()
    generator = torch.Generator().manual_seed(1)
    head = detector.head
    for layer, std in (
        (head.roi_head.classifier, 0.5),
        (head.roi_head.regressor, 0.5),
        (head.rpn.head.cls_logits, 0.5),
        (head.rpn.head.bbox_pred, 0.2),
    ):
        nn.init.normal_(layer.weight, std=std, generator=generator)
    return detector


class MovingSquares:
    """A bright square (class 0) or a dark one (class 1) moves over noise; all in memory."""

    classes = ("bright", "dark")

    def __init__(self, shapes=((6, 64, 96), (6, 64, 96))):
        self.videos = [
            Video(f"v{i}", length, height, width, tuple(range(length)))
            for i, (length, height, width) in enumerate(shapes)
        ]

    def _box(self, video, index):
        height, width = self.videos[video].height, self.videos[video].width
        side = min(height, width) // 3
        left = (5 * index + 7 * video) % (width - side)
        top = (3 * index) % (height - side)
        return left, top, left + side, top + side

    def frame(self, video, index):
        size = (self.videos[video].height, self.videos[video].width, 3)
        pixels = np.random.default_rng((video, index)).integers(90, 160, size, dtype=np.uint8)
        left, top, right, bottom = self._box(video, index)
        pixels[top:bottom, left:right] = 20 if video % 2 else 235
        return pixels

    def objects(self, video, index):
        return FrameObjects(
            np.array([self._box(video, index)], np.float32),
            np.array([video % 2], np.int64),
            np.zeros(1, np.int64),
            np.zeros(1, np.bool_),
        )

    def conditions(self, video, index):
        return frozenset({"deteriorated" if index % 2 else "clean"})


@pytest.fixture(scope="session")
def tiny():
    """The helpers of this file, which test modules cannot import."""

    class Tiny:
        recipe = staticmethod(make_recipe)
        detector = staticmethod(make_detector)
        videos = MovingSquares

    return Tiny


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Keep rendered video out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
