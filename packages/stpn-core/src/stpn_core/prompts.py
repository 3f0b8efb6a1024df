"""From one set of prompts to the prompts of every transformer layer."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


class PromptProjection(nn.Module):
    """Widen predicted prompts to the layers that they enter.

    Shallow prompts enter before the first transformer layer and are passed on as they are.
    Deep prompts (Eq. 11) replace the prompt tokens before every layer ``i``, each through a
    linear layer of its own, ``d_0 -> d_i``. The paper does not say what these layers read; we
    feed them the predictor's output, of width ``d_0``.

    Args:
        prompt_dims: width of each layer that prompts enter: one width for shallow prompts, one
            per transformer layer for deep prompts.

    Raises:
        ValueError: if a width is missing or not positive.
    """

    def __init__(self, prompt_dims: Sequence[int]) -> None:
        super().__init__()
        if not prompt_dims or min(prompt_dims) < 1:
            raise ValueError(f"prompt_dims must be positive widths, got {tuple(prompt_dims)}")
        self.prompt_dims = tuple(prompt_dims)
        first = self.prompt_dims[0]
        self.layers = nn.ModuleList()
        if len(self.prompt_dims) > 1:
            self.layers.extend(nn.Linear(first, width) for width in self.prompt_dims)

    def forward(self, prompts: Float[Tensor, "B P D"]) -> list[Tensor]:
        """Return one tensor ``(B, P, D_i)`` per layer that prompts enter."""
        if len(self.layers) == 0:
            return [prompts]
        return [layer(prompts) for layer in self.layers]
