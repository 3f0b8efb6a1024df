"""Damaged videos and images: frames as promised or an error in words, never a hang."""

from random import Random

import av
import cv2
import numpy as np
import pytest

from stpn_data import DataError, VideoReader, VideoWriter, read_image
from stpn_data.testing import damage_bytes, read_or_refuse

TOKENS = (b"\x00", b"\xff" * 4, b"\x00" * 64, b"\x7f" * 8)


@pytest.fixture(autouse=True)
def _quiet():
    av.logging.set_level(None)


def frames(size, count=8):
    """Return a scene that moves, small enough for a file whose headers are often hit."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    for number in range(count):
        channels = [columns * 3 + number, rows * 4, np.full(size, 8 * number)]
        yield np.stack(channels, -1).clip(0, 255).astype(np.uint8)


def write(path, size=(48, 64)):
    with VideoWriter(path, 25, size) as video:
        for frame in frames(size):
            video.write(frame)
    return path.read_bytes()


def check_video(path):
    video = VideoReader(path)
    assert video.num_frames is None or video.num_frames > 0
    count = 0
    for count, frame in enumerate(video, 1):  # noqa: B007
        assert (frame.shape, frame.dtype) == ((*video.size, 3), np.uint8)
    assert count > 0
    return count


def check_each(path, data, read, seeds):
    refused = 0
    for seed in range(seeds):
        path.write_bytes(damage_bytes(data, Random(seed), TOKENS))
        try:
            refused += read_or_refuse(lambda: read(path), str(path))[0] is None
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
    assert refused > seeds / 10


SEEDS = [150, pytest.param(2000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_damaged_video_is_read_or_refused_in_words(tmp_path, suffix, seeds):
    data = write(tmp_path / f"whole{suffix}")
    check_each(tmp_path / f"a{suffix}", data, check_video, seeds)


@pytest.mark.parametrize("seeds", [300, pytest.param(5000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif"])
def test_a_damaged_image_is_read_or_refused_in_words(tmp_path, suffix, seeds):
    picture = next(frames((48, 64)))
    data = cv2.imencode(suffix, picture)[1].tobytes()

    def check(path):
        pixels = read_image(path)
        assert pixels.dtype == np.uint8
        assert pixels.shape[2:] == (3,)
        if suffix == ".png":  # which carries checksums: no other picture may come out
            np.testing.assert_array_equal(pixels, picture[:, :, ::-1])
        return pixels

    check_each(tmp_path / f"a{suffix}", data, check, seeds)


def test_a_video_whose_codec_is_not_known_is_named(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(write(path).replace(b"avc1", b"xxx1").replace(b"mp4v", b"xxx1"))
    with pytest.raises(DataError, match=r"a\.mp4: FFmpeg does not know the codec"):
        VideoReader(path)


def test_a_video_that_changes_its_size_is_refused_after_the_good_frames(tmp_path):
    # Streams may be put one behind the other; some encoders do so when the picture turns.
    path = tmp_path / "a.h264"
    path.write_bytes(write(tmp_path / "1.h264") + write(tmp_path / "2.h264", (64, 48)))
    count = 0
    with pytest.raises(DataError, match=r"a\.h264: frame 8 is 48x64, the first one 64x48"):
        for count, _ in enumerate(VideoReader(path), 1):  # noqa: B007
            pass
    assert count == 8


def test_a_title_that_is_not_utf8_is_no_reason_to_refuse_a_video(tmp_path):
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "titel"
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for frame in frames((48, 64)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"titel", b"tit\xe9l"))
    assert check_video(path) == 8
