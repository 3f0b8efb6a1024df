"""Teach a tracker's backbone to tell objects apart before it tracks: pairs of crops.

MixFormer begins with a backbone trained on ImageNet. On generated sequences, with a few minutes of
training, this takes its place: two crops of every object, from two frames, must be more alike than
crops of different objects, those beside it in the same frames among them (InfoNCE).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32
from torch import Tensor, nn

from stpn_data.deteriorated import DeterioratedTracking
from stpn_data.videos import DataError
from stpn_tasks.tracking.crops import CropWindow, Image, to_input
from stpn_tasks.tracking.mixed_attention import MixedAttentionCvt

TEMPERATURE = 0.1
_WIDTH = 64


@dataclass(frozen=True)
class PairBatch:
    """Hold two crops of each of n objects, normalised: (n, 3, T, T)."""

    first: Float32[Tensor, "n 3 T T"]
    second: Float32[Tensor, "n 3 T T"]

    def to(self, device: torch.device | str) -> PairBatch:
        """Return the batch on a device."""
        return PairBatch(self.first.to(device), self.second.to(device))


class ObjectPairs:
    """Draw two frames of a sequence and cut out what is in view in both.

    The two show the target in one look, the first one sharply. Item i is a function of (seed,
    epoch, i) alone.

    Args:
        dataset: generated sequences.
        size: rows and columns of a crop.
        factor: its side in the frame, by the mean side of the object.
        num_items: of an epoch.
        seed: of the draws.
    """

    def __init__(
        self, dataset: DeterioratedTracking, size: int, factor: float, num_items: int, seed: int
    ) -> None:
        self.dataset = dataset
        self.size = size
        self.factor = factor
        self.num_items = num_items
        self.seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the draws of an epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Return the number of items of an epoch."""
        return self.num_items

    def __getitem__(self, i: int) -> list[tuple[Image, Image]]:
        """Return two crops (T, T, 3) of each object; there may be none."""
        random = Random(f"pairs/{self.seed}/{self._epoch}/{i}")
        number = random.randrange(len(self.dataset.sequences))
        known = self.dataset.annotations(number)
        second = random.randrange(len(known.kinds))
        same = np.flatnonzero(known.new_look == known.new_look[second]).tolist()
        sharp = [t for t in same if known.kinds[t] is None] or same
        first = random.choice(sharp)
        seen = np.isfinite(known.boxes_xyxy[[first, second]]).all(axis=(0, 2))  # (objects,)
        return [
            (self._crop(number, first, known.boxes_xyxy[first, k]),
             self._crop(number, second, known.boxes_xyxy[second, k]))
            for k in np.flatnonzero(seen)
        ]  # fmt: skip

    def _crop(self, number: int, frame: int, box_xyxy: np.ndarray) -> Image:
        left, top, right, bottom = box_xyxy.tolist()
        window = CropWindow.around((left, top, right - left, bottom - top), self.factor, self.size)
        return window.cut(self.dataset.frame(number, frame))


def collate_pairs(items: Sequence[list[tuple[Image, Image]]]) -> PairBatch:
    """Make a batch of the objects of several sequences.

    Raises:
        DataError: if there is none.
    """
    pairs = [pair for item in items for pair in item]
    if not pairs:
        raise DataError(
            f"no object is in view in both frames of any of the {len(items)} sequences of a batch: "
            "take more sequences for a batch, or others"
        )
    return PairBatch(to_input([one for one, _ in pairs]), to_input([two for _, two in pairs]))


@dataclass(frozen=True)
class PairLosses:
    """Hold the loss of pairs.

    Attributes:
        identity: scalar, the cross entropy of finding each crop's partner.
    """

    identity: Tensor

    @property
    def total(self) -> Tensor:
        """The only one."""
        return self.identity


class PairMatcher(nn.Module):
    """Match crops by the mean of their last tokens, with a projection that is then thrown away.

    Args:
        backbone: what is trained for later use.
    """

    def __init__(self, backbone: MixedAttentionCvt) -> None:
        super().__init__()
        self.backbone = backbone
        self.project = nn.Linear(backbone.embed_dim, _WIDTH)

    def describe(self, crops: Float32[Tensor, "n 3 T T"]) -> Float32[Tensor, "n d"]:
        """Describe crops by unit vectors; a template is what the backbone takes them for."""
        tokens = self.backbone.encode_templates(crops.unsqueeze(1)).tokens[:, 0]  # (n, N, C)
        return F.normalize(self.project(tokens.mean(1)), dim=1)

    def forward(self, batch: PairBatch) -> PairLosses:
        """Return the loss of a batch."""
        logits = self.describe(batch.first) @ self.describe(batch.second).mT / TEMPERATURE  # (n, n)
        partners = torch.arange(len(logits), device=logits.device)
        both = F.cross_entropy(logits, partners) + F.cross_entropy(logits.mT, partners)
        return PairLosses(both / 2)
