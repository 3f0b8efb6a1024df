"""Read and write video files and folders of frames."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from stpn_data.images import read_image
from stpn_data.videos import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})

# Titles that are not UTF-8 are no reason to refuse a video; PyAV 19 replaces them by itself.
_LENIENT: dict[str, Any] = (
    {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}
)


class VideoReader:
    """Iterate over the frames of a video file or of a folder of images, as often as wanted.

    Frames are (H, W, 3) uint8 RGB, decoded one at a time. A rotation stored in a video file (as
    telephones do) is applied, so that frames are upright; an EXIF orientation of images is not.
    The images of a folder are taken in natural order (2 before 10). Opening reads the first frame.

    When a file is damaged or ends too early, iteration first yields every frame that can be
    decoded and then raises. (A cut is noticed in mp4, avi and mkv; mpeg-ts declares no length.)

    Attributes:
        path: the file or folder.
        files: the images of a folder, in order, as they were when it was opened; none for a file.
        num_frames: T as declared by the file, counted for a folder; None if not declared.
        fps: frames per second; None for a folder.
        size: (height, width) of the frames.

    Args:
        path: a file that FFmpeg reads, or a folder with .jpg, .png, .bmp, .webp or .tif files.

    Raises:
        DataError: missing, empty, unreadable, or not a video.
    """

    def __init__(self, path: str | Path) -> None:
        """Open the video and read its first frame."""
        self.path = Path(path)
        if not self.path.exists():
            raise DataError(f"{self.path}: no such file or folder")
        self.num_frames: int | None
        self.fps: float | None = None
        self.files: tuple[Path, ...] = ()
        if self.path.is_dir():
            self.files = tuple(image_files(self.path))
            self.num_frames = len(self.files)
        else:
            with _open(self.path) as container:
                stream = _video_stream(container, self.path)
                self.num_frames = stream.frames or None
                self.fps = float(stream.average_rate) if stream.average_rate else None
        first = next(iter(self), None)
        if first is None:
            raise DataError(f"{self.path}: the video has no frames")
        self.size: tuple[int, int] = first.shape[0], first.shape[1]

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames in order.

        Raises:
            DataError: a frame cannot be decoded; names the file and the index of the frame.
        """
        return self._folder_frames() if self.path.is_dir() else self._file_frames()

    def _folder_frames(self) -> Iterator[NDArray[np.uint8]]:
        size: tuple[int, ...] | None = None
        for file in self.files:
            image = read_image(file)
            size = _same_size(image, size, f"{file}: the image", "the first one of the folder")
            yield image

    def _file_frames(self) -> Iterator[NDArray[np.uint8]]:
        index, end = 0, 0.0
        size: tuple[int, ...] | None = None
        with _open(self.path) as container:
            stream = _video_stream(container, self.path)
            stream.thread_type = "AUTO"
            for frame in _decode(container, stream):
                if isinstance(frame, Exception):
                    raise DataError(
                        f"{self.path}: frame {index} cannot be decoded, the file is damaged or "
                        f"truncated ({frame})"
                    ) from frame
                pixels = _upright(frame)
                size = _same_size(pixels, size, f"{self.path}: frame {index}", "the first one")
                yield pixels
                index += 1
                end = (frame.time or 0.0) + float((frame.duration or 0) * (frame.time_base or 0))
            if index and _ends_early(container, stream, index, end):
                raise DataError(f"{self.path}: frame {index} is missing, the file is truncated")


