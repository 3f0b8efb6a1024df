"""MixFormer's backbone: a CvT whose search crop sees templates, which are encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from stpn_backbones import CvtStages, PromptConv
from stpn_backbones.cvt_layers import CvtBlock, to_maps


@dataclass(frozen=True)
class EncodedTemplates:
    """What search crops see of the templates of B clips, and the score module of the first one.

    Attributes:
        keys: of every transformer layer, ``(B, h, M, d)``: the initial template's, then those of
            the online templates.
        values: of every layer, in the same order and shape.
        tokens: of the last stage, ``(B, 1 + n, N, C)``, the initial template first.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    tokens: Float[Tensor, "B m N C"]

    def repeat_interleave(self, times: int) -> EncodedTemplates:
        """Return each clip's templates so many times in a row, for as many crops of each clip."""
        return EncodedTemplates(
            tuple(keys.repeat_interleave(times, dim=0) for keys in self.keys),
            tuple(values.repeat_interleave(times, dim=0) for values in self.values),
            self.tokens.repeat_interleave(times, dim=0),
        )


torch.export.register_dataclass(EncodedTemplates)  # so that programs take and return them


class MixedAttentionCvt(CvtStages):
    """Run a CvT on templates and search crops with mixed attention (MixFormer, Cui et al. 2022).

    Templates attend to each other. The search crop, and STPN's prompts, attend to templates,
    prompts and search crop. So templates do not depend on what is searched in: they are encoded
    once, to the last bit what they would be beside any search crop and prompts, and searching
    takes their keys and values. Training does the same with gradients, so that both modes are one;
    unlike the original, stochastic depth leaves out a layer of a clip's templates and of its search
    crop independently.

    Convolutions see one image at a time. There is no norm after the last layer.

    Args:
        dims: width C of each stage.
        depths: transformer layers of each stage.
        num_heads: attention heads of each stage.
        prompt_conv: how prompts pass the convolutions before queries, keys and values; see
            `CvtStages`.
        drop_path_rate: of the last layer; see `CvtStages`.
        frozen_batch_norm: keep batch norms constant, as the original does.

    Raises:
        ValueError: as `CvtStages`.
    """

    def __init__(
        self,
        dims: Sequence[int],
        depths: Sequence[int],
        num_heads: Sequence[int],
        *,
        prompt_conv: PromptConv = "bypass",
        drop_path_rate: float = 0.0,
        frozen_batch_norm: bool = True,
    ) -> None:
        super().__init__(
            dims,
            depths,
            num_heads,
            cls_token=False,
            prompt_conv=prompt_conv,
            drop_path_rate=drop_path_rate,
            frozen_batch_norm=frozen_batch_norm,
        )

    def encode_templates(self, templates: Float[Tensor, "B m 3 T T"]) -> EncodedTemplates:
        """Encode the templates of B clips, those of a clip together.

        Args:
            templates: of each clip, the initial one first.
        """
        num_images = templates.shape[1]
        maps = templates.flatten(0, 1)  # (B*m, 3, T, T)
        keys, values = [], []
        for stage in self.stages:
            x, grid = stage.patch_embed(maps)  # (B*m, N, C)
            x = _join(x, num_images, dim=1)  # (B, m*N, C)
            for block in cast("list[CvtBlock]", stage.blocks):
                images = block.norm1(x).unflatten(1, (num_images, -1)).flatten(0, 1)
                q, k, v = (
                    _join(heads, num_images, dim=2)  # (B, h, m*N, d)
                    for heads in block.attn.project(images, grid, num_prompts=0, num_cls=0)
                )
                x = block.finish(x, block.attn.attend(q, k, v))
                keys.append(k)
                values.append(v)
            tokens = x.unflatten(1, (num_images, -1))  # (B, m, N, C)
            maps = to_maps(tokens.flatten(0, 1), grid)
        return EncodedTemplates(tuple(keys), tuple(values), tokens)

    def search(
        self,
        crops: Float[Tensor, "B 3 S S"],
        templates: EncodedTemplates,
        prompts: Sequence[Float[Tensor, "B P _"]] | None = None,
        prompt_gates: Float[Tensor, " layers"] | None = None,
    ) -> tuple[Float[Tensor, "B N C"], tuple[int, int]]:
        """Return the last-stage tokens of search crops, row by row, and their grid.

        Args:
            crops: one of each clip.
            templates: of each clip.
            prompts: of each clip; one tensor (shallow) or one per layer (deep), as
                `PromptedCvt.forward` takes them. None, or no prompts, is plain MixFormer.
            prompt_gates: per layer, what is added to the scores of the prompts' keys.

        Raises:
            TypeError: if the crops' dtype is not that of the weights (unless under autocast).
            ValueError: if a shape or number does not fit.
        """
        if templates.tokens.shape[0] != crops.shape[0]:
            raise ValueError(
                f"templates are of {templates.tokens.shape[0]} clips, search crops of "
                f"{crops.shape[0]}: one set each"
            )
        pairs = list(zip(templates.keys, templates.values, strict=True))
        tokens, _, grid = self.stage_sequences(
            crops, prompts, also_seen=pairs, prompt_gates=prompt_gates
        )[-1]
        return tokens, grid


def _join(images: Tensor, num_images: int, *, dim: int) -> Tensor:
    """Join the tokens (dimension ``dim``) of the images that belong to a clip."""
    clips: Tensor = images.unflatten(0, (-1, num_images))  # (B, m, ...)
    return clips.movedim(1, dim).flatten(dim, dim + 1)
