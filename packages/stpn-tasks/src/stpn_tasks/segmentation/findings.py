"""What a segmenter finds in a video: as a whole, frame by frame, in windows, with best tracks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stpn_data.videos import VideoDataset
from stpn_tasks.metrics import VideoPrediction
from stpn_tasks.segmentation.association import AssociationOptions
from stpn_tasks.segmentation.mask_resize import FrameSizes
from stpn_tasks.segmentation.oracle import oracle_permutations
from stpn_tasks.segmentation.points import on_grid
from stpn_tasks.segmentation.video_output import TrackPrediction, VideoOutput


@dataclass(frozen=True)
class Questions:
    """What is asked of one video beside its predictions.

    Attributes:
        frames: what each frame is, for itself.
        windows: the first frames of windows, which are associated for themselves.
        window_length: their frames.
        objects: (K, G, H, W), the true objects in the annotated frames, if tracks that annotations
            would give are asked for, and each track once, with its best class. If there are more
            than queries, those that are seen in the most frames have tracks.
        key_frames: the K annotated frames.
        association: how tracks go on, in the video and in windows.
    """

    frames: bool = False
    windows: tuple[int, ...] = ()
    window_length: int = 4
    objects: Bool[Tensor, "K G H W"] | None = None
    key_frames: tuple[int, ...] = ()
    association: AssociationOptions = AssociationOptions()


@dataclass(frozen=True)
class Findings:
    """The answers; what was not asked for is empty.

    Attributes:
        video: the best predictions of the whole video.
        frames: those of each frame, with one mask each.
        windows: those of each window.
        tracks: each track once, for scores without classes.
        frame_queries: each query of each frame once, for the same.
        oracle: the predictions with the tracks that annotations would give, in annotated frames:
            classes are of their mean, and each has one mask.
    """

    video: list[VideoPrediction]
    frames: list[list[VideoPrediction]]
    windows: list[list[VideoPrediction]]
    tracks: list[VideoPrediction]
    frame_queries: list[list[VideoPrediction]]
    oracle: list[VideoPrediction]


class Finder:
    """Take the queries of one video frame by frame; return the findings at its end.

    Args:
        sizes: of the frames.
        category_ids: of each label.
        questions: what is asked for.
    """

    def __init__(
        self, sizes: FrameSizes, category_ids: Sequence[int], questions: Questions
    ) -> None:
        """Begin a video."""
        self._sizes, self._ids, self._questions = sizes, category_ids, questions
        follow = questions.association.associator
        self._video = VideoOutput(sizes, follow())
        self._windows = {first: VideoOutput(sizes, follow()) for first in questions.windows}
        self._oracle = None if questions.objects is None else VideoOutput(sizes)
        if questions.objects is not None:
            num_frames = questions.objects.flatten(2).any(2).sum(0)
            self._most_seen = num_frames.argsort(descending=True, stable=True)
        self._annotated = {t: row for row, t in enumerate(questions.key_frames)}
        self._frames: list[list[VideoPrediction]] = []
        self._frame_queries: list[list[VideoPrediction]] = []

    def push(
        self,
        index: int,
        logits: Float[Tensor, "Q classes"],
        masks: Float[Tensor, "Q h w"],
        embeddings: Float[Tensor, "Q C"],
    ) -> None:
        """Take the queries of the next frame, number `index`."""
        queries = (logits[None], masks[None], embeddings[None])
        self._video.push(*queries)
        # In other frames nothing tells an object that is not seen from one not annotated.
        if self._oracle is not None and index in self._annotated:
            self._oracle.push(*queries, self._by_annotations(index, logits, masks))
        for first, window in self._windows.items():
            if first <= index < first + self._questions.window_length:
                window.push(*queries)
        if self._questions.frames:
            frame = VideoOutput(self._sizes)
            frame.push(*queries)
            self._frames.append(self._of_file(frame.best()))
            if self._oracle is not None:
                self._frame_queries.append(self._of_file(frame.best_of_each_track()))

    def _by_annotations(
        self, index: int, logits: Float[Tensor, "Q classes"], masks: Float[Tensor, "Q h w"]
    ) -> Int[Tensor, "1 Q"]:
        assert self._questions.objects is not None
        grid = (masks.shape[1], masks.shape[2])
        chosen = self._most_seen[: len(masks)].sort().values
        rows = self._questions.objects[self._annotated[index], chosen]
        objects = _on_masks(rows, self._sizes, grid).to(masks.device)
        objectness = 1 - logits.softmax(-1)[:, -1]
        return oracle_permutations(masks[None], objects[None], objectness[None])

    def findings(self) -> Findings:
        """Return the answers."""
        has_oracle = self._oracle is not None
        return Findings(
            video=self._of_file(self._video.best()),
            frames=self._frames,
            windows=[self._of_file(window.best()) for window in self._windows.values()],
            tracks=self._of_file(self._video.best_of_each_track()) if has_oracle else [],
            frame_queries=self._frame_queries,
            oracle=self._of_file(self._oracle.best()) if self._oracle and self._annotated else [],
        )

    def _of_file(self, predictions: Sequence[TrackPrediction]) -> list[VideoPrediction]:
        return [VideoPrediction(self._ids[p.label], p.score, p.masks) for p in predictions]


def _on_masks(
    objects: Bool[Tensor, "G H W"], sizes: FrameSizes, grid: tuple[int, int]
) -> Bool[Tensor, "G h w"]:
    """Return objects as the network's masks show them: resized, padded, on their grid."""
    image = F.interpolate(objects[:, None].float(), sizes.image, mode="bilinear")[:, 0]
    right, below = sizes.padded[1] - sizes.image[1], sizes.padded[0] - sizes.image[0]
    return on_grid(F.pad(image, (0, right, 0, below)), grid) > 0.5


def object_masks(dataset: VideoDataset, number: int) -> Bool[Tensor, "K G H W"]:
    """Return the masks of the G objects of a video in its K key frames; empty where not seen.

    Crowds are no objects.

    Raises:
        ValueError: a frame has no masks; it is named.
    """
    video = dataset.videos[number]
    frames = [dataset.objects(number, t) for t in video.key_frames]
    ids = sorted({int(one) for frame in frames for one in frame.track_ids[~frame.is_crowd]})
    masks = torch.zeros(len(frames), len(ids), video.height, video.width, dtype=torch.bool)
    for row, (t, frame) in enumerate(zip(video.key_frames, frames, strict=True)):
        if frame.masks is None:
            raise ValueError(f"{video.name} frame {t} has no masks")
        for i in np.flatnonzero(~frame.is_crowd):
            masks[row, ids.index(int(frame.track_ids[i]))] = torch.from_numpy(frame.masks[i])
    return masks
