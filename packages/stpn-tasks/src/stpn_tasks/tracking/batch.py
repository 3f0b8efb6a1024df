"""Stack the training crops of a tracker into the tensors that a network takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from stpn_tasks.tracking.crops import to_input
from stpn_tasks.tracking.samples import TrackCrops


@dataclass(frozen=True)
class TrackBatch:
    """Hold B samples, their crops normalised.

    Attributes:
        template: (B, 3, T, T), initial templates.
        online: (B, n, 3, T, T), online templates; one of each sample.
        search: (B, 3, S, S), search crops.
        boxes_xyxy: (B, 4), boxes in the search crops as shares of them, not cut to 0 .. 1.
        is_positive: (B,), whether the target is in the search crop.
        support: (B, K, 3, C, C), crops of support frames; None for a tracker without prompts.
    """

    template: Float32[Tensor, "B 3 T T"]
    online: Float32[Tensor, "B n 3 T T"]
    search: Float32[Tensor, "B 3 S S"]
    boxes_xyxy: Float32[Tensor, "B 4"]
    is_positive: Bool[Tensor, " B"]
    support: Float32[Tensor, "B K 3 C C"] | None

    def __len__(self) -> int:
        """Return B."""
        return len(self.search)

    def to(self, device: torch.device | str) -> TrackBatch:
        """Return the batch on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> TrackBatch:
        """Return the batch in pinned memory; called by a loader with ``pin_memory=True``."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> TrackBatch:
        tensors = {name: change(value) for name, value in vars(self).items() if value is not None}
        return replace(self, **tensors)


def collate_tracks(samples: Sequence[TrackCrops]) -> TrackBatch:
    """Normalise and stack samples; the `collate_fn` of a loader of `TrainingCrops`.

    Raises:
        ValueError: no samples, or samples with different K.
    """
    if not samples:
        raise ValueError("a batch needs at least one sample")
    counts = [len(sample.support) for sample in samples]
    if len(set(counts)) > 1:
        raise ValueError(f"all samples of a batch need as many support frames, got {counts}")
    support = None
    if counts[0]:
        crops = to_input([crop for sample in samples for crop in sample.support])
        support = crops.unflatten(0, (len(samples), counts[0]))  # (B, K, 3, C, C)
    return TrackBatch(
        template=to_input([sample.template for sample in samples]),
        online=to_input([sample.online for sample in samples]).unsqueeze(1),  # (B, 1, 3, T, T)
        search=to_input([sample.search for sample in samples]),
        boxes_xyxy=torch.tensor([sample.box_xyxy for sample in samples]),
        is_positive=torch.tensor([sample.is_positive for sample in samples]),
        support=support,
    )
