"""The smallest promptable backbone, for tests that are not about a backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class TinyBackbone(nn.Module):
    """Two transformer layers over 8x8 patches, which prompts join.

    Attributes:
        plain_passes: how many images were encoded without prompts.
    """

    embed_dim = 16
    prompt_dims = (16, 16)

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True) for _ in range(2)
        )
        self.norm = nn.LayerNorm(16)
        self.plain_passes = 0

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns of patches."""
        return height // 8, width // 8

    def embed(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N 16"]:
        """Return the last tokens of a pass without prompts."""
        self.plain_passes += images.shape[0]
        return self(images)[0].flatten(2).transpose(1, 2)  # type: ignore[no-any-return]

    def forward(
        self, images: Float[Tensor, "B 3 H W"], prompts: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """Return one map ``(B, 16, H / 8, W / 8)``."""
        maps = self.patches(images)  # (B, C, h, w)
        tokens = maps.flatten(2).transpose(1, 2)  # (B, N, C)
        num_tokens = tokens.shape[1]
        for index, layer in enumerate(self.layers):
            if prompts is not None and index < len(prompts):
                tokens = torch.cat((prompts[index], tokens[:, -num_tokens:]), 1)  # (B, P + N, C)
            tokens = layer(tokens)
        patches = self.norm(tokens[:, -num_tokens:])  # (B, N, C)
        return [patches.transpose(1, 2).unflatten(2, maps.shape[2:])]
