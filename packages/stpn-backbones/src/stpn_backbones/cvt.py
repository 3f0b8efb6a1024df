"""Convolutional vision transformer (CvT) with prompts, as STPN prompts MixFormer's backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from stpn_backbones.cvt_layers import PromptConv
from stpn_backbones.cvt_stages import CvtStages


class PromptedCvt(CvtStages):
    """Run a CvT (Wu et al. 2021) on images and prompts.

    Tokens live in one residual sequence ``(B, P + H*W, C)``, prompts first. Prompts and patches
    attend to each other. Between stages shallow prompts pass the next stage's convolutional
    embedding as a square map of their own (9 as 3x3), padded so that they keep their number; deep
    prompts are replaced anyway. After the last layer they are dropped. Each image has its own
    prompts, so a batch equals its images one by one (batch norms being frozen or evaluated).

    Each stage ends in an output norm: CvT's ``norm`` for the last one, `output_norms` for the
    others. Parameters bear Microsoft's names. Dropout and position embeddings CvT has none.

    Args:
        dims: width C of each stage.
        depths: transformer layers of each stage.
        num_heads: attention heads of each stage.
        cls_token: give the last stage the class token that published classifiers have. Dense
            heads and MixFormer do without.
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
        dims: Sequence[int] = (64, 192, 384),
        depths: Sequence[int] = (1, 2, 10),
        num_heads: Sequence[int] = (1, 3, 6),
        *,
        cls_token: bool = False,
        prompt_conv: PromptConv = "bypass",
        drop_path_rate: float = 0.0,
        frozen_batch_norm: bool = True,
    ) -> None:
        super().__init__(
            dims,
            depths,
            num_heads,
            cls_token=cls_token,
            prompt_conv=prompt_conv,
            drop_path_rate=drop_path_rate,
            frozen_batch_norm=frozen_batch_norm,
        )
        self.norm = nn.LayerNorm(dims[-1])
        self.output_norms = nn.ModuleList(nn.LayerNorm(dim) for dim in dims[:-1])

    def forward(
        self,
        images: Float[Tensor, "B channels H W"],
        prompts: Sequence[Float[Tensor, "B P _"]] | None = None,
    ) -> list[Float[Tensor, "B _ _ _"]]:
        """Return the feature maps of all stages, after their output norms.

        Args:
            images: of any size from 3 pixels per side.
            prompts: one tensor ``(B, P, D)`` that enters before the first layer (shallow; P must
                be a square number), or one ``(B, P, D_i)`` per layer of `prompt_dims`, which
                replaces the prompt tokens before that layer (deep, Eq. 11). None, or P = 0, gives
                the plain CvT.

        Returns:
            Maps ``(B, C_i, H_i, W_i)`` at `strides`, with ``H_0 = floor((H + 1) / 4)`` and
            ``H_i = ceil(H_(i-1) / 2)``.

        Raises:
            TypeError: if the images' dtype is not that of the weights (unless under autocast).
            ValueError: if rank, channels, batch, width or number of images or prompts is wrong.
        """
        norms = [*self.output_norms, self.norm]
        maps = []
        stages = self.stage_sequences(images, prompts)
        for norm, (x, num_leading, grid) in zip(norms, stages, strict=True):
            tokens = norm(x)[:, num_leading:]
            maps.append(tokens.transpose(1, 2).unflatten(2, grid))  # (B, C_i, H_i, W_i)
        return maps

    def embed(self, images: Float[Tensor, "B channels H W"]) -> Float[Tensor, "B N C"]:
        """Return the last-stage tokens, after the output norm, of a pass without prompts.

        Raises:
            TypeError: if the images' dtype is not that of the weights (unless under autocast).
            ValueError: if rank or channels of the images are wrong.
        """
        x, num_leading, _ = self.stage_sequences(images, None)[-1]
        return cast("Tensor", self.norm(x)[:, num_leading:])

    def classify_features(
        self,
        images: Float[Tensor, "B channels H W"],
        prompts: Sequence[Float[Tensor, "B P _"]] | None = None,
    ) -> Float[Tensor, "B C"]:
        """Return what CvT's classifier reads: the class token, without one the tokens' mean.

        Either comes after the output norm.

        Raises:
            TypeError: as `forward`.
            ValueError: as `forward`.
        """
        x, _, _ = self.stage_sequences(images, prompts)[-1]
        tokens: Tensor = self.norm(x)  # (B, N, C), a class token first
        return tokens[:, 0] if self.num_cls else tokens.mean(1)
