"""RoIAlign (Mask R-CNN, He et al. 2017), aligned, with adaptive sampling."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.ops import roi_align

# On a CPU the matrix products win up to about this many cells per map.
_SMALL_MAP = 64 * 64


def align_regions(
    feature: Float[Tensor, "B C H W"], regions: Float[Tensor, "R 5"], size: int, scale: float
) -> Float[Tensor, "R C S S"]:
    """Pool each region to size x size bins, bilinear samples averaged within a bin.

    A bin takes ceil(region / size) samples per axis, about one per cell of the map. Coordinates
    and sums are float32 whatever the map is: half precision cannot hold them.

    Args:
        feature: one level of the pyramid.
        regions: image index, x1, y1, x2, y2 in pixels; sorted by image.
        size: bins per side, S.
        scale: cells of the map per pixel.
    """
    small = feature.shape[2] * feature.shape[3] <= _SMALL_MAP
    if feature.device.type == "cpu" and feature.requires_grad and small:
        # torchvision's gradient on a CPU, a scatter, takes half of a training step.
        with torch.autocast("cpu", enabled=False):
            aligned = _align_by_products(feature.float(), regions, size, scale)
    else:
        aligned = roi_align(feature.float(), regions, size, scale, sampling_ratio=0, aligned=True)
    return aligned.to(feature.dtype)


def _align_by_products(feature: Tensor, regions: Tensor, size: int, scale: float) -> Tensor:
    """Pool as two matrix products: bilinear sampling and averaging separate into y and x."""
    _, channels, height, width = feature.shape
    corners = regions[:, 1:] * scale - 0.5
    rows = _bin_weights(corners[:, 1], corners[:, 3], height, size)  # (R, S, H)
    columns = _bin_weights(corners[:, 0], corners[:, 2], width, size)  # (R, S, W)
    counts = torch.bincount(regions[:, 0].long(), minlength=len(feature)).tolist()
    pooled = []
    for image, y, x in zip(feature, rows.split(counts), columns.split(counts), strict=True):
        lines = y.flatten(0, 1) @ image.transpose(0, 1).flatten(1)  # (n * S, C * W)
        lines = lines.view(len(y), size * channels, width)
        pooled.append((lines @ x.mT).view(len(y), size, channels, size))
    return torch.cat(pooled).transpose(1, 2)  # (R, C, S, S)


def _bin_weights(start: Tensor, end: Tensor, length: int, size: int) -> Tensor:
    """Return the weight of each of ``length`` cells in each bin along one axis: (R, S, length)."""
    bin_length = (end - start)[:, None, None] / size  # (R, 1, 1)
    count = bin_length.ceil().clamp(min=1)
    sample = torch.arange(int(count.max()) if len(count) else 1)
    first = start[:, None, None] + bin_length * torch.arange(size)[:, None]  # (R, S, 1)
    position = first + (sample + 0.5) * bin_length / count  # (R, S, samples)
    counted = (sample < count) & (position >= -1) & (position <= length)
    position = position.clamp(0, length - 1)[..., None]
    weight = (1 - (position - torch.arange(length)).abs()).clamp(min=0)
    return (weight * (counted / count)[..., None]).sum(dim=2)
