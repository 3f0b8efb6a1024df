"""From one set of prompts to the prompts of every transformer layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn


@runtime_checkable
class BackboneWidths(Protocol):
    """What the prompts of a backbone must fit; a tracker's backbone has it, too.

    Attributes:
        embed_dim: width C of the last-stage tokens.
        prompt_dims: width of every transformer layer, in order.
    """

    embed_dim: int
    prompt_dims: tuple[int, ...]


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


class StaticPrompts(nn.Module):
    """Learned prompts that are the same for every frame (visual prompt tuning, Jia et al. 2022).

    They take the place of a predictor where support frames shall say nothing: the control that
    tells how much of a gain comes from more tokens alone.

    Args:
        prompt_dims: width of each layer that prompts enter; one entry for shallow prompts, one
            per transformer layer for deep ones.
        num_prompts: number of prompts P.

    Raises:
        ValueError: if ``num_prompts`` or a width is not positive.
    """

    def __init__(self, prompt_dims: Sequence[int], num_prompts: int) -> None:
        super().__init__()
        if num_prompts < 1 or not prompt_dims or min(prompt_dims) < 1:
            raise ValueError(
                f"num_prompts and prompt_dims must be positive, "
                f"got {num_prompts} and {tuple(prompt_dims)}"
            )
        self.prompt_dims = tuple(prompt_dims)
        # Small beside the rate of a fine-tuning's first steps; layers normalise prompts anyway.
        self.prompts = nn.ParameterList(
            nn.init.normal_(torch.empty(num_prompts, width), std=0.1) for width in prompt_dims
        )

    @classmethod
    def for_backbone(
        cls, backbone: BackboneWidths, num_prompts: int = 7, *, deep: bool = False
    ) -> StaticPrompts:
        """Build prompts whose widths fit a backbone; ``deep`` for every transformer layer."""
        return cls(backbone.prompt_dims if deep else backbone.prompt_dims[:1], num_prompts)

    def forward(self, num_clips: int) -> list[Tensor]:
        """Return one tensor ``(B, P, D_i)`` per layer that prompts enter, the same for B clips."""
        return [prompts.expand(num_clips, -1, -1) for prompts in self.prompts]
