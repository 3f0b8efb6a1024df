"""Controls of a tracker's support: none at all, or the crops of another sequence.

Each stands between the online tracker and its network and changes nothing else. The tracker passes
a crop without prompts exactly where it is to support later frames, so that this is where
crops are noted and exchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from stpn_tasks.tracking.protocol import Tracked, TrackingNetwork


class _Between:
    """Hands everything on to a network."""

    def __init__(self, network: TrackingNetwork) -> None:
        self.network = network

    @property
    def predictor(self) -> Any:
        """The network's."""
        return self.network.predictor

    def encode_templates(self, template: Tensor, online: Tensor) -> Any:
        """Encode templates, (B, 3, T, T) and (B, n, 3, T, T), as the network does."""
        return self.network.encode_templates(template, online)

    def track(
        self, search: Tensor, templates: Any, prompts: Sequence[Tensor] | None = None
    ) -> Tracked:
        """Search in crops (B, 3, S, S), as the network does."""
        return self.network.track(search, templates, prompts)

    def embed_support(self, search_tokens: Tensor) -> Tensor:
        """Embed tokens (B, N, C), as the network does."""
        return self.network.embed_support(search_tokens)

    def predict_prompts(self, embeddings: Tensor) -> list[Tensor]:
        """Predict prompts from embeddings (B, K, n, d), as the network does."""
        return self.network.predict_prompts(embeddings)


class PromptsOff(_Between):
    """Tracks as if the network had no predictor."""

    predictor = None


class NotedSupport(_Between):
    """Notes the support crops of what is tracked.

    Attributes:
        crops: (1, 3, S, S) each, in their order.
    """

    def __init__(self, network: TrackingNetwork) -> None:
        super().__init__(network)
        self.crops: list[Tensor] = []

    def track(
        self, search: Tensor, templates: Any, prompts: Sequence[Tensor] | None = None
    ) -> Tracked:
        """Search in a crop (1, 3, S, S); note it if there are no prompts."""
        if prompts is None:
            self.crops.append(search)
        return super().track(search, templates, prompts)


class BorrowedSupport(_Between):
    """Takes the support crops of another sequence in place of the own ones, one for one.

    Args:
        network: that tracks.
        crops: (1, 3, S, S) each, at least one; the last one stays where there are too few.

    Raises:
        ValueError: there is no crop.
    """

    def __init__(self, network: TrackingNetwork, crops: Sequence[Tensor]) -> None:
        super().__init__(network)
        if not crops:
            raise ValueError("there are no support crops to borrow")
        self._crops = list(crops)
        self._taken = 0

    def track(
        self, search: Tensor, templates: Any, prompts: Sequence[Tensor] | None = None
    ) -> Tracked:
        """Search in a crop (1, 3, S, S); in a borrowed one if there are no prompts."""
        if prompts is None:
            search = self._crops[min(self._taken, len(self._crops) - 1)]
            self._taken += 1
        return super().track(search, templates, prompts)