class VideoWriter:
    """Write frames to a video file, H.264 where FFmpeg has an encoder for it, else MPEG-4.

    Used as a context manager. The file appears under its name when the block ends without an
    error; until then, and after one, nothing is there but what was there before. Odd heights and
    widths are padded by one pixel, which repeats the border (the codecs store half the colours).

        with VideoWriter("out.mp4", fps=25, size=(360, 640)) as video:
            video.write(frame)

    Args:
        path: file to write; its suffix chooses the container (.mp4, .mkv, ...).
        fps: frames per second.
        size: (height, width) of the frames.

    Raises:
        ValueError: `fps` or a side of `size` not positive, an unknown suffix, or at the end of
            the block no frames.
    """

    def __init__(self, path: str | Path, fps: float, size: tuple[int, int]) -> None:
        """Check the arguments; the file is opened at the start of the block."""
        if not fps > 0:
            raise ValueError(f"fps must be positive, got {fps}")
        if min(size) < 1:
            raise ValueError(f"size must be (height, width) of at least 1, got {size}")
        self.path = Path(path)
        self.fps = Fraction(fps).limit_denominator(1001)
        self.size = size
        self.num_frames = 0
        self._temporary = self.path.with_name(f".{self.path.stem}.{os.getpid()}{self.path.suffix}")

    def __enter__(self) -> VideoWriter:
        """Open a temporary file beside the final one."""
        try:
            self._container = av.open(str(self._temporary), "w")
        except ValueError as error:
            raise ValueError(f"{self.path}: no video format has this suffix") from error
        # An encoder's name is a plain string here, so its kind is not known statically.
        self._stream = cast(VideoStream, self._container.add_stream(_encoder(), rate=self.fps))
        height, width = self.size
        self._stream.height, self._stream.width = height + height % 2, width + width % 2
        self._stream.pix_fmt = "yuv420p"
        return self

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Append one frame, (H, W, 3) uint8 RGB.

        Raises:
            ValueError: a frame of another shape or dtype.
        """
        if frame.shape != (*self.size, 3) or frame.dtype != np.uint8:
            raise ValueError(
                f"{self.path}: expected a frame {(*self.size, 3)} uint8, "
                f"got {frame.shape} {frame.dtype}"
            )
        padding = [(0, side % 2) for side in self.size]
        pixels = np.pad(frame, [*padding, (0, 0)], mode="edge")
        video_frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        self._container.mux(self._stream.encode(video_frame))
        self.num_frames += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the file and give it its name, or remove it after an error."""
        try:
            if kind is None:
                self._finish()
        finally:
            self._container.close()
            self._temporary.unlink(missing_ok=True)

    def _finish(self) -> None:
        if self.num_frames == 0:
            raise ValueError(f"{self.path}: no frames were written")
        self._container.mux(self._stream.encode(None))
        self._container.close()
        os.replace(self._temporary, self.path)


def image_files(folder: Path) -> list[Path]:
    """Return the images of a folder in natural order (2 before 10), hidden ones aside.

    Raises:
        DataError: there is no such folder, or it has no images.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    files = [
        file
        for file in folder.iterdir()
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
    ]
    if not files:
        raise DataError(f"{folder}: the folder has no images")
    return sorted(files, key=_natural_order)


def _natural_order(file: Path) -> tuple[list[tuple[int, int, str]], str]:
    parts = re.findall(r"\d+|\D+", file.name)
    key = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
    return key, file.name


def _same_size(
    frame: NDArray[np.uint8], size: tuple[int, ...] | None, name: str, first: str
) -> tuple[int, ...]:
    """Return the shape of a frame, which must be that of the first one if there was one."""
    if size is not None and frame.shape != size:
        raise DataError(f"{name} is {frame.shape[1]}x{frame.shape[0]}, {first} {size[1]}x{size[0]}")
    return frame.shape


def _open(path: Path) -> InputContainer:
    try:
        container: InputContainer = av.open(str(path), **_LENIENT)
        return container
    except (av.FFmpegError, OSError) as error:
        size = path.stat().st_size
        reason = f"not a video, or a damaged one ({error.strerror})" if size else "is empty"
        raise DataError(f"{path}: {reason}") from error


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    if not container.streams.video:
        raise DataError(f"{path}: the file has no video stream")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise DataError(f"{path}: FFmpeg does not know the codec of the video stream")
    return stream


def _decode(
    container: InputContainer, stream: VideoStream
) -> Iterator[av.VideoFrame | av.FFmpegError | EOFError]:
    """Yield all frames that decode and, if something does not, last of all its error."""
    failure: av.FFmpegError | EOFError | None = None
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                failure = EOFError("incomplete packet")
                break
            yield from stream.codec_context.decode(packet)
    except av.FFmpegError as error:
        failure = error
    if failure is not None:
        try:  # The decoder still holds frames that came before the damaged one.
            yield from stream.codec_context.decode(None)
        except av.FFmpegError as error:
            failure = error
        yield failure


def _ends_early(container: InputContainer, stream: VideoStream, count: int, end: float) -> bool:
    """Tell whether a file without any damaged packet is shorter than it declares.

    The mp4 demuxer reports a cut itself, and its frame count includes frames that an edit list
    hides; avi declares the number of frames, mkv the duration of every stream.
    """
    if "mp4" in container.format.name:
        return False
    if stream.frames:
        return count < stream.frames
    declared = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
    if declared and stream.average_rate:
        hours, minutes, seconds = map(float, declared.groups())
        duration = hours * 3600 + minutes * 60 + seconds
        return end + 0.5 / float(stream.average_rate) < duration
    return False


def _upright(frame: av.VideoFrame) -> NDArray[np.uint8]:
    pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


def _encoder() -> str:
    return "libx264" if "libx264" in av.codecs_available else "mpeg4"
