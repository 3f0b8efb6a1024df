"""The stages of a CvT, which its classifiers and the trackers on it run each in their own way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stpn_backbones.cvt_layers import ConvEmbedding, CvtBlock, PromptConv, to_maps
from stpn_backbones.inputs import check_images, prompts_by_layer


class CvtStage(nn.Module):
    """A convolutional embedding and the transformer layers on its tokens.

    Args:
        patch_embed: makes the stage's tokens.
        blocks: the layers.
        cls_token: whether a learned class token joins the tokens.
    """

    def __init__(
        self, patch_embed: ConvEmbedding, blocks: Sequence[CvtBlock], *, cls_token: bool
    ) -> None:
        super().__init__()
        self.patch_embed = patch_embed
        self.blocks = nn.ModuleList(blocks)
        self.cls_token: nn.Parameter | None = None
        if cls_token:
            dim = patch_embed.proj.out_channels
            self.cls_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, dim), std=0.02))


class CvtStages(nn.Module):
    """Build the stages of a CvT; a subclass says what passes through them.

    Parameters bear Microsoft's names.

    Args:
        dims: width C of each stage.
        depths: transformer layers of each stage.
        num_heads: attention heads of each stage.
        cls_token: give the last stage a class token.
        prompt_conv: how prompts pass the convolutions before queries, keys and values, which the
            paper leaves open. ``"bypass"``: not at all, as CvT treats its class token.
            ``"image"``: as a square map with the image's padding and stride, so that 9 prompts
            have 4 keys. ``"padded_image"``: the same padded to keep their number, 9 keys.
        drop_path_rate: of the last layer; grows from 0 over the last stage, 0 in the others.
        frozen_batch_norm: keep statistics and weights of the batch norms constant, as MixFormer
            does: clips come in small batches. ``False`` trains them, for training from scratch.

    Attributes:
        embed_dim: width C of the tokens of the last stage.
        prompt_dims: width of every transformer layer, in order.
        out_channels: width of every feature map.
        strides: pixels per cell of every feature map.

    Raises:
        ValueError: if the stages' settings differ in number, heads do not divide a width, or
            ``prompt_conv`` is unknown.
    """

    def __init__(
        self,
        dims: Sequence[int],
        depths: Sequence[int],
        num_heads: Sequence[int],
        *,
        cls_token: bool,
        prompt_conv: PromptConv,
        drop_path_rate: float,
        frozen_batch_norm: bool,
    ) -> None:
        super().__init__()
        if not len(dims) == len(depths) == len(num_heads) or not dims or min(depths) < 1:
            raise ValueError(
                f"dims, depths and num_heads must have one positive number per stage, got "
                f"{tuple(dims)}, {tuple(depths)} and {tuple(num_heads)}"
            )
        if prompt_conv not in get_args(PromptConv):
            raise ValueError(
                f"prompt_conv must be one of {get_args(PromptConv)}, got {prompt_conv!r}"
            )
        self.num_cls = int(cls_token)
        self.out_channels: tuple[int, ...] = tuple(dims)
        self.strides: tuple[int, ...] = tuple(4 * 2**stage for stage in range(len(dims)))
        self.prompt_dims: tuple[int, ...] = tuple(
            dim for dim, depth in zip(dims, depths, strict=True) for _ in range(depth)
        )
        self.embed_dim = self.out_channels[-1]
        channels = 3
        for stage, (dim, depth, heads) in enumerate(zip(dims, depths, num_heads, strict=True)):
            is_last = stage == len(dims) - 1
            highest = drop_path_rate if is_last else 0.0
            blocks = [
                CvtBlock(
                    dim,
                    heads,
                    drop_path_rate=highest * index / max(depth - 1, 1),
                    frozen_batch_norm=frozen_batch_norm,
                    prompt_conv=prompt_conv,
                )
                for index in range(depth)
            ]
            kernel_size, stride, padding = (3, 2, 1) if stage else (7, 4, 2)
            embedding = ConvEmbedding(
                channels, dim, kernel_size=kernel_size, stride=stride, padding=padding
            )
            self.add_module(
                f"stage{stage}", CvtStage(embedding, blocks, cls_token=cls_token and is_last)
            )
            channels = dim
        self.apply(_initialise)

    def stage_sequences(
        self,
        images: Float[Tensor, "B channels H W"],
        prompts: Sequence[Float[Tensor, "B P _"]] | None = None,
        *,
        also_seen: Sequence[tuple[Tensor, Tensor]] | None = None,
        prompt_gates: Float[Tensor, " layers"] | None = None,
    ) -> list[tuple[Float[Tensor, "B _ _"], int, tuple[int, int]]]:
        """Return per stage the sequence, how many tokens precede the map's, and the grid.

        Args:
            images: of any size from 3 pixels per side.
            prompts: as `PromptedCvt.forward` takes them; after the last layer they are gone.
            also_seen: keys and values ``(B, h, M, d)`` per layer, of other images, which these
                images and their prompts attend to beside their own.
            prompt_gates: per layer, what is added to the scores of the prompts' keys.

        Raises:
            TypeError: if the images' dtype is not that of the weights (unless under autocast).
            ValueError: if rank, channels, batch, width or number of images, prompts or layers
                is wrong.
        """
        if also_seen is not None and len(also_seen) != len(self.prompt_dims):
            raise ValueError(
                f"also_seen must have keys and values for each of {len(self.prompt_dims)} layers, "
                f"got {len(also_seen)}"
            )
        stages = list(self.stages)
        check_images(images, stages[0].patch_embed.proj.weight)
        entering = prompts_by_layer(images, prompts, self.prompt_dims)
        surviving = [later is None for later in entering[1:]] + [False]
        maps, carried = images, None
        layer = 0
        outputs = []
        for stage in stages:
            x, grid = stage.patch_embed(maps)  # (B, H*W, C)
            num_cls, num_prompts = 0, 0
            if stage.cls_token is not None:
                num_cls = 1
                x = torch.cat([stage.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
            if carried is not None:
                num_prompts = carried.shape[1]
                x = torch.cat([stage.patch_embed.embed_prompts(carried), x], dim=1)
            for block in stage.blocks:
                new_prompts = entering[layer]
                if new_prompts is not None:
                    x = torch.cat([new_prompts, x], dim=1)  # (B, P + H*W, C)
                    num_prompts = new_prompts.shape[1]
                x = block(
                    x,
                    grid,
                    num_prompts=num_prompts,
                    num_cls=num_cls,
                    keep_prompts=surviving[layer],
                    also_seen=None if also_seen is None else also_seen[layer],
                    prompt_gate=None if prompt_gates is None else prompt_gates[layer],
                )
                num_prompts = num_prompts if surviving[layer] else 0
                layer += 1
            outputs.append((x, num_prompts + num_cls, grid))
            carried = x[:, :num_prompts] if num_prompts else None
            maps = to_maps(x[:, num_prompts + num_cls :], grid)
        return outputs

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of the last stage's tokens for images of that size in pixels."""
        halvings = 2 ** (len(self.strides) - 1)
        return -(-((height + 1) // 4) // halvings), -(-((width + 1) // 4) // halvings)

    @property
    def stages(self) -> Iterator[CvtStage]:
        """The stages in order, ``stage0``, ``stage1`` and so on."""
        for stage in range(len(self.strides)):
            yield cast("CvtStage", getattr(self, f"stage{stage}"))


def _initialise(module: nn.Module) -> None:
    """Draw linear weights as transformers do; convolutions keep torch's default."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
