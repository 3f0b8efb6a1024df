"""Recipes, data and models that cost next to nothing; scripts import it, tests have a fixture."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from stpn_data.videos import FrameObjects, Video
from stpn_tasks.detection.build import build_detector
from stpn_tasks.engine import make_accelerator, train
from stpn_tasks.recipes import BackboneRecipe, HeadRecipe, ImageRecipe, OptimRecipe, small


def recipe(predictor="transformer", **prompts):
    """Two stages of one layer, images of 32 x 48; prompts as given."""
    base = small()
    options = {"num_prompts": 3, "test_support": 4, "stride": 2, "centre_clips": 0, **prompts}
    return replace(
        base,
        backbone=BackboneRecipe(drop_path_rate=0.0, embed_dim=16, depths=(1, 1), num_heads=(1, 2)),
        prompts=replace(base.prompts, predictor=predictor, ffn_dim=None, **options),
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


def detector(recipe, num_classes=2):
    """Build a detector in eval mode whose random heads tell regions apart."""
    built = build_detector(recipe, num_classes).eval()
    generator = torch.Generator().manual_seed(1)
    head = built.head
    for layer, std in (
        (head.roi_head.classifier, 0.5),
        (head.roi_head.regressor, 0.5),
        (head.rpn.head.cls_logits, 0.5),
        (head.rpn.head.bbox_pred, 0.2),
    ):
        nn.init.normal_(layer.weight, std=std, generator=generator)
    return built


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


@dataclass(frozen=True)
class Points:
    inputs: Tensor
    targets: Tensor

    def to(self, device):
        return Points(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class LineLosses:
    fit: Tensor
    size: Tensor

    @property
    def total(self):
        return self.fit + self.size


class Line(nn.Module):
    """Fit a line; training depends on the generators of numpy and torch."""

    def __init__(self, noise=0.1):
        super().__init__()
        self.noise = noise
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(3, 8), nn.Dropout(noise), nn.Linear(8, 1))

    def forward(self, batch):
        error = self.layers(batch.inputs).squeeze(1) - batch.targets
        factor = 1 + self.noise * np.random.rand()
        return LineLosses(factor * error.square().mean(), 0.0 * error.mean())


class PointSet:
    """Points of a plane whose noise depends on the epoch; remembers what was read of it."""

    def __init__(self, size=16, when_read=lambda number: None):
        self.size = size
        self.when_read = when_read
        self.epoch = 0
        self.seen = []

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        self.when_read(len(self.seen))
        self.seen.append((self.epoch, i))
        generator = torch.Generator().manual_seed(1000 * self.epoch + i)
        inputs = torch.randn(3, generator=generator)
        return inputs, inputs.sum()


def collate_points(items):
    return Points(*(torch.stack(column) for column in zip(*items, strict=True)))


# Four steps in each of three epochs of sixteen points.
OPTIM = OptimRecipe(lr=0.05, weight_decay=0.0, batch_size=4, epochs=3, warmup_steps=0)


def fit(model, dataset, optim=OPTIM, checkpoints=None, seed=0, **options):
    """Train on points, on the CPU; return the losses."""
    return train(
        model,
        dataset,
        collate_points,
        optim,
        accelerator=make_accelerator("cpu"),
        seed=seed,
        checkpoints=checkpoints,
        progress=False,
        **options,
    )
