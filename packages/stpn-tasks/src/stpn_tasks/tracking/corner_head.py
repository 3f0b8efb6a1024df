"""MixFormer's box head: the expected places of two corners."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d


class CornerHead(nn.Module):
    """Predict a box by a probability map of each corner and its expected coordinates.

    Args:
        in_channels: width C of the search map.
        hidden_channels: width of the first of four convolutions; each further one has half.
        frozen_batch_norm: keep batch norms constant, as MixFormer does when it trains its score.
    """

    def __init__(
        self, in_channels: int, hidden_channels: int = 384, *, frozen_batch_norm: bool = False
    ) -> None:
        super().__init__()
        self.top_left = _tower(in_channels, hidden_channels, frozen_batch_norm)
        self.bottom_right = _tower(in_channels, hidden_channels, frozen_batch_norm)

    def forward(self, maps: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 4"]:
        """Return boxes as left, top, right, bottom, in shares of the search crop.

        Cells count from 0, so that the right-most place is ``(w - 1) / w``.
        """
        return expected_boxes(self.corner_logits(maps))

    def corner_logits(self, maps: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 2 h w"]:
        """Return logits over all cells of the top left and of the bottom right corner."""
        return torch.cat([self.top_left(maps), self.bottom_right(maps)], dim=1)


def expected_boxes(corner_logits: Float[Tensor, "B 2 h w"]) -> Float[Tensor, "B 4"]:
    """Return left, top, right, bottom, in shares of the crop, that corners have on average.

    In float32 at least, whatever the logits are in: bfloat16 would round places to pixels.
    """
    corners = [_expected_place(logits) for logits in corner_logits.split(1, dim=1)]
    return torch.cat(corners, dim=1)


def _tower(in_channels: int, hidden_channels: int, frozen_batch_norm: bool) -> nn.Sequential:
    widths = [in_channels, *(hidden_channels // 2**i for i in range(4))]
    if widths[-1] < 1:
        raise ValueError(f"hidden_channels must be at least 8, got {hidden_channels}")
    layers: list[nn.Module] = []
    for width, next_width in zip(widths, widths[1:], strict=False):
        layers += [
            nn.Conv2d(width, next_width, 3, padding=1),
            FrozenBatchNorm2d(next_width) if frozen_batch_norm else nn.BatchNorm2d(next_width),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 1))


def _expected_place(logits: Float[Tensor, "B 1 h w"]) -> Float[Tensor, "B 2"]:
    """Return the mean x and y over a softmax of all cells, in shares of the map."""
    rows, columns = logits.shape[2:]
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    places = precise.flatten(1).softmax(1).unflatten(1, (rows, columns))  # (B, h, w)
    # Sums, since autocast would take products of matrices in half precision.
    x = (places.sum(1) * (torch.arange(columns).to(places) / columns)).sum(1)  # (B,)
    y = (places.sum(2) * (torch.arange(rows).to(places) / rows)).sum(1)  # (B,)
    return torch.stack([x, y], dim=1)
