"""Mask2Former's pixel decoder: a deformable encoder of the coarse maps, a pyramid to the finest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stpn_tasks.segmentation.deformable_attention import DeformableAttention
from stpn_tasks.segmentation.positions import cell_centres, sine_positions

_NUM_GROUPS = 32  # of all group norms
_MOST_LEVELS = 3  # that are encoded, and that the masked decoder remembers


class PixelDecoder(nn.Module):
    """Turn a backbone's maps into a memory for queries and into features of pixels.

    The coarsest maps, at most three and all but the finest one, pass the encoder together; a
    pyramid adds the finer ones. Padding is not masked. All of it runs in the precision of its
    weights, float32, also under autocast, as the original does.

    Args:
        channels: of each map of the backbone, high to low resolution.
        dim: width C of the memory, a multiple of 32.
        mask_dim: width of the features of pixels.
        num_layers: of the encoder.
        ffn_dim: width of its feed-forward networks.
        num_heads: of its attention.
        num_points: places that a head looks at on each level.

    Attributes:
        num_levels: maps of the memory.

    Raises:
        ValueError: if there are no maps, or ``dim`` is no multiple of 32.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        dim: int,
        mask_dim: int,
        num_layers: int,
        ffn_dim: int,
        num_heads: int,
        num_points: int,
    ) -> None:
        super().__init__()
        if not channels:
            raise ValueError("a pixel decoder needs at least one map, got no channels")
        if dim % _NUM_GROUPS:
            raise ValueError(f"dim must be a multiple of {_NUM_GROUPS}, got {dim}")
        self.channels = tuple(channels)
        num_encoded = min(_MOST_LEVELS, max(1, len(channels) - 1))
        finer = self.channels[: len(channels) - num_encoded]
        self.num_levels = min(_MOST_LEVELS, len(channels))
        self.input_projections = nn.ModuleList(  # low to high resolution, as the memory is
            nn.Sequential(nn.Conv2d(width, dim, 1), nn.GroupNorm(_NUM_GROUPS, dim))
            for width in reversed(self.channels[len(finer) :])
        )
        self.level_embed = nn.Parameter(torch.empty(num_encoded, dim))
        self.layers = nn.ModuleList(
            _EncoderLayer(dim, num_encoded, ffn_dim, num_heads, num_points)
            for _ in range(num_layers)
        )
        self.laterals = nn.ModuleList(_conv_norm(width, dim, 1) for width in finer)
        self.outputs = nn.ModuleList(_conv_norm(dim, dim, 3) for _ in finer)
        self.mask_features = nn.Conv2d(dim, mask_dim, 1)
        self._initialise()

    def _initialise(self) -> None:
        for projection in cast("Sequence[nn.Sequential]", self.input_projections):
            convolution = cast("nn.Conv2d", projection[0])
            nn.init.xavier_uniform_(convolution.weight)
            nn.init.zeros_(cast("Tensor", convolution.bias))
        nn.init.normal_(self.level_embed)
        nn.init.kaiming_uniform_(self.mask_features.weight, a=1)
        nn.init.zeros_(cast("Tensor", self.mask_features.bias))

    def forward(
        self, features: Sequence[Float[Tensor, "B _ _ _"]]
    ) -> tuple[list[Float[Tensor, "B C _ _"]], Float[Tensor, "B mask_dim h w"]]:
        """Return the memory, low to high resolution, and the features of pixels.

        Args:
            features: maps ``(B, C_i, H_i, W_i)``, high to low resolution.

        Raises:
            ValueError: if the maps are not as many and as wide as announced.
        """
        widths = tuple(maps.shape[1] for maps in features)
        if widths != self.channels:
            raise ValueError(f"expected maps of {self.channels} channels, got {widths}")
        with torch.autocast(features[0].device.type, enabled=False):
            maps = [each.to(self.level_embed.dtype) for each in features]
            return self._decode(maps)

    def _decode(self, features: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        finer = features[: len(self.laterals)]
        maps = self._encode(features[len(finer) :][::-1])
        for i in reversed(range(len(finer))):
            lateral = self.laterals[i](finer[i])
            size = lateral.shape[2:]
            from_above = F.interpolate(maps[-1], size, mode="bilinear", align_corners=False)
            maps.append(F.relu(self.outputs[i](lateral + from_above)))
        return maps[: self.num_levels], self.mask_features(maps[-1])

    def _encode(self, coarse: list[Tensor]) -> list[Tensor]:
        """Return maps ``(B, C, H, W)`` of the coarse ones, low to high resolution both."""
        grids = [(maps.shape[2], maps.shape[3]) for maps in coarse]
        projected = [
            layer(maps) for layer, maps in zip(self.input_projections, coarse, strict=True)
        ]
        x = torch.cat([maps.flatten(2).transpose(1, 2) for maps in projected], 1)  # (B, N, C)
        positions = [
            sine_positions(grid, x.shape[2], x) + level
            for grid, level in zip(grids, self.level_embed, strict=True)
        ]
        where = torch.cat(positions)  # (N, C)
        centres = torch.cat([cell_centres(grid, x) for grid in grids])  # (N, 2)
        for layer in self.layers:
            x = layer(x, where, centres, grids)
        levels = x.transpose(1, 2).split([rows * columns for rows, columns in grids], dim=2)
        return [level.unflatten(2, grid) for level, grid in zip(levels, grids, strict=True)]


class _EncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward network, norms after the residuals."""

    def __init__(
        self, dim: int, num_levels: int, ffn_dim: int, num_heads: int, num_points: int
    ) -> None:
        super().__init__()
        self.attention = DeformableAttention(dim, num_levels, num_heads, num_points)
        self.attention_norm = nn.LayerNorm(dim)
        self.ffn = feed_forward(dim, ffn_dim)
        self.ffn_norm = nn.LayerNorm(dim)

    def forward(
        self, x: Tensor, positions: Tensor, centres: Tensor, grids: Sequence[tuple[int, int]]
    ) -> Tensor:
        x = self.attention_norm(x + self.attention(x + positions, x, centres, grids))
        return cast("Tensor", self.ffn_norm(x + self.ffn(x)))


def feed_forward(dim: int, hidden: int) -> nn.Sequential:
    """Return a feed-forward network with ReLU, Xavier-uniform weights and torch's biases."""
    layers = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))
    for layer in (layers[0], layers[2]):
        nn.init.xavier_uniform_(cast("Tensor", layer.weight))
    return layers


def _conv_norm(in_channels: int, out_channels: int, size: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, size, padding=size // 2, bias=False)
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    return nn.Sequential(convolution, nn.GroupNorm(_NUM_GROUPS, out_channels))
