"""The prompted Swin in the order of the released code, as a peer to be timed against.

Prompts are copied into every window before they are projected; the map is padded, rolled, cut and
put together again in every layer; bias, mask, scores and weights of all windows lie in memory. Only
the released mixing of images is left out, so that the numbers are ours.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor

from stpn_backbones import PromptedSwin
from stpn_kernels.prompted_window_attention.reference import (
    partition,
    position_bias,
    reverse,
    shift_mask,
)


class ReleasedOrderSwin(PromptedSwin):
    """`PromptedSwin` with the layers of the released code; eager only."""

    def _block(
        self,
        block: SwinTransformerBlock,
        x: Tensor,
        grid: tuple[int, int],
        shifted: bool,
        num_prompts: int,
        keep_prompts: bool,
    ) -> Tensor:
        window_size = block.attn.window_size[0]
        shift = window_size // 2 if shifted else 0
        normed = block.norm1(x)
        prompts, tokens = normed[:, :num_prompts], normed[:, num_prompts:]
        patches = tokens.unflatten(1, grid)  # (B, H, W, C)
        below, right = -grid[0] % window_size, -grid[1] % window_size
        patches = F.pad(patches, (0, 0, 0, right, 0, below)).roll((-shift, -shift), (1, 2))
        windows = partition(patches, window_size)  # (B, M, T, C)
        copies = prompts[:, None].expand(-1, windows.shape[1], -1, -1)
        windows = torch.cat([copies, windows], dim=2)  # (B, M, N, C)
        attended = _attend(block, windows, patches, shift, num_prompts)
        prompts = attended[:, :, :num_prompts].mean(1)  # (B, P, C)
        patches = reverse(
            attended[:, :, num_prompts:], patches.shape[1], patches.shape[2], window_size
        )
        patches = patches.roll((shift, shift), (1, 2))[:, : grid[0], : grid[1]]
        x = x + torch.cat([prompts, patches.flatten(1, 2)], dim=1)
        x = x if keep_prompts else x[:, num_prompts:]
        return cast("Tensor", x + block.mlp(block.norm2(x)))


def _attend(
    block: SwinTransformerBlock, windows: Tensor, patches: Tensor, shift: int, num_prompts: int
) -> Tensor:
    """Attend in every window and project every row, prompts' copies too: (B, M, N, C)."""
    attn = block.attn
    window_size = attn.window_size[0]
    qkv = attn.qkv(windows).unflatten(3, (3, attn.num_heads, -1))  # (B, M, N, 3, h, d)
    q, k, v = qkv.permute(3, 0, 1, 4, 2, 5)
    scores = q * q.shape[-1] ** -0.5 @ k.mT  # (B, M, h, N, N)
    scores = scores + position_bias(attn.relative_position_bias_table, window_size, num_prompts)
    if shift:
        mask = shift_mask(patches.shape[1], patches.shape[2], window_size, shift, windows)
        scores = scores + F.pad(mask, (num_prompts, 0, num_prompts, 0))[:, None]
    out = (scores.softmax(-1) @ v).transpose(2, 3).flatten(3)  # (B, M, N, C)
    return cast("Tensor", attn.proj(out))
