"""From the network's masks to those of the video's frames, in Mask2Former's two steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate

from stpn_data.rle import encode_masks


@dataclass(frozen=True)
class FrameSizes:
    """Hold the (height, width) in pixels that a frame has on its way through the network.

    Attributes:
        image: what was resized for the network, before padding at right and bottom.
        padded: what the network saw.
        output: the frame of the video.
    """

    image: tuple[int, int]
    padded: tuple[int, int]
    output: tuple[int, int]

    def __post_init__(self) -> None:
        """Refuse sizes that are empty, or an image larger than what it was padded to."""
        if min(*self.image, *self.padded, *self.output) < 1 or (
            self.image[0] > self.padded[0] or self.image[1] > self.padded[1]
        ):
            raise ValueError(f"an image of {self.image} padded to {self.padded}, out {self.output}")

    def masks(self, logits: Float[Tensor, "n h w"]) -> Bool[Tensor, "n H W"]:
        """Return the masks of the video's frame: resized bilinearly, cropped, resized; above 0.

        Raises:
            ValueError: masks larger than what the network saw.
        """
        if logits.shape[1] > self.padded[0] or logits.shape[2] > self.padded[1]:
            raise ValueError(f"masks {tuple(logits.shape)} of an image of {self.padded}")
        if not len(logits):
            return torch.zeros((0, *self.output), dtype=torch.bool, device=logits.device)
        height, width = self.image
        padded = interpolate(logits[None].float(), self.padded, mode="bilinear")
        image = padded[..., :height, :width]
        return interpolate(image, self.output, mode="bilinear")[0] > 0


def encode(masks: Bool[Tensor, "n H W"]) -> list[dict[str, object]]:
    """Return the run-length encoding of masks, ``size`` and ``counts`` as text, as json takes it.

    An empty mask is one run, not None.
    """
    return encode_masks(masks.cpu().numpy())
