"""Attention of a tracker: templates see templates, the search region and its prompts see all.

No kernel of our own: without a mask, PyTorch's fused attention is already as fast as it gets. What
there is to save is the dense mask, which would rule that out, and the concatenation of keys and
values for every frame, which a buffer that is allocated once makes needless.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stpn_kernels.checks import check_companion, check_floating, check_rank

__all__ = ["KeyValueBuffer", "asymmetric_attention"]


def asymmetric_attention(
    queries: Float[Tensor, "B h Q d"],
    keys: Float[Tensor, "B h N d"],
    values: Float[Tensor, "B h N e"],
    *,
    num_template_queries: int,
    num_template_keys: int,
    scale: float | None = None,
) -> Float[Tensor, "B h Q e"]:
    """Attend by two calls of PyTorch's fused attention over one buffer of keys and values.

    Templates come first, in queries as in keys. Their queries see the keys of the templates only,
    so that templates can be encoded once and kept; all other queries, of the prompts and the search
    region, see every key (mixed attention of MixFormer, with the prompts in the search group).

    Args:
        queries: (B, h, Q, d), templates first; of the search group only where templates are kept.
        keys: (B, h, N, d), templates first, such as `KeyValueBuffer.keys`.
        values: (B, h, N, e).
        num_template_queries: rows of ``queries`` that belong to templates, possibly 0.
        num_template_keys: rows of ``keys`` that belong to templates.
        scale: factor of the scores; ``d ** -0.5`` if not given. MixFormer takes the width of all
            heads together.

    Returns:
        Attended values (B, h, Q, e), in the order of the queries.

    Raises:
        TypeError: a dtype is not floating point or does not fit that of ``queries``.
        ValueError: a shape or number does not fit, or template queries have no key to see.
    """
    check_floating("queries", queries)
    for name, tensor in (("queries", queries), ("keys", keys), ("values", values)):
        check_rank(name, tensor, "B h N d")
        check_companion(name, tensor, "queries", queries)
    _check_sizes(queries, keys, values, num_template_queries, num_template_keys)
    search = F.scaled_dot_product_attention(
        queries[:, :, num_template_queries:], keys, values, scale=scale
    )
    if num_template_queries == 0:
        return search
    template = F.scaled_dot_product_attention(
        queries[:, :, :num_template_queries],
        keys[:, :, :num_template_keys],
        values[:, :, :num_template_keys],
        scale=scale,
    )
    return torch.cat([template, search], dim=2)


@dataclass(frozen=True)
class KeyValueBuffer:
    """Keys and values of one attention layer, allocated once: templates, then the search group.

    Templates are written when they change, the search group every frame, both in place; nothing is
    concatenated. For inference: writing does not keep gradients.

    Attributes:
        keys: (B, h, N, d).
        values: (B, h, N, e).
        num_templates: rows N that belong to templates.
    """

    keys: Tensor
    values: Tensor
    num_templates: int

    @classmethod
    def allocate(
        cls, num_templates: int, num_search: int, like: Float[Tensor, "B h _ d"]
    ) -> KeyValueBuffer:
        """Allocate zeros for so many rows of templates and search group.

        Args:
            num_templates: rows of all templates together.
            num_search: rows of prompts and search region together.
            like: keys whose batch, heads, width, dtype and device to take.
        """
        batch, heads, _, width = like.shape
        shape = (batch, heads, num_templates + num_search, width)
        return cls(like.new_zeros(shape), like.new_zeros(shape), num_templates)

    @torch.no_grad()
    def write_templates(self, keys: Tensor, values: Tensor) -> None:
        """Write all rows of the templates; shapes (B, h, num_templates, d).

        Raises:
            ValueError: a shape is another.
        """
        self._write(slice(0, self.num_templates), keys, values)

    @torch.no_grad()
    def write_search(self, keys: Tensor, values: Tensor) -> None:
        """Write all rows of prompts and search region; shapes (B, h, num_search, d).

        Raises:
            ValueError: a shape is another.
        """
        self._write(slice(self.num_templates, None), keys, values)

    def _write(self, rows: slice, keys: Tensor, values: Tensor) -> None:
        for name, buffer, new in (("keys", self.keys, keys), ("values", self.values, values)):
            place = buffer[:, :, rows]
            if new.shape != place.shape:
                raise ValueError(
                    f"{name} must have the shape {tuple(place.shape)} that the buffer was"
                    f" allocated with, got {tuple(new.shape)}"
                )
            place.copy_(new)


def _check_sizes(
    queries: Tensor, keys: Tensor, values: Tensor, num_template_queries: int, num_template_keys: int
) -> None:
    if keys.shape[:2] != queries.shape[:2] or keys.shape[3] != queries.shape[3]:
        raise ValueError(
            f"keys must have batch, heads and width of queries {tuple(queries.shape)},"
            f" got {tuple(keys.shape)}"
        )
    if values.shape[:3] != keys.shape[:3]:
        raise ValueError(
            f"values must have batch, heads and rows of keys {tuple(keys.shape)},"
            f" got {tuple(values.shape)}"
        )
    for name, number, rows in (
        ("num_template_queries", num_template_queries, queries.shape[2]),
        ("num_template_keys", num_template_keys, keys.shape[2]),
    ):
        if not 0 <= number <= rows:
            raise ValueError(f"{name} must be in [0, {rows}], got {number}")
    if num_template_queries > 0 and num_template_keys == 0:
        raise ValueError("num_template_keys is 0, so that template queries have no key to see")
