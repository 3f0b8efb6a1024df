"""The video encoder: a promptable backbone and a prompt predictor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stpn_core.batches import Describe
from stpn_core.images import check_images
from stpn_core.predictors import PromptPredictor
from stpn_core.prompts import StaticPrompts
from stpn_core.stream import Sampler, StreamState, VideoStream


@runtime_checkable
class PromptableBackbone(Protocol):
    """What a backbone must offer to be prompted.

    Attributes:
        embed_dim: width C of the tokens that ``embed`` returns.
        prompt_dims: width of every transformer layer, in order.
    """

    embed_dim: int
    prompt_dims: tuple[int, ...]

    def embed(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N C"]:
        """Return the last-stage tokens, after the output norm, of a pass without prompts."""
        ...

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of ``embed``'s tokens for images of that size in pixels."""
        ...

    def __call__(
        self, images: Float[Tensor, "B 3 H W"], prompts: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """Return feature maps ``(B, C_i, H_i, W_i)``, high to low resolution.

        Args:
            images: a batch of images.
            prompts: one tensor ``(B, P, D)`` that enters before the first layer, or one
                ``(B, P, D_i)`` per layer of ``prompt_dims``, which replaces the prompt tokens
                before that layer. Without prompts the last map holds the tokens of ``embed``.
        """
        ...


class VideoEncoder(nn.Module):
    """Encode frames with a backbone that is prompted by their support frames.

    Args:
        backbone: any module that satisfies ``PromptableBackbone``.
        predictor: makes the prompts of the support frames. ``None`` leaves the plain backbone,
            the single-frame baseline, behind the same interface; ``StaticPrompts`` are learned
            prompts that need no support frames.
        support_grad: let gradients flow through the backbone's pass over the support frames.
            The authors do not (default), which more than halves the cost of a training step.

    Raises:
        ValueError: if the predictor's widths are not the backbone's.
    """

    def __init__(
        self,
        backbone: PromptableBackbone,
        predictor: PromptPredictor | StaticPrompts | None,
        *,
        support_grad: bool = False,
    ) -> None:
        super().__init__()
        if predictor is not None:
            _check_widths(backbone, predictor)
        self.backbone = backbone
        self.predictor = predictor
        self.support_grad = support_grad

    @property
    def takes_support(self) -> bool:
        """Whether support frames have a say: there is a predictor that reads them."""
        return isinstance(self.predictor, PromptPredictor)

    def forward(
        self,
        frame: Float[Tensor, "B 3 H W"],
        support: Float[Tensor, "B K 3 h w"] | None,
    ) -> list[Tensor]:
        """Return the features of the current frames (Eq. 1 and 8-10).

        Args:
            frame: current frames, normalised as the backbone's weights expect.
            support: K support frames of each, of any one size; ``None`` encodes without prompts,
                or with static ones if the encoder has them.

        Returns:
            Feature maps ``(B, C_i, H_i, W_i)``, high to low resolution.

        Raises:
            TypeError: if images are not floating point.
            ValueError: if a shape is wrong, there is no support frame, or a pixel is not finite.
        """
        check_images(frame, "frame", 4)
        if support is None:
            predictor = self.predictor
            static = predictor(len(frame)) if isinstance(predictor, StaticPrompts) else None
            return self.backbone(frame, static)
        check_images(support, "support", 5)
        if support.shape[0] != frame.shape[0]:
            raise ValueError(
                f"support has {support.shape[0]} clips, frame has {frame.shape[0]}: one each"
            )
        return self.backbone(frame, self.prompts(support))

    def prompts(self, support: Float[Tensor, "B K 3 h w"]) -> list[Tensor]:
        """Predict prompts from support frames: one tensor ``(B, P, D_i)`` per prompted layer."""
        embeddings = self.embed(support.flatten(0, 1))  # (B*K, n, d)
        return self.predict(embeddings.unflatten(0, support.shape[:2]))

    def embed(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B n d"]:
        """Return what the predictor needs of single support frames."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.support_grad):
            tokens = self.backbone.embed(images)  # (B, N, C)
        grid = self.backbone.grid_size(images.shape[-2], images.shape[-1])
        return self._predictor.embed(tokens, grid)

    def embed_with_features(
        self, images: Float[Tensor, "B 3 h w"], *, features_grad: bool = False
    ) -> tuple[Float[Tensor, "B n d"] | None, list[Tensor]]:
        """Return of single support frames what `embed` does, and their plain feature maps.

        One pass over the backbone gives both: the last map holds the tokens that the predictor
        reads.

        Args:
            images: support frames.
            features_grad: let gradients through the pass by way of the maps; ``support_grad``
                says the same of the embeddings.

        Returns:
            The embeddings, ``None`` if no predictor reads them, and maps ``(B, C_i, H_i, W_i)``,
            high to low resolution.
        """
        with torch.set_grad_enabled(
            torch.is_grad_enabled() and (self.support_grad or features_grad)
        ):
            features = self.backbone(images)
        embeddings = None
        if self.takes_support:
            tokens = features[-1].flatten(2).transpose(1, 2)  # (B, N, C)
            grid = self.backbone.grid_size(images.shape[-2], images.shape[-1])
            embeddings = self._predictor.embed(
                tokens if self.support_grad else tokens.detach(), grid
            )
        return embeddings, features if features_grad else [maps.detach() for maps in features]

    def predict(self, embeddings: Float[Tensor, "B K n d"]) -> list[Tensor]:
        """Predict prompts from what `embed` returned for K support frames."""
        return self._predictor.predict(embeddings)

    def stream(
        self,
        sampler: Sampler | None,
        state: StreamState | None = None,
        *,
        describe: Describe | None = None,
        frames_per_pass: int = 1,
    ) -> VideoStream:
        """Return a stream that is fed the frames of a video one by one.

        Args:
            sampler: chooses the support frames of each frame; ``None`` encodes without them.
            state: where an earlier stream stopped; ``None`` begins a video.
            describe: see `VideoStream`.
            frames_per_pass: frames that pass the backbone together; see `VideoStream`.

        Raises:
            ValueError: if the sampler needs the whole video and cannot stream, or this encoder
                has no predictor and nothing else describes support frames.
        """
        return VideoStream(self, sampler, state, describe=describe, frames_per_pass=frames_per_pass)

    @property
    def _predictor(self) -> PromptPredictor:
        if not isinstance(self.predictor, PromptPredictor):
            raise ValueError("this encoder has no predictor: it takes no support frames")
        return self.predictor


def _check_widths(backbone: PromptableBackbone, predictor: PromptPredictor | StaticPrompts) -> None:
    if isinstance(predictor, PromptPredictor):
        widths = predictor.projection.prompt_dims
        if predictor.embed_dim != backbone.embed_dim:
            raise ValueError(
                f"the predictor reads tokens of width {predictor.embed_dim}, "
                f"the backbone gives {backbone.embed_dim}"
            )
    else:
        widths = predictor.prompt_dims
    if widths not in (backbone.prompt_dims[:1], backbone.prompt_dims):
        raise ValueError(
            f"the prompts have the widths {widths}; the backbone takes "
            f"{backbone.prompt_dims[:1]} (shallow) or {backbone.prompt_dims} (deep)"
        )
