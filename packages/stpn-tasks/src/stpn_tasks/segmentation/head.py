"""The Mask2Former head, as MinVIS runs it on single frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from stpn_tasks.segmentation.masked_decoder import MaskedDecoder, Segmented
from stpn_tasks.segmentation.pixel_decoder import PixelDecoder


class Mask2FormerHead(nn.Module):
    """Segment objects on the feature maps of any backbone (Cheng et al., CVPR 2022).

    The defaults are those of Mask2Former and MinVIS on ResNet-50 and Swin-T; Swin-L has 200
    queries. Weights begin as in the original. With three maps the encoder reads the coarser two
    and the pyramid's map is the third level of the memory; two maps or one work alike.

    Args:
        channels: of each map, high to low resolution. Masks have the grid of the first map, which
            is a quarter of the image in all backbones here.
        num_classes: K, without no-object.
        num_queries: Q, at least as many as there are objects in a frame: what is more is not
            supervised.
        dim: width C of memory and queries, a multiple of 32 and of the heads.
        mask_dim: width of the features that masks are predicted from.
        num_heads: of all attention.
        encoder_layers: deformable layers of the pixel decoder.
        encoder_ffn_dim: width of their feed-forward networks.
        encoder_points: places that a head looks at on each level.
        decoder_layers: layers of the masked decoder.
        decoder_ffn_dim: width of their feed-forward networks.

    Raises:
        ValueError: if there are no maps, or ``dim`` is no multiple of 32 or of the heads.
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        *,
        num_queries: int = 100,
        dim: int = 256,
        mask_dim: int = 256,
        num_heads: int = 8,
        encoder_layers: int = 6,
        encoder_ffn_dim: int = 1024,
        encoder_points: int = 4,
        decoder_layers: int = 9,
        decoder_ffn_dim: int = 2048,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads must divide the width {dim}, got {num_heads}")
        self.num_classes = num_classes
        self.pixel_decoder = PixelDecoder(
            channels,
            dim=dim,
            mask_dim=mask_dim,
            num_layers=encoder_layers,
            ffn_dim=encoder_ffn_dim,
            num_heads=num_heads,
            num_points=encoder_points,
        )
        self.decoder = MaskedDecoder(
            num_classes,
            num_queries=num_queries,
            num_levels=self.pixel_decoder.num_levels,
            dim=dim,
            mask_dim=mask_dim,
            num_layers=decoder_layers,
            ffn_dim=decoder_ffn_dim,
            num_heads=num_heads,
        )

    def forward(self, features: Sequence[Float[Tensor, "B _ _ _"]]) -> Segmented:
        """Return what the queries find in B images; see `Segmented`.

        Args:
            features: maps ``(B, C_i, H_i, W_i)``, high to low resolution.

        Raises:
            ValueError: if the maps are not as many and as wide as announced.
        """
        memory, mask_features = self.pixel_decoder(features)
        return cast("Segmented", self.decoder(memory, mask_features))
