"""Teach a backbone textures before it detects: classification of object crops.

A detector trained from scratch on small data learns where objects are, but its classes stay near
chance; a backbone that has seen crops of the classes does not have that problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from stpn_backbones import PromptedSwin
from stpn_core import PromptableBackbone
from stpn_data.batch import pad_images
from stpn_data.deteriorated import DeterioratedVideo, ObjectCrops
from stpn_tasks.engine import train
from stpn_tasks.recipes import OptimRecipe

CROP_BATCH = 48


class VariedCrops:
    """Object crops, mirrored and with permuted colour channels at random.

    What a crop looks like is a function of (seed, epoch, index). Neither change alters the
    texture's class; permuted colours keep colour from being taken for it.

    Args:
        crops: the crops as they are.
        seed: of the draws.
    """

    def __init__(self, crops: ObjectCrops, seed: int) -> None:
        self.crops = crops
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the draws of an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of crops."""
        return len(self.crops)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        """Return a crop ``(3, H, W)`` uint8 and its label."""
        draw = Random(f"{self.seed}/{self.epoch}/{i}")
        crop, label = self.crops[i]
        crop = crop[draw.sample(range(3), 3)]
        return (crop.flip(-1) if draw.random() < 0.5 else crop), label


@dataclass(frozen=True)
class CropBatch:
    """Hold object crops: images ``(B, 3, H, W)`` float32 normalised, labels ``(B,)`` int64."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> CropBatch:
        """Return the batch on a device."""
        return CropBatch(self.images.to(device), self.labels.to(device))


def collate_crops(crops: Sequence[tuple[Tensor, int]]) -> CropBatch:
    """Make a batch of crops ``(3, H, W)`` uint8 of one size, with their labels."""
    images = pad_images([image for image, _ in crops], size_divisor=1)
    return CropBatch(images, torch.tensor([label for _, label in crops]))


@dataclass(frozen=True)
class CropLosses:
    """Hold the cross entropy of crops, the sum over the stages of the backbone."""

    classification: Tensor

    @property
    def total(self) -> Tensor:
        """Return what is minimised."""
        return self.classification


class CropClassifier(nn.Module):
    """Classify crops from the mean of every feature map, each with a linear layer of its own.

    All stages are asked, so that the early ones, of which the detector's fine maps are made,
    learn as well.

    Args:
        backbone: what is trained for later use.
        num_classes: classes of the crops.
    """

    def __init__(self, backbone: PromptedSwin, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifiers = nn.ModuleList(
            nn.Linear(channels, num_classes) for channels in backbone.out_channels
        )

    def logits(self, images: Tensor) -> list[Tensor]:
        """Return ``(B, num_classes)`` of every stage."""
        features = self.backbone(images)
        return [
            classify(feature.mean((2, 3)))
            for classify, feature in zip(self.classifiers, features, strict=True)
        ]

    def forward(self, batch: CropBatch) -> CropLosses:
        """Return the loss of a batch of crops."""
        losses = [F.cross_entropy(logits, batch.labels) for logits in self.logits(batch.images)]
        return CropLosses(torch.stack(losses).sum())


def pretrain_on_crops(
    backbone: PromptableBackbone,
    videos: DeterioratedVideo,
    steps: int,
    *,
    accelerator: Accelerator,
    seed: int,
    title: str,
    line: int = 0,
) -> None:
    """Train a backbone on the clean objects of generated video, in place.

    Args:
        backbone: a `PromptedSwin`.
        videos: whose objects are cut out.
        steps: of ``CROP_BATCH`` crops.
        accelerator: devices and processes.
        seed: of the classifier, the order and the draws.
        title: what the progress bar says.
        line: of the terminal that it is in.
    """
    assert isinstance(backbone, PromptedSwin)
    optim = OptimRecipe(
        lr=1e-3,
        batch_size=CROP_BATCH,
        epochs=1,
        epoch_size=CROP_BATCH * steps,
        warmup_steps=20,
        schedule="cosine",
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        classifier = CropClassifier(backbone, len(videos.classes))
    train(
        classifier,
        VariedCrops(ObjectCrops(videos), seed),
        collate_crops,
        optim,
        accelerator=accelerator,
        seed=seed,
        title=title,
        line=line,
    )
