"""What CvT and the trackers on it are made of: convolutional embeddings, projections, attention.

Parts are named as in Microsoft's checkpoints. All take one image at a time as tokens and a grid, so
that a tracker can give them templates and search regions in turn and attend between them.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers.activations import QuickGELU
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from timm.layers.norm_act import FrozenBatchNormAct2d
from torch import Tensor, nn

from stpn_kernels import asymmetric_attention

PromptConv: TypeAlias = Literal["bypass", "image", "padded_image"]


def to_maps(tokens: Float[Tensor, "B N C"], grid: tuple[int, int]) -> Float[Tensor, "B C H W"]:
    """Return the map that tokens are row by row: a view, whose channels are the last in memory.

    Of one image, ``transpose`` before ``unflatten`` would give the batch a stride by which PyTorch
    takes the map for channels first, and copies it in and out of every convolution.
    """
    maps: Tensor = tokens.unflatten(1, grid).movedim(3, 1)
    return maps


class ConvEmbedding(nn.Module):
    """Embed an image, or the map of the stage before, by a strided convolution and a norm.

    Args:
        in_channels: channels of the image or map.
        dim: width C of the tokens.
        kernel_size: side of the convolution's window.
        stride: pixels or cells per token and side.
        padding: zeros on each side.
    """

    def __init__(
        self, in_channels: int, dim: int, *, kernel_size: int, stride: int, padding: int
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel_size, stride, padding)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, maps: Float[Tensor, "B channels H W"]
    ) -> tuple[Float[Tensor, "B N C"], tuple[int, int]]:
        """Return tokens, row by row, and their grid: rows and columns."""
        x = self.proj(maps)  # (B, C, H', W')
        return self.norm(x.flatten(2).transpose(1, 2)), (x.shape[2], x.shape[3])

    def embed_prompts(self, prompts: Float[Tensor, "B P channels"]) -> Float[Tensor, "B P C"]:
        """Return as many prompts of this stage, embedded as a square map with the same weights.

        The convolution halves a map; more padding (2 instead of 1 for 3x3 prompts) keeps the
        prompts' number (STPN, appendix A.1).

        Raises:
            ValueError: if P is not a square number.
        """
        side = _side(prompts.shape[1])
        maps = to_maps(prompts, (side, side))  # (B, C', s, s)
        extra = (side + self.proj.kernel_size[0] - 1) // 2 - int(self.proj.padding[0])
        tokens, _ = self(F.pad(maps, (extra, extra, extra, extra)))
        return tokens  # type: ignore[no-any-return]


class ConvProjection(nn.Module):
    """Depthwise 3x3 convolution and batch norm before a linear projection.

    Args:
        dim: width C.
        stride: 1 for queries, 2 for keys and values.
        frozen_batch_norm: the norm's statistics and weights are constants.
    """

    def __init__(self, dim: int, *, stride: int, frozen_batch_norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, stride, 1, groups=dim, bias=False)
        self.bn = (
            FrozenBatchNormAct2d(dim, apply_act=False) if frozen_batch_norm else nn.BatchNorm2d(dim)
        )

    def forward(
        self, tokens: Float[Tensor, "B N C"], grid: tuple[int, int], *, extra_padding: int = 0
    ) -> Float[Tensor, "B M C"]:
        """Return the tokens of the convolved map: ``ceil(side / stride)`` of them per side.

        Args:
            tokens: of one image, row by row.
            grid: rows and columns of the N tokens.
            extra_padding: zeros on each side beyond the convolution's own.
        """
        maps = to_maps(tokens, grid)  # (B, C, H, W)
        conv, bn = self.conv, self.bn
        padding = int(conv.padding[0]) + extra_padding
        if isinstance(bn, FrozenBatchNormAct2d):
            # Constants join the convolution, which saves two passes over the map.
            buffers = (bn.weight, bn.bias, bn.running_mean, bn.running_var)
            weight, bias, mean, variance = cast("tuple[Tensor, ...]", buffers)
            scale = weight * (variance + bn.eps).rsqrt()  # (C,)
            kernel = conv.weight * scale.view(-1, 1, 1, 1)
            shift = bias - mean * scale
            maps = F.conv2d(maps, kernel, shift, conv.stride, padding, groups=conv.groups)
        else:
            maps = bn(F.conv2d(maps, conv.weight, None, conv.stride, padding, groups=conv.groups))
        return maps.flatten(2).transpose(1, 2)


class ConvAttention(nn.Module):
    """Attention whose queries, keys and values pass convolutions before they are projected.

    Scores are scaled by the width of all heads together, ``C ** -0.5``, as in the official code.

    Args:
        dim: width C.
        num_heads: number of heads; must divide ``dim``.
        frozen_batch_norm: see `ConvProjection`.
        prompt_conv: see `PromptedCvt`.
    """

    def __init__(
        self, dim: int, num_heads: int, *, frozen_batch_norm: bool, prompt_conv: PromptConv
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads must divide the width {dim}, got {num_heads}")
        self.num_heads = num_heads
        self.scale = dim**-0.5
        self.prompt_conv = prompt_conv
        self.conv_proj_q = ConvProjection(dim, stride=1, frozen_batch_norm=frozen_batch_norm)
        self.conv_proj_k = ConvProjection(dim, stride=2, frozen_batch_norm=frozen_batch_norm)
        self.conv_proj_v = ConvProjection(dim, stride=2, frozen_batch_norm=frozen_batch_norm)
        self.proj_q = nn.Linear(dim, dim)
        self.proj_k = nn.Linear(dim, dim)
        self.proj_v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def project(
        self, x: Float[Tensor, "B X C"], grid: tuple[int, int], *, num_prompts: int, num_cls: int
    ) -> tuple[Float[Tensor, "B h X d"], Float[Tensor, "B h Y d"], Float[Tensor, "B h Y d"]]:
        """Return queries, keys and values of one image and its prompts.

        Args:
            x: normalised tokens: prompts, class tokens, then the map row by row.
            grid: rows and columns of the map.
            num_prompts: prompts P at the start of ``x``.
            num_cls: class tokens after them, which no convolution sees.

        Returns:
            One query per token; keys and values in the same order, of the strided map.
        """
        prompts = x[:, :num_prompts]
        cls = x[:, num_prompts : num_prompts + num_cls]
        patches = x[:, num_prompts + num_cls :]
        projected = []
        for conv, linear in (
            (self.conv_proj_q, self.proj_q),
            (self.conv_proj_k, self.proj_k),
            (self.conv_proj_v, self.proj_v),
        ):
            tokens = conv(patches, grid)
            if num_prompts + num_cls:
                tokens = torch.cat([self._prompt_tokens(conv, prompts), cls, tokens], dim=1)
            heads = linear(tokens).unflatten(2, (self.num_heads, -1))  # (B, Y, h, d)
            projected.append(heads.transpose(1, 2))
        queries, keys, values = projected
        return queries, keys, values

    def attend(
        self,
        queries: Float[Tensor, "B h Q d"],
        keys: Float[Tensor, "B h N d"],
        values: Float[Tensor, "B h N d"],
        *,
        num_template_queries: int = 0,
        num_template_keys: int = 0,
        key_bias: Float[Tensor, " N"] | None = None,
    ) -> Float[Tensor, "B Q C"]:
        """Attend, join the heads and project; templates come first and see templates alone.

        A bias is added to the scores of each key, where there are no template queries.
        """
        if key_bias is None:
            attended = asymmetric_attention(
                queries,
                keys,
                values,
                num_template_queries=num_template_queries,
                num_template_keys=num_template_keys,
                scale=self.scale,
            )  # (B, h, Q, d)
        else:
            bias = key_bias.to(queries.dtype).view(1, 1, 1, -1)
            attended = F.scaled_dot_product_attention(
                queries, keys, values, attn_mask=bias, scale=self.scale
            )  # (B, h, Q, d)
        return self.proj(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _prompt_tokens(self, conv: ConvProjection, prompts: Tensor) -> Tensor:
        if self.prompt_conv == "bypass" or not prompts.shape[1]:
            return prompts
        side = _side(prompts.shape[1])
        keeps_number = self.prompt_conv == "padded_image" and conv.conv.stride[0] == 2
        tokens: Tensor = conv(prompts, (side, side), extra_padding=side // 2 if keeps_number else 0)
        return tokens


class CvtBlock(nn.Module):
    """One transformer layer: attention and MLP, each after a norm and beside a residual.

    Args:
        dim: width C.
        num_heads: number of heads.
        drop_path_rate: share of images for which a branch is left out in training.
        frozen_batch_norm: see `ConvProjection`.
        prompt_conv: see `PromptedCvt`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        drop_path_rate: float,
        frozen_batch_norm: bool,
        prompt_conv: PromptConv,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = ConvAttention(
            dim, num_heads, frozen_batch_norm=frozen_batch_norm, prompt_conv=prompt_conv
        )
        self.drop_path = DropPath(drop_path_rate)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim, act_layer=QuickGELU)

    def forward(
        self,
        x: Float[Tensor, "B X C"],
        grid: tuple[int, int],
        *,
        num_prompts: int,
        num_cls: int,
        keep_prompts: bool,
        also_seen: tuple[Float[Tensor, "B h M d"], Float[Tensor, "B h M d"]] | None = None,
        prompt_gate: Float[Tensor, ""] | None = None,
    ) -> Float[Tensor, "B Y C"]:
        """Return the sequence after the layer, without its prompts if they are not kept.

        Keys and values of other images that the sequence also sees, such as a tracker's
        templates, come before its own. The gate is added to the scores of the prompts' keys.
        """
        queries, keys, values = self.attn.project(
            self.norm1(x), grid, num_prompts=num_prompts, num_cls=num_cls
        )
        key_bias = None
        if prompt_gate is not None and num_prompts:
            num_earlier = 0 if also_seen is None else also_seen[0].shape[2]
            num_others = num_cls + -(-grid[0] // 2) * -(-grid[1] // 2)  # after the prompts' keys
            gates = prompt_gate.expand(keys.shape[2] - num_others)
            key_bias = F.pad(gates, (num_earlier, num_others))  # (N,)
        if also_seen is not None:
            keys = torch.cat([also_seen[0], keys], dim=2)
            values = torch.cat([also_seen[1], values], dim=2)
        if not keep_prompts:
            x, queries = x[:, num_prompts:], queries[:, :, num_prompts:]
        return self.finish(x, self.attn.attend(queries, keys, values, key_bias=key_bias))

    def finish(
        self, x: Float[Tensor, "B X C"], attended: Float[Tensor, "B X C"]
    ) -> Float[Tensor, "B X C"]:
        """Add what was attended to the layer's input, then the MLP of the sum."""
        x = x + self.drop_path(attended)
        return x + self.drop_path(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


def _side(num_prompts: int) -> int:
    side = math.isqrt(num_prompts)
    if side * side != num_prompts:
        raise ValueError(
            f"prompts pass convolutions as a square map: their number must be a square, "
            f"such as 9 for 3x3, got {num_prompts}"
        )
    return side
