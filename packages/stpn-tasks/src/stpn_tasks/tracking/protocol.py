"""What the online tracker needs of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Tracked(Protocol):
    """What a network finds in a search crop."""

    @property
    def boxes_cxcywh(self) -> Float[Tensor, "B 4"]:
        """Boxes as shares of the crop."""
        ...

    @property
    def scores(self) -> Float[Tensor, " B"] | None:
        """Logits of the target being in its box; None from a network without a score."""
        ...

    @property
    def search_tokens(self) -> Float[Tensor, "B N C"]:
        """Last-stage tokens of the crop."""
        ...


@runtime_checkable
class TrackingNetwork(Protocol):
    """Find the target of templates in search crops, with prompts or without."""

    @property
    def predictor(self) -> Any:
        """Predict prompts; None for a plain tracker."""
        ...

    def encode_templates(
        self, template: Float[Tensor, "B 3 T T"], online: Float[Tensor, "B n 3 T T"]
    ) -> Any:
        """Encode templates for as many calls of `track` as they are valid."""
        ...

    def track(
        self,
        search: Float[Tensor, "B 3 S S"],
        templates: Any,
        prompts: Sequence[Tensor] | None = None,
    ) -> Tracked:
        """Find the target in search crops."""
        ...

    def embed_support(self, search_tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B n d"]:
        """Turn the tokens of a pass without prompts into what prompts are predicted from."""
        ...

    def predict_prompts(self, embeddings: Float[Tensor, "B K n d"]) -> list[Tensor]:
        """Predict prompts from K support embeddings."""
        ...
