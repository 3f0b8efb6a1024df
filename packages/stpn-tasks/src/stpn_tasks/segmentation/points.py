"""Where masks are compared: at sampled points, or on every cell of the predictions' grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def at_points(
    maps: Float[Tensor, "N C H W"], points: Float[Tensor, "N P 2"]
) -> Float[Tensor, "N C P"]:
    """Return maps between their cells, bilinearly, 0 outside.

    Args:
        maps: whose borders are the outer edges of their cells.
        points: (x, y) in shares of the map.
    """
    return F.grid_sample(maps, 2 * points[:, None] - 1, align_corners=False)[:, :, 0]


def random_points(
    num_maps: int, num_points: int, like: Tensor, generator: torch.Generator | None
) -> Float[Tensor, "N P 2"]:
    """Draw points evenly on each map.

    Args:
        num_maps: N.
        num_points: P of each map.
        like: tells dtype and device.
        generator: draws, on its own device; torch's generator of the device if not given.
    """
    device = like.device if generator is None else generator.device
    points = torch.rand(num_maps, num_points, 2, generator=generator, device=device)
    return points.to(like)


def uncertain_points(
    logits: Float[Tensor, "N h w"],
    num_points: int,
    oversample_ratio: float,
    importance_ratio: float,
    generator: torch.Generator | None,
) -> Float[Tensor, "N P 2"]:
    """Draw points, most of them where a mask is least sure (PointRend, Kirillov et al. 2020).

    Args:
        logits: of the masks.
        num_points: P of each mask.
        oversample_ratio: so many times P are drawn, of which the least sure ones are kept.
        importance_ratio: this part of the P are kept ones; the others are drawn evenly.
        generator: see `random_points`.
    """
    num_masks, num_kept = len(logits), int(importance_ratio * num_points)
    drawn = random_points(num_masks, int(oversample_ratio * num_points), logits, generator)
    doubt = -at_points(logits[:, None], drawn)[:, 0].abs()  # (N, oversampled)
    kept = doubt.topk(num_kept, dim=1).indices[:, :, None].expand(-1, -1, 2)
    others = random_points(num_masks, num_points - num_kept, logits, generator)
    return torch.cat((drawn.gather(1, kept), others), 1)


def on_grid(masks: Float[Tensor, "n H W"], grid: tuple[int, int]) -> Float[Tensor, "n h w"]:
    """Return the share of every cell of a coarser grid that is mask."""
    return F.adaptive_avg_pool2d(masks, grid)
