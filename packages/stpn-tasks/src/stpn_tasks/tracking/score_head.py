"""MixFormer's score module: is the target in the box?"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stpn_tasks.tracking.precise_roi_pool import precise_roi_pool

_POOL_SIZE = 4


class ScoreHead(nn.Module):
    """Let a learned token look at the box in the search crop, then at the initial template.

    Neither look has a residual or a feed-forward network; the second asks with what the first one
    found. Scores are scaled by the width of all heads together, as in the backbone.

    Args:
        dim: width C of the tokens.
        num_heads: attention heads; ``C // 64``, at least one, if not given.
    """

    def __init__(self, dim: int, num_heads: int | None = None) -> None:
        super().__init__()
        num_heads = max(1, dim // 64) if num_heads is None else num_heads
        self.token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, dim), std=0.02))
        self.token_norm = nn.LayerNorm(dim)
        self.looks = nn.ModuleList(_Look(dim, num_heads) for _ in range(2))
        self.mlp = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 1)
        )

    def forward(
        self,
        maps: Float[Tensor, "B C h w"],
        boxes_xyxy: Float[Tensor, "B 4"],
        template: Float[Tensor, "B N C"],
    ) -> Float[Tensor, " B"]:
        """Return logits.

        Args:
            maps: the last-stage search map.
            boxes_xyxy: left, top, right, bottom in shares of the search crop.
            template: last-stage tokens of the initial template.
        """
        regions = self.pool(maps, boxes_xyxy).flatten(2).transpose(1, 2)  # (B, 16, C)
        x = self.token_norm(self.token).expand(maps.shape[0], -1, -1)  # (B, 1, C)
        for look, memory in zip(self.looks, (regions, template), strict=True):
            x = look(x, memory)
        return cast("Tensor", self.mlp(x)).flatten()

    def pool(
        self, maps: Float[Tensor, "B C h w"], boxes_xyxy: Float[Tensor, "B 4"]
    ) -> Float[Tensor, "B C 4 4"]:
        """Pool the map in each box, given in shares of the search crop."""
        rows, columns = maps.shape[2:]
        cells = boxes_xyxy * boxes_xyxy.new_tensor([columns, rows, columns, rows])
        return precise_roi_pool(maps, cells, _POOL_SIZE)


class _Look(nn.Module):
    """Multi-head attention and a norm."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads must divide the width {dim}, got {num_heads}")
        self.num_heads = num_heads
        self.scale = dim**-0.5
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        q, k, v = (
            tokens.unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (B, h, N, d)
            for tokens in (self.query(x), self.key(memory), self.value(memory))
        )
        attended = nn.functional.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return cast("Tensor", self.norm(self.output(attended.transpose(1, 2).flatten(2))))
