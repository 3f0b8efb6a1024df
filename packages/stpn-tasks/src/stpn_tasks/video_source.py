"""A user's video on its way through a network: read once, or three times, up to its failure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from stpn_data.sampling import VideoUniformSampler
from stpn_data.video import VideoReader
from stpn_data.videos import DataError
from stpn_tasks.video_encoding import EncodedGroup, Frame, VideoEncoding


class VideoSource:
    """The frames of a reader, up to its failure, and those that are not dealt with yet.

    Args:
        reader: of the video.

    Attributes:
        reader: the same.
        waiting: frames that came in; whoever deals with them takes them from the left.
        failure: why the input ended before its end; ``None`` as long as it did not.
    """

    def __init__(self, reader: VideoReader) -> None:
        self.reader = reader
        self.waiting: deque[Frame] = deque()
        self.failure: DataError | None = None

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames before the first that cannot be read."""
        try:
            for frame in self.reader:
                self.waiting.append(frame)
                yield frame
        except DataError as error:
            self.failure = error

    def encoded(self, encoding: VideoEncoding) -> Iterator[EncodedGroup]:
        """Yield the features of the frames, streamed: only those that wait are in memory.

        Where support frames are spread over the whole video it is read three times, to count its
        frames, for the support frames, which are held, and to encode.

        Raises:
            ValueError: if the support frames shall be another video's.
        """
        frames = ([frame] for frame in self)
        sampler = encoding.sampler
        if not isinstance(sampler, VideoUniformSampler) or encoding.support_video == "other":
            return encoding.stream(frames)
        num_frames = sum(1 for _ in _readable(self.reader))
        times = set(sampler(0, num_frames))
        support = {t: frame for t, frame in enumerate(_readable(self.reader)) if t in times}
        return encoding.whole(frames, num_frames, lambda t: [support[t]])


def output_files(reader: VideoReader, output: Path) -> tuple[Path, Path]:
    """Return ``NAME.mp4`` and ``NAME.json`` in an output folder, which is made if need be.

    What an earlier run left there is replaced, except beside the input, or in it: what lies there
    may be the user's own.

    Args:
        reader: of the video, whose file or folder gives the name.
        output: the folder.

    Raises:
        ValueError: if the output would take the place of the input, or of a file beside or in it.
    """
    path = reader.path.resolve()
    name = path.name if path.is_dir() else path.stem
    files = output / f"{name}.mp4", output / f"{name}.json"
    is_beside = output.resolve() in (path.parent, path)
    for file in files:
        if file.resolve() == path:
            raise ValueError(f"{file} is the video itself: choose another output folder")
        if is_beside and file.resolve().exists():
            raise ValueError(
                f"{file} is there already, with the video: choose another output folder, since it "
                "may not be of an earlier run"
            )
    output.mkdir(parents=True, exist_ok=True)
    return files


def _readable(reader: VideoReader) -> Iterator[Frame]:
    """Yield the frames before the first that cannot be read."""
    with suppress(DataError):
        yield from reader
