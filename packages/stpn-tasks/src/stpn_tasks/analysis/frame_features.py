"""The features of chosen frames, as the detection head sees them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stpn_core import SupportFrame
from stpn_data.videos import VideoDataset
from stpn_tasks.detection.inference import VideoInference
from stpn_tasks.video_encoding import another_video, read_frames


@dataclass(frozen=True)
class FrameFeatures:
    """The features of one frame of one video.

    Attributes:
        index: which frame of the video.
        features: maps ``(1, C_i, H_i, W_i)``, high to low resolution; prompted, if the detector
            has prompts.
        size: (height, width) of the frame as the network takes it, without padding, pixels.
        padded: (height, width) with padding.
        scale: (height, width) of ``size`` divided by those of the frame itself.
        notes: what the detector notes of each support frame.
    """

    index: int
    features: list[Tensor]
    size: tuple[int, int]
    padded: tuple[int, int]
    scale: tuple[float, float]
    notes: tuple[Any, ...] = ()


@torch.no_grad()
def frame_features(
    inference: VideoInference, dataset: VideoDataset, video: int, frames: Iterable[int]
) -> Iterator[FrameFeatures]:
    """Yield the features of some frames of a video, the same that a stream would give of them.

    Only these frames and their support frames are read and encoded. What is known of a support
    frame is kept while the frames that follow each other share it.

    Args:
        inference: the detector with its sampler.
        dataset: annotated videos.
        video: number of the video.
        frames: numbers of the frames; ascending ones share most.

    Raises:
        ValueError: if the support frames shall be another video's and there is none, or a frame
            has not the size of its video; names the video.
    """
    length, sampler = dataset.videos[video].num_frames, inference.sampler
    is_own = sampler is None or inference.support_video == "own"
    source = video if is_own else another_video(dataset, video)
    described: dict[int, SupportFrame] = {}
    for index in frames:
        support = [] if sampler is None else list(sampler(index, length))
        new = {s: _describe(inference, dataset, source, s) for s in set(support) - set(described)}
        described = {s: new[s] if s in new else described[s] for s in support}
        (frame,) = read_frames(dataset, [video], index)
        images, size = inference.prepare([frame]), inference.prepare.resized_size(frame)
        yield FrameFeatures(
            index,
            _encode(inference, images, [described[s] for s in support]),
            size,
            (images.shape[-2], images.shape[-1]),
            (size[0] / frame.shape[0], size[1] / frame.shape[1]),
            tuple(described[s].notes for s in support),
        )


def _describe(
    inference: VideoInference, dataset: VideoDataset, video: int, index: int
) -> SupportFrame:
    (frame,) = read_frames(dataset, [video], index)
    size = inference.prepare.resized_size(frame)
    return inference.detector.describe(inference.prepare([frame]), [size])


def _encode(
    inference: VideoInference, images: Tensor, support: Sequence[SupportFrame]
) -> list[Tensor]:
    encoder = inference.detector.encoder
    embeddings = [one.embedding for one in support if one.embedding is not None]
    if not embeddings:
        return encoder(images, None)  # type: ignore[no-any-return]
    return encoder.backbone(images, encoder.predict(torch.stack(embeddings, dim=1)))
