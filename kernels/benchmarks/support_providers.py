"""Pooling of support frames and attention to them, in the orders of ours and of their peers.

The attention *operator* is timed from absorbed queries to sums of tokens; the *layer* from
projected queries to attended values, which is where the usual order projects every token twice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from problem import Compute, Problem, Provider, provider
from shapes import AttendShape, PoolShape, attend_shapes, pool_shapes
from torch import Tensor

from stpn_kernels import support_attend, support_pool
from stpn_kernels.support_attend.reference import support_attend_reference
from stpn_kernels.support_pool.reference import support_pool_reference


def pool_inputs(shape: PoolShape) -> list[tuple[tuple[int, ...], float]]:
    """Return size and spread of support, weight and bias."""
    C = shape.channels
    support = (shape.clips, shape.support_frames, shape.tokens, C)
    return [(support, 1.0), ((C,), 1.0), ((C,), 1.0)]


def attend_inputs(shape: AttendShape) -> list[tuple[tuple[int, ...], float]]:
    """Return size and spread of queries and tokens."""
    D = shape.channels
    tokens = (shape.clips, shape.support_frames, shape.tokens, D)
    return [((shape.num_prompts, shape.heads, D), D**-0.5), (tokens, 1.0)]


def attention_inputs(shape: AttendShape) -> list[tuple[tuple[int, ...], float]]:
    """Return size and spread of queries (P, h, D / h), both weights (h, D / h, D), and tokens."""
    D, h = shape.channels, shape.heads
    tokens = attend_inputs(shape)[1]
    weights = ((h, D // h, D), D**-0.5)
    return [((shape.num_prompts, h, D // h), (D / h) ** -0.5), weights, weights, tokens]


def mean_then_norm(shape: PoolShape, support: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(support.mean(1), weight.shape, weight, bias)


def compiled_mean_then_norm(shape: PoolShape, inputs: list[Tensor]) -> Callable[[], Tensor]:
    return partial(torch.compile(mean_then_norm, dynamic=False), shape, *inputs)


def absorbed(shape: AttendShape, queries: Tensor, tokens: Tensor) -> Tensor:
    """Compute the operator with one thin matrix product on either side of the softmax."""
    keys = tokens.flatten(1, 2)  # (B, T, D)
    weights = (queries.flatten(0, 1) @ keys.mT).softmax(-1)  # (B, P * h, T)
    return (weights @ keys).unflatten(1, queries.shape[:2])


def keys_and_values(
    shape: AttendShape, queries: Tensor, key_weight: Tensor, value_weight: Tensor, tokens: Tensor
) -> Tensor:
    """Project every token to a key and a value, as multi-head attention usually does."""
    rows = tokens.flatten(1, 2)
    heads = (shape.heads, -1)
    k = F.linear(rows, key_weight.flatten(0, 1)).unflatten(2, heads).transpose(1, 2)
    v = F.linear(rows, value_weight.flatten(0, 1)).unflatten(2, heads).transpose(1, 2)
    q = queries.transpose(0, 1).expand(len(tokens), -1, -1, -1)  # (B, h, P, D / h)
    out = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    return out.transpose(1, 2).flatten(2)


def between_projections(operator: Compute) -> Compute:
    """Return the layer that projects queries and sums instead of tokens."""

    def layer(
        shape: AttendShape,
        queries: Tensor,
        key_weight: Tensor,
        value_weight: Tensor,
        tokens: Tensor,
    ) -> Tensor:
        sums = operator(shape, torch.einsum("phe,hed->phd", queries, key_weight), tokens)
        return torch.einsum("bphd,hed->bphe", sums, value_weight).flatten(2)

    return layer


def problems(device_type: str, quick: bool) -> list[Problem]:
    """Return pooling, attention, and the attention with its projections."""
    pools = _ours(support_pool, device_type)
    attends = _ours(support_attend, device_type)
    reference = _without_shape(support_attend_reference)
    pool = Problem(
        "support_pool",
        pool_shapes(device_type, quick),
        pool_inputs,
        _without_shape(support_pool_reference),
        PoolShape.costs,
        [
            *(provider(name, compute) for name, compute in pools.items()),
            provider("mean, layer_norm, eager", mean_then_norm),
            Provider("mean, layer_norm, compiled", compiled_mean_then_norm, gpu_only=True),
        ],
    )
    shapes = attend_shapes(device_type, quick)
    attend = Problem(
        "support_attend",
        shapes,
        attend_inputs,
        reference,
        AttendShape.costs,
        [
            *(provider(name, compute) for name, compute in attends.items()),
            provider("absorbed, eager", absorbed),
        ],
    )
    layer = Problem(
        "support attention layer",
        shapes,
        attention_inputs,
        between_projections(reference),
        AttendShape.layer_costs,
        [
            *(provider(name, between_projections(compute)) for name, compute in attends.items()),
            provider("absorbed, eager", between_projections(absorbed)),
            provider("keys and values, SDPA", keys_and_values),
        ],
    )
    return [pool, attend, layer]


def _ours(operator: Compute, device_type: str) -> dict[str, Compute]:
    """Return the operator; on a GPU Triton's and, as a peer, the reference."""
    if device_type != "cuda":
        return {"ours (reference)": _without_shape(operator)}
    return {
        "ours (Triton)": _without_shape(partial(operator, backend="triton")),
        "ours (reference)": _without_shape(partial(operator, backend="reference")),
    }


def _without_shape(operator: Compute) -> Compute:
    return lambda shape, *inputs: operator(*inputs)
