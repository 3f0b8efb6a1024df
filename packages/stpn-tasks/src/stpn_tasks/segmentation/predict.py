"""Segment objects in a user's video: an annotated video and a json of masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stpn_data.video import VideoReader, VideoWriter
from stpn_data.videos import DataError
from stpn_tasks.draw import Image
from stpn_tasks.segmentation.association import AssociationOptions
from stpn_tasks.segmentation.draw import draw_masks
from stpn_tasks.segmentation.inference import QueriesOfFrame, VideoSegmentation
from stpn_tasks.segmentation.stream_output import FrameTracks, StreamOutput
from stpn_tasks.segmentation.video_output import VideoOutput
from stpn_tasks.tables import write_json
from stpn_tasks.video_source import VideoSource, output_files


@dataclass(frozen=True)
class SegmentationPrediction:
    """What was written.

    Attributes:
        video: the annotated mp4.
        tracks: the json of all tracks.
        num_frames: frames in both.
        failure: why the input ended before its end; ``None`` if it did not.
    """

    video: Path
    tracks: Path
    num_frames: int
    failure: DataError | None


def predict_video(
    inference: VideoSegmentation,
    reader: VideoReader,
    classes: Sequence[str],
    output: Path,
    *,
    association: AssociationOptions = AssociationOptions(),  # noqa: B008
    threshold: float = 0.3,
    fps: float = 25.0,
    progress: bool = True,
) -> SegmentationPrediction:
    """Run a segmenter over a video and write what it finds.

    The video is streamed, see `VideoSource.encoded`; masks lie in a `MaskStore` until the end, so
    that videos of any length can be segmented. Colours, classes and scores in the video are those
    that are known at each frame; the json has those of the whole video. The colour and the number
    of an object stay. If the input breaks off, what came before is written all the same, and the
    failure is returned.

    Args:
        inference: the segmenter with its sampler.
        reader: the video.
        classes: names of the segmenter's classes.
        output: folder for ``NAME.mp4`` and ``NAME.json``.
        association: how objects are followed from frame to frame.
        threshold: tracks with a lower score are not drawn, nor written to the json.
        fps: frames per second where the video does not say, such as a folder of frames.
        progress: show a progress bar.

    Raises:
        DataError: if not one frame can be read.
        ValueError: if the support frames shall be another video's, or the output would take the
            place of the input.
    """
    source = VideoSource(reader)
    video_path, tracks_path = output_files(reader, output)
    rate = reader.fps or fps
    tracks = _Tracks(threshold, association)
    bar = tqdm(total=reader.num_frames, desc=video_path.stem, unit="frame", disable=not progress)
    with bar, VideoWriter(video_path, rate, reader.size) as writer:
        for group in source.encoded(inference.encoding):
            for queries in inference.segment(group):
                writer.write(_drawn(source.waiting.popleft(), tracks.push(queries), classes))
                bar.update()
        if not tracks.num_frames and source.failure is not None:
            raise source.failure
    write_json(
        tracks_path,
        {
            "video": reader.path.resolve().name,
            "height": reader.size[0],
            "width": reader.size[1],
            "fps": rate,
            "num_frames": tracks.num_frames,
            "classes": list(classes),
            "tracks": tracks.records(classes),
        },
    )
    return SegmentationPrediction(video_path, tracks_path, tracks.num_frames, source.failure)


class _Tracks:
    """What is told of each frame at once, and of the whole video at its end."""

    def __init__(self, threshold: float, association: AssociationOptions) -> None:
        self.threshold = threshold
        self.association = association
        self.num_frames = 0
        self._now: StreamOutput | None = None
        self._whole: VideoOutput | None = None

    def push(self, queries: QueriesOfFrame) -> FrameTracks:
        """Take the queries of the next frame of one video; return its tracks."""
        if self._now is None or self._whole is None:
            follow = self.association.associator
            self._now = StreamOutput(queries.sizes, self.threshold, follow())
            self._whole = VideoOutput(queries.sizes, follow())
        self.num_frames += 1
        frame = (queries.logits, queries.masks, queries.embeddings)
        self._whole.push(*frame)
        return self._now.push(*frame)[0]

    def records(self, classes: Sequence[str]) -> list[dict[str, Any]]:
        """Return the tracks of the whole video above the threshold, the best one first."""
        if self._whole is None:
            return []
        scores = self._whole.mean_logits().softmax(-1)[:, :-1].amax(1)
        number = int((scores >= self.threshold).sum())
        return [
            {
                "track": one.track,
                "label": classes[one.label],
                "score": round(one.score, 5),
                "segmentations": list(one.masks),
            }
            for one in self._whole.best_of_each_track(number)
        ]


def _drawn(frame: Image, tracks: FrameTracks, classes: Sequence[str]) -> Image:
    ids, labels, scores = (x.tolist() for x in (tracks.ids, tracks.labels, tracks.scores))
    names = [
        f"{track} {classes[label]} {score:.2f}"
        for track, label, score in zip(ids, labels, scores, strict=True)
    ]
    return draw_masks(frame, tracks.masks.cpu().numpy(), ids, names)
