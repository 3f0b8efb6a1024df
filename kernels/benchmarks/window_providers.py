"""Window attention with prompts, in the orders of ours and of its peers.

The *operator* is timed from the projected sequence ``qkv`` to the attention output. The peers are
given the same, so they copy maps of three times the width that they copy in their own code, where
the copies come before the projection. The *layer* is timed from the normed sequence to the output
projection, each in its own order; timm's runs as it ships there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from problem import Compute, Problem, Provider, provider
from shapes import WINDOW, WindowShape, window_shapes
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from stpn_kernels import prompted_window_attention
from stpn_kernels.prompted_window_attention.reference import (
    pad_map,
    partition,
    position_bias,
    prompted_window_attention_reference,
    reverse,
    shift_mask,
)

# From q, k, v (B * M, h, N, d) of all windows and the bias table to (B * M, h, N, d).
Attend = Callable[[Tensor, Tensor, Tensor, Tensor, WindowShape], Tensor]
TABLE = 2  # the bias table's place among the inputs, of operator and layer


def operator_inputs(shape: WindowShape) -> list[tuple[tuple[int, ...], float]]:
    """Return size and spread of ``qkv``, ``qkv_bias`` and ``bias_table``."""
    h, d = shape.heads, shape.head_width
    sequence = shape.prompts + shape.height * shape.width
    table = (2 * WINDOW - 1) ** 2
    return [((shape.batch, sequence, 3, h, d), 1.0), ((3, h, d), 1.0), ((table, h), 1.0)]


def layer_inputs(shape: WindowShape) -> list[tuple[tuple[int, ...], float]]:
    """Return size and spread of the sequence, bias of ``qkv``, table, weights, bias of ``proj``."""
    C, sequence = shape.channels, shape.prompts + shape.height * shape.width
    bias, table = ((3 * C,), 1.0), operator_inputs(shape)[TABLE]
    weights = ((3 * C, C), C**-0.5), ((C, C), C**-0.5)
    return [((shape.batch, sequence, C), 1.0), bias, table, *weights, ((C,), 1.0)]


def call(
    attention: Compute, shape: WindowShape, qkv: Tensor, bias: Tensor, table: Tensor
) -> Tensor:
    """Call the operator, or its reference."""
    return attention(
        *(qkv, bias, table),
        height=shape.height,
        width=shape.width,
        window_size=WINDOW,
        shift=shape.shift,
        num_prompts=shape.prompts,
    )


def project_once(operator: Compute) -> Compute:
    """Return the layer that projects every row of the sequence once."""

    def layer(
        shape: WindowShape,
        x: Tensor,
        qkv_bias: Tensor,
        table: Tensor,
        qkv_weight: Tensor,
        proj_weight: Tensor,
        proj_bias: Tensor,
    ) -> Tensor:
        parts = (3, shape.heads, shape.head_width)
        qkv = F.linear(x, qkv_weight, qkv_bias).unflatten(2, parts)
        out = operator(shape, qkv, qkv_bias.view(parts), table)
        return F.linear(out, proj_weight, proj_bias)

    return layer


def in_windows(
    shape: WindowShape,
    sequence: Tensor,
    pad: Callable[[Tensor], Tensor],
    attend: Callable[[Tensor], Tensor],
) -> Tensor:
    """Copy the map into windows with the prompts before each, attend, and put it together again.

    Args:
        shape: of the call.
        sequence: (B, X, ...).
        pad: pads a map (B, H, W, ...) to whole windows.
        attend: (B * M, N, ...) -> (B * M, N, C).
    """
    prompts, tokens = sequence[:, : shape.prompts], sequence[:, shape.prompts :]
    grid = pad(tokens.unflatten(1, (shape.height, shape.width)))
    height, width = grid.shape[1:3]
    windows = partition(_rolled(grid, -shape.shift), WINDOW)  # (B, M, T, ...)
    B, M = windows.shape[:2]
    copies = prompts[:, None].expand(B, M, *prompts.shape[1:])
    out = attend(torch.cat([copies, windows], dim=2).flatten(0, 1)).unflatten(0, (B, M))
    grid = _rolled(reverse(out[:, :, shape.prompts :], height, width, WINDOW), shape.shift)
    grid = grid[:, : shape.height, : shape.width].flatten(1, 2)
    return torch.cat([out[:, :, : shape.prompts].mean(1), grid], dim=1)


def operator_in_windows(attend: Attend) -> Compute:
    """Return the operator in the order of `in_windows`."""

    def operator(shape: WindowShape, qkv: Tensor, qkv_bias: Tensor, table: Tensor) -> Tensor:
        def attend_windows(windows: Tensor) -> Tensor:
            q, k, v = windows.permute(2, 0, 3, 1, 4)
            return attend(q, k, v, table, shape).transpose(1, 2).flatten(2)

        return in_windows(shape, qkv, lambda grid: pad_map(grid, qkv_bias, WINDOW), attend_windows)

    return operator


def layer_in_windows(attend: Attend) -> Compute:
    """Return the layer that projects every row of every window, copies of prompts too."""

    def layer(
        shape: WindowShape,
        x: Tensor,
        qkv_bias: Tensor,
        table: Tensor,
        qkv_weight: Tensor,
        proj_weight: Tensor,
        proj_bias: Tensor,
    ) -> Tensor:
        def pad(grid: Tensor) -> Tensor:
            below, right = -shape.height % WINDOW, -shape.width % WINDOW
            return F.pad(grid, (0, 0, 0, right, 0, below))

        def attend_windows(windows: Tensor) -> Tensor:
            qkv = F.linear(windows, qkv_weight, qkv_bias)
            qkv = qkv.unflatten(2, (3, shape.heads, shape.head_width))
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            out = attend(q, k, v, table, shape).transpose(1, 2).flatten(2)
            return F.linear(out, proj_weight, proj_bias)

        return in_windows(shape, x, pad, attend_windows)

    return layer


def eager(q: Tensor, k: Tensor, v: Tensor, table: Tensor, shape: WindowShape) -> Tensor:
    """Attend as the released code does: scores and weights in memory, the mask built every time."""
    scores = q * q.shape[-1] ** -0.5 @ k.mT + position_bias(table, WINDOW, shape.prompts)
    if shape.shift:
        scores = scores.unflatten(0, (-1, shape.num_windows)) + _mask(shape, q)[:, None]
        scores = scores.flatten(0, 1)
    return scores.softmax(-1) @ v


def dense_sdpa(q: Tensor, k: Tensor, v: Tensor, table: Tensor, shape: WindowShape) -> Tensor:
    """Give scaled_dot_product_attention one dense mask; that of the shift is kept."""
    mask = position_bias(table, WINDOW, shape.prompts)[None]
    if shape.shift:
        mask = mask + _kept_mask(shape, q.device, q.dtype)[:, None]  # (M, h, N, N)
        mask = mask.expand(shape.batch, -1, -1, -1, -1).flatten(0, 1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def flex(order: Callable[[Attend], Compute]) -> Provider:
    """Provide FlexAttention on windows, bias and mask read by its score function.

    Its gradient of the bias is added up in no fixed order, so the table gets none here.
    """

    def build(shape: WindowShape, inputs: list[Tensor]) -> Callable[[], Tensor]:
        compiled = torch.compile(flex_attention, dynamic=False)

        def attend(q: Tensor, k: Tensor, v: Tensor, table: Tensor, shape: WindowShape) -> Tensor:
            bias = position_bias(table.detach(), WINDOW, shape.prompts)
            masks = _kept_mask(shape, q.device, q.dtype) if shape.shift else None

            M = shape.num_windows

            def score(s: Tensor, window: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
                s = s + bias[head, i, j]
                return s if masks is None else s + masks[window % M, i, j]

            return compiled(q, k, v, score_mod=score)

        return partial(order(attend), shape, *inputs)

    return Provider(
        "FlexAttention",
        build,
        gpu_only=True,
        without_gradient=(TABLE,),
        note="no gradient of the bias table",
    )


def timm_layer(name: str, fused: bool) -> Provider:
    """Provide timm's own layer, which has no prompts.

    It rolls before it pads, which gives other numbers unless the map is made of whole windows, so
    it is checked on one that is.
    """

    def build(shape: WindowShape, inputs: list[Tensor]) -> Callable[[], Tensor]:
        try:
            from timm.layers import set_fused_attn
            from timm.models.swin_transformer import SwinTransformerBlock
        except ImportError as error:
            raise RuntimeError("timm not installed") from error
        x, qkv_bias, table, qkv_weight, proj_weight, proj_bias = inputs
        # Swin's fused attention counts as experimental: off as shipped.
        set_fused_attn(enable=True, experimental=fused)
        block = SwinTransformerBlock(
            shape.channels,
            (shape.height, shape.width),
            num_heads=shape.heads,
            window_size=WINDOW,
            shift_size=shape.shift,
            always_partition=True,  # no smaller windows on smaller maps
        ).to(x.device, x.dtype)
        set_fused_attn(enable=True)
        if block.attn.fused_attn != fused:
            raise RuntimeError(f"this timm does not switch its fused attention to {fused}")
        parameters = {
            (block.attn.qkv, "weight"): qkv_weight,
            (block.attn.qkv, "bias"): qkv_bias,
            (block.attn, "relative_position_bias_table"): table,
            (block.attn.proj, "weight"): proj_weight,
            (block.attn.proj, "bias"): proj_bias,
        }
        for (module, attribute), parameter in parameters.items():
            setattr(module, attribute, parameter)

        def attend() -> Tensor:
            grid = x.unflatten(1, (shape.height, shape.width))
            return block._attn(grid).flatten(1, 2)

        return attend

    return Provider(name, build, change=without_prompts, check_at=whole_windows)


def without_prompts(shape: WindowShape) -> WindowShape:
    return replace(shape, prompts=0)


def whole_windows(shape: WindowShape) -> WindowShape:
    """Round the map up to whole windows."""
    height, width = (size + -size % WINDOW for size in (shape.height, shape.width))
    return replace(shape, height=height, width=width)


@lru_cache(maxsize=1)
def _kept_mask(shape: WindowShape, device: torch.device, dtype: torch.dtype) -> Tensor:
    return _mask(shape, torch.empty(0, device=device, dtype=dtype))


def _mask(shape: WindowShape, like: Tensor) -> Tensor:
    """Build the mask of the shift for windows with prompts (M, N, N)."""
    grid = whole_windows(shape)
    mask = shift_mask(grid.height, grid.width, WINDOW, shape.shift, like)
    return F.pad(mask, (shape.prompts, 0, shape.prompts, 0))


def _rolled(grid: Tensor, by: int) -> Tensor:
    return grid.roll((by, by), (1, 2)) if by else grid


def problems(device_type: str, quick: bool) -> list[Problem]:
    """Return the operator and the layer; on a GPU ours is Triton, and its reference a peer."""
    operators = {"ours (reference)": partial(call, prompted_window_attention)}
    if device_type == "cuda":
        operators = {
            "ours (Triton)": partial(call, partial(prompted_window_attention, backend="triton")),
            "ours (reference)": partial(
                call, partial(prompted_window_attention, backend="reference")
            ),
        }
    ours, *_ = operators
    shapes = window_shapes(device_type, quick)
    reference = partial(call, prompted_window_attention_reference)
    operator = Problem(
        "prompted_window_attention",
        shapes,
        operator_inputs,
        reference,
        WindowShape.costs,
        [
            *_with_and_without_prompts(operators),
            provider("official order, eager", operator_in_windows(eager)),
            provider("SDPA, concat + dense mask", operator_in_windows(dense_sdpa)),
            flex(operator_in_windows),
        ],
    )
    layer = Problem(
        "window attention layer",
        shapes,
        layer_inputs,
        project_once(reference),
        WindowShape.layer_costs,
        [
            *_with_and_without_prompts({ours: project_once(operators[ours])}),
            provider("official order, eager", layer_in_windows(eager)),
            provider("SDPA, concat + dense mask", layer_in_windows(dense_sdpa)),
            flex(layer_in_windows),
            timm_layer("timm as shipped", fused=False),
            timm_layer("timm fused", fused=True),
        ],
    )
    return [operator, layer]


def _with_and_without_prompts(computes: dict[str, Compute]) -> list[Provider]:
    providers = []
    for name, compute in computes.items():
        providers.append(provider(name, compute))
        providers.append(provider(f"{name}, no prompts", compute, change=without_prompts))
    return providers
