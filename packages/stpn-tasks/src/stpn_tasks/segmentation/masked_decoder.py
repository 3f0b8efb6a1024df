"""Mask2Former's decoder: queries that attend to the memory inside the masks they predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from stpn_tasks.segmentation.pixel_decoder import feed_forward
from stpn_tasks.segmentation.positions import sine_positions


@dataclass(frozen=True)
class Segmented:
    """What Q queries find in B images.

    Attributes:
        logits: of K classes and, last, of being no object.
        masks: logits of pixels, on the grid of the backbone's finest map.
        embeddings: normalised queries; tell objects apart from frame to frame.
        auxiliary: the same after each earlier layer, the first before all of them; only in
            training, where they are supervised too.
    """

    logits: Float[Tensor, "B Q classes"]
    masks: Float[Tensor, "B Q h w"]
    embeddings: Float[Tensor, "B Q C"]
    auxiliary: tuple[Segmented, ...] = ()


class MaskedDecoder(nn.Module):
    """Let learned queries read the memory (Cheng et al., CVPR 2022, Sec. 3.2).

    Layer i attends to level i of the memory, low to high resolution and over again, where the mask
    predicted before it is more likely than not; a query whose mask is empty attends everywhere.

    Args:
        num_classes: K, without no-object.
        num_queries: Q.
        num_levels: maps of the memory.
        dim: width C of queries and memory.
        mask_dim: width of the features of pixels.
        num_layers: layers; one prediction more is made, before the first.
        ffn_dim: width of the feed-forward networks.
        num_heads: of the attention.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        num_queries: int,
        num_levels: int,
        dim: int,
        mask_dim: int,
        num_layers: int,
        ffn_dim: int,
        num_heads: int,
    ) -> None:
        super().__init__()
        self.query_features = nn.Embedding(num_queries, dim)
        self.query_positions = nn.Embedding(num_queries, dim)
        self.level_embed = nn.Embedding(num_levels, dim)
        self.layers = nn.ModuleList(
            _DecoderLayer(dim, ffn_dim, num_heads) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.class_head = nn.Linear(dim, num_classes + 1)
        self.mask_head = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, mask_dim)
        )

    def forward(
        self,
        memory: Sequence[Float[Tensor, "B C _ _"]],
        mask_features: Float[Tensor, "B mask_dim h w"],
    ) -> Segmented:
        """Return the predictions after the last layer, in training those of all layers.

        Args:
            memory: as many levels as announced, low to high resolution.
            mask_features: features of pixels.
        """
        grids = [(maps.shape[2], maps.shape[3]) for maps in memory]
        levels = zip(memory, self.level_embed.weight, strict=True)
        values = [maps.flatten(2).transpose(1, 2) + level for maps, level in levels]  # (B, N, C)
        where = [sine_positions(g, x.shape[2], x) for g, x in zip(grids, values, strict=True)]
        keys = [x + positions for x, positions in zip(values, where, strict=True)]
        x = self.query_features.weight.expand(len(mask_features), -1, -1)  # (B, Q, C)
        predictions = [self._predict(x, mask_features)]
        for i, layer in enumerate(self.layers):
            level = i % len(memory)
            blocked = _outside(predictions[-1].masks, grids[level])
            x = layer(x, self.query_positions.weight, keys[level], values[level], blocked)
            if not self.training:
                predictions.clear()
            predictions.append(self._predict(x, mask_features))
        *earlier, last = predictions
        return Segmented(last.logits, last.masks, last.embeddings, tuple(earlier))

    def _predict(self, x: Tensor, mask_features: Tensor) -> Segmented:
        embeddings = self.norm(x)
        masks = torch.einsum("bqc,bchw->bqhw", self.mask_head(embeddings), mask_features)
        return Segmented(self.class_head(embeddings), masks, embeddings)


class _DecoderLayer(nn.Module):
    """Masked cross-attention, self-attention, feed-forward network; norms after the residuals."""

    def __init__(self, dim: int, ffn_dim: int, num_heads: int) -> None:
        super().__init__()
        self.cross_attention = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.cross_norm = nn.LayerNorm(dim)
        self.self_attention = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.self_norm = nn.LayerNorm(dim)
        self.ffn = feed_forward(dim, ffn_dim)
        self.ffn_norm = nn.LayerNorm(dim)
        for attention in (self.cross_attention, self.self_attention):
            nn.init.xavier_uniform_(attention.out_proj.weight)  # torch does so for the inputs only

    def forward(
        self, x: Tensor, positions: Tensor, keys: Tensor, values: Tensor, blocked: Tensor
    ) -> Tensor:
        of_heads = blocked.repeat_interleave(self.cross_attention.num_heads, 0)  # (B*h, Q, N)
        read, _ = self.cross_attention(
            x + positions, keys, values, attn_mask=of_heads, need_weights=False
        )
        x = self.cross_norm(x + read)
        queries = x + positions
        mixed, _ = self.self_attention(queries, queries, x, need_weights=False)
        x = self.self_norm(x + mixed)
        return cast("Tensor", self.ffn_norm(x + self.ffn(x)))


@torch.no_grad()
def _outside(masks: Float[Tensor, "B Q h w"], grid: tuple[int, int]) -> Bool[Tensor, "B Q N"]:
    """Return which cells of a level lie outside the masks; none for a mask that is empty."""
    resized = F.interpolate(masks, grid, mode="bilinear", align_corners=False)
    outside = resized.sigmoid().flatten(2) < 0.5
    return outside & ~outside.all(-1, keepdim=True)
