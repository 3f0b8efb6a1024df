"""What MinVIS says of a whole video: its best classes and tracks, with a mask in every frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from stpn_tasks.segmentation.association import Associator, check_finite
from stpn_tasks.segmentation.mask_resize import FrameSizes, encode
from stpn_tasks.segmentation.mask_store import MaskStore

NUM_PREDICTIONS = 10


@dataclass(frozen=True)
class TrackPrediction:
    """Hold one prediction of a video.

    Attributes:
        track: number of the track; one track may be predicted with several classes.
        label: class from 0.
        score: probability of the class, of the mean of the logits of all frames.
        masks: T run-length encoded masks of the video's size, an empty one where there is none.
    """

    track: int
    label: int
    score: float
    masks: tuple[dict[str, Any], ...]

    def record(self, video_id: int, category_ids: Sequence[int]) -> dict[str, Any]:
        """Return the entry of ``results.json``, given the category id of each label."""
        return {
            "video_id": video_id,
            "category_id": category_ids[self.label],
            "score": self.score,
            "segmentations": list(self.masks),
        }


class TrackLogits:
    """Add up the class logits of tracks, frame by frame, so that windows change nothing."""

    def __init__(self) -> None:
        """Begin a video."""
        self._sum: Tensor | None = None
        self._num_frames = 0

    def add(self, logits: Float[Tensor, "Q classes"]) -> None:
        """Add those of one frame, in the order of the tracks.

        Raises:
            ValueError: one is not finite; the frame is named.
        """
        check_finite("class", logits, self._num_frames)
        values = logits.detach().cpu().double()
        self._sum = values if self._sum is None else self._sum + values
        self._num_frames += 1

    def mean(self) -> Float[Tensor, "Q classes"]:
        """Return the mean over the frames, float32.

        Raises:
            ValueError: there was no frame.
        """
        if self._sum is None:
            raise ValueError("a video without frames has no classes")
        return (self._sum / self._num_frames).float()

    def probabilities(self) -> Float[Tensor, "Q K"]:
        """Return the probabilities of the classes; the last logit is that of no object."""
        return self.mean().softmax(-1)[:, :-1]


class VideoOutput:
    """Take the frames of one video, window by window; return its predictions at the end.

    Which tracks are wanted is known at the end only. Until then masks lie in a `MaskStore`, a
    quarter of a megabyte a frame, which keeps within a bound of memory. To encode all tracks of a
    frame at once would leave 0.03 to 0.14 MB, but takes 0.55 s for 100 tracks of 720 x 1280 on one
    core; to store them and encode ten at the end takes 0.14 s.

    Args:
        sizes: of the frames.
        associator: orders the queries; MinVIS' own if not given.
    """

    def __init__(self, sizes: FrameSizes, associator: Associator | None = None) -> None:
        """Begin a video."""
        self._sizes = sizes
        self._associator = associator or Associator()
        self._logits = TrackLogits()
        self._masks = MaskStore()

    def push(
        self,
        logits: Float[Tensor, "T Q classes"],
        masks: Float[Tensor, "T Q h w"],
        embeddings: Float[Tensor, "T Q C"],
        permutations: Int[Tensor, "T Q"] | None = None,
    ) -> Int[Tensor, "T Q"]:
        """Take the next T frames.

        Args:
            logits: of the K classes and, last, no object.
            masks: logits.
            embeddings: of the queries.
            permutations: in place of the associator's, on the CPU.

        Returns:
            The permutations, as `Associator.push` returns them.

        Raises:
            ValueError: the tensors do not fit the frames before, or a number is not finite; the
                frame is named.
        """
        if permutations is None:
            permutations = self._associator.push(embeddings, masks)
        for t, permutation in enumerate(permutations):
            check_finite("mask", masks[t], len(self._masks))
            self._logits.add(logits[t][permutation.to(logits.device)])
            self._masks.append(masks[t][permutation.to(masks.device)])
        return permutations

    def mean_logits(self) -> Float[Tensor, "Q classes"]:
        """Return the mean of the class logits of each track over the frames so far, float32."""
        return self._logits.mean()

    def best(self, number: int = NUM_PREDICTIONS) -> list[TrackPrediction]:
        """Return the best of all Q K pairs of a track and a class, the best one first.

        Args:
            number: of predictions; all Q K if there are fewer.

        Raises:
            ValueError: there was no frame.
        """
        probabilities = self._logits.probabilities()
        scores, places = probabilities.flatten().sort(descending=True, stable=True)
        tracks, labels = places[:number] // probabilities.shape[1], places % probabilities.shape[1]
        return self._predictions(tracks, labels[:number], scores[:number])

    def best_of_each_track(self, number: int = NUM_PREDICTIONS) -> list[TrackPrediction]:
        """Return the best tracks, each with its best class only: what class-agnostic AP takes.

        Args:
            number: of predictions; all Q if there are fewer.

        Raises:
            ValueError: there was no frame.
        """
        best, labels = self._logits.probabilities().max(dim=1)
        scores, tracks = best.sort(descending=True, stable=True)
        return self._predictions(tracks[:number], labels[tracks[:number]], scores[:number])

    def _predictions(self, tracks: Tensor, labels: Tensor, scores: Tensor) -> list[TrackPrediction]:
        masks: dict[int, list[dict[str, Any]]] = {int(track): [] for track in tracks.unique()}
        for frame in range(len(self._masks)):
            logits = self._masks.read(frame, list(masks))
            for rows, rle in zip(masks.values(), encode(self._sizes.masks(logits)), strict=True):
                rows.append(rle)
        columns = (values.tolist() for values in (tracks, labels, scores))
        return [
            TrackPrediction(track, label, score, tuple(masks[track]))
            for track, label, score in zip(*columns, strict=True)
        ]
