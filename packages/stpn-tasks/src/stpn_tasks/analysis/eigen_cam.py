"""EigenCAM: where the features of a detector have their contrast (Muhammad, Yeasin; IJCNN 2020).

The map of activations A ``(H·W, C)`` = U S Vᵀ is A v₁, their projection on the first right singular
vector. It needs neither gradient nor target. Two conventions are those of pytorch-grad-cam:

- Of a feature pyramid the absolute values of all levels are brought to one size and their channels
  are put side by side. There to the size of the coarsest level; here to that of the finest, on
  which small objects can still be told apart.
- Activations are centred: the mean of each channel over the positions is taken off, so that v₁ is
  the first principal component. The paper does not; on a pyramid v₁ then is nearly the mean, and
  the map is brightest where there is nothing but ground.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def eigen_cam(activations: Float[Tensor, "C H W"]) -> Float[Tensor, "H W"]:
    """Return the EigenCAM of activations, from 0 to 1 (most), float64 on the CPU.

    A singular vector has no sign of its own. The map is made positive where the energy is: its sum
    over the positions, each weighted by the squared norm of its centred activations, is positive.
    What is negative then becomes 0, and the map is divided by its maximum.

    Args:
        activations: any values. The map stays the same if all are multiplied by one number but 0,
            or if a number is added to all values of a channel.

    Returns:
        The map; 0 everywhere if the activations are the same at all positions.

    Raises:
        ValueError: an activation is not finite.
    """
    if not activations.isfinite().all():
        raise ValueError("an activation is not finite: EigenCAM needs numbers")
    # Float64: the products below square the ratio of the singular values.
    matrix = activations.detach().double().cpu().flatten(1).mT  # (H·W, C)
    largest = matrix.abs().max()
    matrix = matrix - matrix.mean(dim=0)
    if matrix.abs().max() <= 1e-12 * largest:  # rounding is no contrast
        return matrix.new_zeros(activations.shape[1:])
    matrix = matrix / matrix.abs().max()
    projected = _first_projection(matrix)
    if (matrix.square().sum(dim=1) * projected).sum() < 0:
        projected = -projected
    positive = projected.clamp(min=0)
    return (positive / positive.max()).view(activations.shape[1:])


def _first_projection(matrix: Tensor) -> Tensor:
    """Return A v₁ = s₁ u₁ of A (n, C) by the smaller of AᵀA and AAᵀ."""
    if matrix.shape[1] <= matrix.shape[0]:
        _, vectors = torch.linalg.eigh(matrix.mT @ matrix)
        first: Tensor = vectors[:, -1]  # (C,); the largest value comes last
        return matrix @ first
    values, vectors = torch.linalg.eigh(matrix @ matrix.mT)
    projected: Tensor = vectors[:, -1] * values[-1].sqrt()
    return projected


def join_levels(
    levels: Sequence[Float[Tensor, "1 _ _ _"]], shown: tuple[float, float] = (1.0, 1.0)
) -> Float[Tensor, "_ H W"]:
    """Return the absolute values of all levels at the size of the first one, channels side by side.

    Args:
        levels: of a feature pyramid, high to low resolution.
        shown: height and width of the part that shows the frame, from 0 to 1: the rest is padding,
            which is cut off so that it has no say.
    """
    finest = levels[0].shape[-2:]
    scaled = [
        F.interpolate(level.abs(), size=finest, mode="bilinear", align_corners=False)
        for level in levels
    ]
    height, width = (max(1, round(side * part)) for side, part in zip(finest, shown, strict=True))
    return torch.cat(scaled, dim=1)[0, :, :height, :width]  # (levels·C, H, W)
