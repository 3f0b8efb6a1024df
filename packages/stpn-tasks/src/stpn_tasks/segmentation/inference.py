"""Segmentation of whole videos frame by frame: streamed, or with prompts once per video."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from stpn_data.videos import VideoDataset
from stpn_tasks.recipes import SupportOptions
from stpn_tasks.segmentation.build import build_preparation, build_test_sampler
from stpn_tasks.segmentation.checkpoint import SavedSegmenter
from stpn_tasks.segmentation.mask_resize import FrameSizes
from stpn_tasks.segmentation.segmenter import MinVIS
from stpn_tasks.video_encoding import EncodedGroup, Frame, VideoEncoding


@dataclass(frozen=True)
class QueriesOfFrame:
    """What the Q queries find in one frame of B videos, before anything is associated.

    Attributes:
        index: of the frame in its video.
        logits: of K classes and, last, of being no object.
        masks: logits, on the grid of the backbone's finest map.
        embeddings: tell objects apart from frame to frame.
        sizes: of the frame on its way through the network.
    """

    index: int
    logits: Float[Tensor, "B Q classes"]
    masks: Float[Tensor, "B Q h w"]
    embeddings: Float[Tensor, "B Q C"]
    sizes: FrameSizes


@dataclass(frozen=True)
class VideoSegmentation:
    """Run a segmenter over videos; B videos of one size and length go in lock-step.

    Its queries are those of single frames, in memory that does not grow with the video;
    `VideoOutput` and `StreamOutput` make tracks of them.

    Attributes:
        segmenter: in eval mode.
        encoding: of its encoder: the policy of support frames, whose they are, and sizes.
    """

    segmenter: MinVIS
    encoding: VideoEncoding

    def stream(self, frames: Iterable[Sequence[Frame]]) -> Iterator[QueriesOfFrame]:
        """Yield the queries of each frame, in order; see `VideoEncoding.stream`."""
        for group in self.encoding.stream(frames):
            yield from self.segment(group)

    def whole(
        self,
        frames: Iterable[Sequence[Frame]],
        num_frames: int,
        read_support: Callable[[int], Sequence[Frame]],
    ) -> Iterator[QueriesOfFrame]:
        """Yield the queries of each frame, in order; see `VideoEncoding.whole`."""
        for group in self.encoding.whole(frames, num_frames, read_support):
            yield from self.segment(group)

    def videos(self, dataset: VideoDataset, numbers: Sequence[int]) -> Iterator[QueriesOfFrame]:
        """Yield the queries of each frame of some videos; see `VideoEncoding.videos`."""
        for group in self.encoding.videos(dataset, numbers):
            yield from self.segment(group)

    @torch.no_grad()
    def segment(self, group: EncodedGroup) -> Iterator[QueriesOfFrame]:
        """Segment F frames of B videos together; yield the queries of each of the F."""
        if not group.frames:
            return
        images, size, original = group.first
        height, width = images.shape[-2:]
        sizes = FrameSizes(image=size, padded=(height, width), output=original)
        found = self.segmenter.segment(group.maps())
        parts = (part.split(len(images)) for part in (found.logits, found.masks, found.embeddings))
        for encoded, logits, masks, embeddings in zip(group.frames, *parts, strict=True):
            yield QueriesOfFrame(encoded.index, logits, masks, embeddings, sizes)


def build_inference(
    saved: SavedSegmenter,
    device: torch.device,
    support: SupportOptions,
    frames_per_pass: int = 1,
) -> VideoSegmentation:
    """Return what runs a segmenter from a file over videos.

    Args:
        saved: the segmenter.
        device: where it shall run.
        support: other support frames than the recipe's, or none.
        frames_per_pass: frames of each video that pass the network together.

    Raises:
        ValueError: if static prompts shall be off, which are part of their network; or no frame
            shall pass it.
    """
    recipe = replace(saved.recipe, prompts=support.change(saved.recipe.prompts))
    if support.off and recipe.prompts.predictor == "static":
        raise ValueError("support.off is for prompts of support frames, not for static ones")
    segmenter = saved.segmenter.to(device)
    encoding = VideoEncoding(
        segmenter.encoder,
        None if support.off else build_test_sampler(recipe),
        build_preparation(recipe, device),
        recipe.prompts.support_video,
        frames_per_pass,
    )
    return VideoSegmentation(segmenter, encoding)
