"""Prompt a backbone of your own: a plain vision transformer in ``VideoEncoder``.

A backbone needs five things: ``embed_dim``, ``prompt_dims``, ``embed``, ``grid_size`` and a
forward that takes prompts. Everything else, here a classifier of frames, stays as it was.

    python examples/own_backbone.py
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stpn_core import TransformerPredictor, VideoEncoder
from stpn_data import CausalSampler


class PlainViT(nn.Module):
    """A vision transformer whose layers also see the prompts."""

    def __init__(self, patch_size: int = 16, width: int = 64, num_layers: int = 4) -> None:
        super().__init__()
        self.embed_dim = width
        self.prompt_dims = (width,) * num_layers
        self.patch_size = patch_size
        self.patches = nn.Conv2d(3, width, patch_size, patch_size)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, batch_first=True, norm_first=True)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(width)

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of the tokens."""
        return height // self.patch_size, width // self.patch_size

    def embed(self, images: Tensor) -> Tensor:
        """Return tokens ``(B, N, C)`` of a pass without prompts."""
        return self(images)[0].flatten(2).transpose(1, 2)

    def forward(self, images: Tensor, prompts: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Return one feature map ``(B, C, H / 16, W / 16)``."""
        maps = self.patches(images)  # (B, C, h, w)
        tokens = maps.flatten(2).transpose(1, 2)  # (B, N, C)
        num_tokens = tokens.shape[1]
        for index, layer in enumerate(self.layers):
            if prompts is not None and index < len(prompts):  # shallow: 1, deep: one per layer
                tokens = torch.cat(
                    (prompts[index], tokens[:, -num_tokens:]), dim=1
                )  # (B, P + N, C)
            tokens = layer(tokens)
        tokens = self.norm(tokens[:, -num_tokens:])  # (B, N, C)
        return [tokens.transpose(1, 2).unflatten(2, maps.shape[2:])]


def main() -> None:
    """Train one step on clips, then stream a video."""
    torch.manual_seed(0)
    backbone = PlainViT()
    encoder = VideoEncoder(backbone, TransformerPredictor.for_backbone(backbone, num_prompts=5))
    head = nn.Linear(64, 10)

    frame, support = torch.rand(2, 3, 64, 96), torch.rand(2, 4, 3, 64, 96)
    (features,) = encoder(frame, support)
    loss = nn.functional.cross_entropy(head(features.mean((2, 3))), torch.tensor([3, 7]))
    loss.backward()
    print(f"training: features {tuple(features.shape)}, loss {loss.item():.3f}")

    encoder.eval()
    stream = encoder.stream(CausalSampler(num_frames=3, stride=2))
    for video_frame in torch.rand(8, 1, 3, 64, 96):
        for encoded in stream.push(video_frame):
            label = head(encoded.features[0].mean((2, 3))).argmax().item()
            print(f"frame {encoded.index}: class {label}, supported by {stream.state.support}")


if __name__ == "__main__":
    main()
