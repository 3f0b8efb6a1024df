"""Centre a predictor on what it will read, before it is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from stpn_core import PromptPredictor, VideoEncoder
from stpn_data.batch import ClipBatch
from stpn_data.clips import Clip, ClipDataset
from stpn_tasks.recipes import PromptRecipe


@torch.no_grad()
def centre_on_clips(
    encoder: VideoEncoder,
    prompts: PromptRecipe,
    clips: ClipDataset,
    make_batch: Callable[[Sequence[Clip]], ClipBatch],
    *,
    seed: int,
    device: torch.device,
) -> None:
    """Centre an encoder's predictor on as many clips as its recipe says.

    Args:
        encoder: on the device, in eval mode.
        prompts: the recipe of the predictor.
        clips: to draw from.
        make_batch: makes a batch of them.
        seed: of the draw.
        device: where the encoder is.

    Raises:
        ValueError: if there is nothing to centre.
    """
    if prompts.centre_clips == 0:
        return
    predictor = encoder.predictor
    if not isinstance(predictor, PromptPredictor) or not predictor.can_centre:
        raise ValueError(
            f"prompts.centre_clips must be 0 for the predictor {prompts.predictor!r}: "
            "it has no reduction"
        )
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(seed))
    means = []
    for index in order[: prompts.centre_clips].tolist():
        support = make_batch([clips[index]]).to(device).support
        assert support is not None
        means.append(encoder.backbone.embed(support.flatten(0, 1)).mean((0, 1)))  # (C,)
    predictor.centre(torch.stack(means).mean(0))
