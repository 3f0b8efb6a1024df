"""Swin Transformer with prompts, on timm's modules (Sec. 3.3 of the paper, Eq. 8-11)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias, cast, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers.patch_embed import PatchEmbed
from timm.models.swin_transformer import (
    PatchMerging,
    SwinTransformer,
    SwinTransformerBlock,
    SwinTransformerStage,
)
from torch import Tensor, nn

from stpn_backbones.inputs import check_images, prompts_by_layer
from stpn_kernels import Backend, prompted_window_attention

PromptMerging: TypeAlias = Literal["repeat", "released"]


class PromptedSwin(nn.Module):
    """Run a timm Swin on images and prompts of any number.

    Tokens live in one residual sequence ``(B, P + H*W, C)``, prompts first. Every window attends
    to the prompts of its image, and they to it; the prompts' update is the mean over windows.
    Prompts are normalised, pass the MLPs and are merged with the patches, but take no relative
    position bias. Each image has its own prompts, so a batch equals its images one by one.

    Each stage ends in an output norm, as in detection Swins: timm's ``norm`` for the last stage,
    `output_norms` for the others. Windows are padded, then rolled, and the shift is kept even
    where the map is one window, as detection codes do.

    Args:
        swin: timm's model; its parameters are used and its state dict keys kept, below
            ``swin.``. Windows must be square and sized for the bias tables (``always_partition``).
        prompt_merging: how prompts take the place of 2x2 patches in patch merging. ``"repeat"``
            puts the prompt in all four places. ``"released"`` permutes its channels as the
            released code did, for weights trained by it.
        classification: treat maps no larger than a window as image classifiers do: if the
            smaller side of a map fits in a window, the window shrinks to that side and is not
            shifted. With square images of its size, features then equal timm's.
        attention_backend: of `stpn_kernels.prompted_window_attention`, in every layer.

    Attributes:
        embed_dim: width C of the tokens of the last stage.
        prompt_dims: width of every transformer layer, in order.
        out_channels: width of every feature map.
        strides: pixels per cell of every feature map.

    Raises:
        TypeError: if ``swin`` is not a timm ``SwinTransformer``.
        ValueError: if ``prompt_merging`` or ``attention_backend`` is unknown, patches or windows
            are not square, or ``swin`` drops attention weights (the attention operator does not).
    """

    def __init__(
        self,
        swin: SwinTransformer,
        *,
        prompt_merging: PromptMerging = "repeat",
        classification: bool = False,
        attention_backend: Backend = "auto",
    ) -> None:
        super().__init__()
        _check_swin(swin)
        if prompt_merging not in get_args(PromptMerging):
            raise ValueError(
                f"prompt_merging must be one of {get_args(PromptMerging)}, got {prompt_merging!r}"
            )
        if attention_backend not in get_args(Backend):
            raise ValueError(
                f"attention_backend must be one of {get_args(Backend)}, got {attention_backend!r}"
            )
        self.swin = swin
        self.prompt_merging = prompt_merging
        self.classification = classification
        self.attention_backend: Backend = attention_backend
        self.out_channels: tuple[int, ...] = tuple(info["num_chs"] for info in swin.feature_info)
        self.strides: tuple[int, ...] = tuple(info["reduction"] for info in swin.feature_info)
        self.prompt_dims: tuple[int, ...] = tuple(
            block.attn.dim for stage in _stages(swin) for block in _blocks(stage)
        )
        self.embed_dim = self.out_channels[-1]
        eps = cast("nn.LayerNorm", swin.norm).eps
        self.output_norms = nn.ModuleList(
            nn.LayerNorm(channels, eps=eps) for channels in self.out_channels[:-1]
        )

    def forward(
        self,
        images: Float[Tensor, "B channels H W"],
        prompts: Sequence[Float[Tensor, "B P _"]] | None = None,
    ) -> list[Float[Tensor, "B _ _ _"]]:
        """Return the feature maps of all stages, after their output norms.

        Args:
            images: of any size; padded with zeros at the bottom and right to whole patches.
            prompts: one tensor ``(B, P, D)`` that enters before the first layer (shallow), or
                one ``(B, P, D_i)`` per layer of `prompt_dims`, which replaces the prompt tokens
                before that layer (deep, Eq. 11). None, or P = 0, gives the plain Swin.

        Returns:
            Maps ``(B, C_i, H_i, W_i)`` at `strides`, with ``H_i = ceil(H / stride_i)``.

        Raises:
            TypeError: if the images' dtype is not that of the weights (unless under autocast).
            ValueError: if rank, channels, batch, width or number of images or prompts is wrong.
        """
        norms = [*self.output_norms, self.swin.norm]
        maps = []
        stages = self._stage_sequences(images, prompts)
        for norm, (x, num_prompts, grid) in zip(norms, stages, strict=True):
            tokens = norm(x)[:, num_prompts:]  # norm first: it would copy what is cut off
            maps.append(tokens.transpose(1, 2).unflatten(2, grid))  # (B, C_i, H_i, W_i)
        return maps

    def embed(self, images: Float[Tensor, "B channels H W"]) -> Float[Tensor, "B N C"]:
        """Return the last-stage tokens, after the output norm, of a pass without prompts.

        Raises:
            TypeError: if the images' dtype is not that of the weights (unless under autocast).
            ValueError: if rank or channels of the images are wrong.
        """
        tokens, _, _ = self._stage_sequences(images, None)[-1]
        return cast("Tensor", self.swin.norm(tokens))

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of `embed`'s tokens for images of that size in pixels."""
        stride = self.strides[-1]
        return -(-height // stride), -(-width // stride)

    def _stage_sequences(
        self, images: Tensor, prompts: Sequence[Tensor] | None
    ) -> list[tuple[Tensor, int, tuple[int, int]]]:
        """Return per stage the sequence ``(B, P + H*W, C)`` before merging, P, and the grid."""
        check_images(images, _patch_embed(self.swin).proj.weight)
        entering = prompts_by_layer(images, prompts, self.prompt_dims)
        surviving = [later is None for later in entering[1:]] + [False]
        x, grid = self._embed_patches(images)
        num_prompts = 0
        layer = 0
        outputs = []
        for stage in _stages(self.swin):
            if isinstance(stage.downsample, PatchMerging):
                x, grid = self._merge(stage.downsample, x, grid, num_prompts)
            for index, block in enumerate(_blocks(stage)):
                new_prompts = entering[layer]
                if new_prompts is not None:
                    x = torch.cat([new_prompts, x], dim=1)  # (B, P + H*W, C)
                    num_prompts = new_prompts.shape[1]
                shifted = index % 2 == 1
                x = self._block(block, x, grid, shifted, num_prompts, surviving[layer])
                num_prompts = num_prompts if surviving[layer] else 0
                layer += 1
            outputs.append((x, num_prompts, grid))
        return outputs

    def _embed_patches(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        # The convolution leaves out an incomplete patch, so this pads to whole patches. Sizes
        # free of remainders make dynamic graphs ten times quicker to build, and patch_embed
        # itself would tie them to one size by its assertions.
        padding = self.strides[0] - 1
        patch_embed = _patch_embed(self.swin)
        x = patch_embed.proj(F.pad(images, (0, padding, 0, padding)))  # (B, C, H, W)
        return patch_embed.norm(x.flatten(2).transpose(1, 2)), (x.shape[2], x.shape[3])

    def _block(
        self,
        block: SwinTransformerBlock,
        x: Tensor,
        grid: tuple[int, int],
        shifted: bool,
        num_prompts: int,
        keep_prompts: bool,
    ) -> Tensor:
        """Return the sequence after a block, without its prompts if they are not kept."""
        attended = self._attend(block, block.norm1(x), grid, shifted, num_prompts, keep_prompts)
        if not keep_prompts:
            x, attended = x[:, num_prompts:], attended[:, num_prompts:]  # (B, H*W, C)
        x = x + block.drop_path1(block.attn.proj_drop(block.attn.proj(attended)))
        return cast("Tensor", x + block.drop_path2(block.mlp(block.norm2(x))))

    def _attend(
        self,
        block: SwinTransformerBlock,
        x: Tensor,
        grid: tuple[int, int],
        shifted: bool,
        num_prompts: int,
        keep_prompts: bool,
    ) -> Tensor:
        attn = block.attn
        window_size = attn.window_size[0]
        shift = window_size // 2 if shifted else 0
        bias_table: Tensor = attn.relative_position_bias_table
        if self.classification and min(grid) <= window_size:
            bias_table = _crop_bias_table(bias_table, window_size, min(grid))
            window_size, shift = min(grid), 0
        qkv = attn.qkv(x).unflatten(2, (3, attn.num_heads, -1))  # (B, P + H*W, 3, h, d)
        qkv_bias = qkv.new_zeros(qkv.shape[2:]) if attn.qkv.bias is None else attn.qkv.bias
        return prompted_window_attention(
            qkv,
            qkv_bias.view(qkv.shape[2:]),
            bias_table,
            height=grid[0],
            width=grid[1],
            window_size=window_size,
            shift=shift,
            num_prompts=num_prompts,
            need_prompts=keep_prompts,
            backend=self.attention_backend,
        )  # (B, P + H*W, C)

    def _merge(
        self, merging: PatchMerging, x: Tensor, grid: tuple[int, int], num_prompts: int
    ) -> tuple[Tensor, tuple[int, int]]:
        """Merge 2x2 patches; each prompt stands in for four patches of its own."""
        prompts, patches = x[:, :num_prompts], x[:, num_prompts:].unflatten(1, grid)
        H, W = (grid[0] + 1) // 2, (grid[1] + 1) // 2
        patches = F.pad(patches, (0, 0, 0, 2 * W - grid[1], 0, 2 * H - grid[0]))
        patches = patches.unflatten(2, (W, 2)).unflatten(1, (H, 2))  # (B, H, 2, W, 2, C)
        x = patches.permute(0, 1, 3, 4, 2, 5).flatten(3).flatten(1, 2)  # (B, H*W, 4C)
        if num_prompts:
            x = torch.cat([self._four_places(prompts), x], dim=1)  # (B, P + H*W, 4C)
        return merging.reduction(merging.norm(x)), (H, W)  # (B, P + H*W, 2C)

    def _four_places(self, prompts: Tensor) -> Tensor:
        prompts = prompts.repeat(1, 1, 4)  # (B, P, 4C)
        if self.prompt_merging == "repeat":
            return prompts
        # The released code repeats like this, but its merging weights expect channels in the
        # order (C, row, column). Ours expect (column, row, C): reorder as the weights were.
        places: Tensor = prompts.unflatten(2, (-1, 2, 2))  # (B, P, C, 2, 2)
        return places.permute(0, 1, 4, 3, 2).flatten(2)  # (B, P, 4C)


def _crop_bias_table(table: Tensor, window_size: int, smaller: int) -> Tensor:
    """Return the biases of the offsets that occur within a smaller window."""
    side, border = 2 * window_size - 1, window_size - smaller
    kept = slice(border, side - border)
    return table.view(side, side, -1)[kept, kept].flatten(0, 1)  # ((2w-1)^2, h)


def _check_swin(swin: SwinTransformer) -> None:
    if not isinstance(swin, SwinTransformer):
        raise TypeError(f"swin must be timm's SwinTransformer, got {type(swin).__name__}")
    patch_height, patch_width = _patch_embed(swin).patch_size
    if patch_height != patch_width:
        raise ValueError(f"patches must be square, got {patch_height}x{patch_width}")
    for index, stage in enumerate(_stages(swin)):
        for block in _blocks(stage):
            height, width = block.attn.window_size
            if height != width:
                raise ValueError(f"stage {index}: windows must be square, got {height}x{width}")
            if block.attn.attn_drop.p:
                raise ValueError(
                    f"stage {index}: attn_drop_rate must be 0, got {block.attn.attn_drop.p}"
                )


def _patch_embed(swin: SwinTransformer) -> PatchEmbed:
    return cast("PatchEmbed", swin.patch_embed)


def _stages(swin: SwinTransformer) -> Iterable[SwinTransformerStage]:
    return cast("Iterable[SwinTransformerStage]", swin.layers)


def _blocks(stage: SwinTransformerStage) -> Iterable[SwinTransformerBlock]:
    return cast("Iterable[SwinTransformerBlock]", stage.blocks)
