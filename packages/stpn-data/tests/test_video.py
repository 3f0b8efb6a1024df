import os
import struct

import av
import cv2
import numpy as np
import pytest

from stpn_data import DataError, VideoReader, VideoWriter

SIZE = (48, 64)


def scene(number):
    """A smooth picture that differs from frame to frame and along both axes."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    channels = [columns * 3 + number, rows * 4, np.full(SIZE, 8 * number)]
    return np.stack(channels, -1).clip(0, 255).astype(np.uint8)


def write(path, frames=30, size=SIZE, fps=25):
    with VideoWriter(path, fps, size) as video:
        for number in range(frames):
            video.write(scene(number)[: size[0], : size[1]])
    return path


def read_until_error(path):
    """Return the frames that came before the error, and its message."""
    frames = []
    with pytest.raises(DataError) as error:
        frames.extend(VideoReader(path))
    return frames, str(error.value)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_what_is_written_is_read(tmp_path, suffix):
    video = VideoReader(write(tmp_path / f"a{suffix}"))
    assert video.size == SIZE
    assert video.fps == 25
    assert video.num_frames in (30, None)
    frames = list(video)
    assert len(frames) == len(list(video)) == 30
    for number, frame in enumerate(frames):
        assert frame.dtype == np.uint8
        assert np.abs(frame.astype(int) - scene(number)).mean() < 4


def test_fractional_rates_survive(tmp_path):
    assert VideoReader(write(tmp_path / "a.mp4", fps=30000 / 1001)).fps == 30000 / 1001


def test_odd_sizes_are_padded_with_their_border(tmp_path):
    video = VideoReader(write(tmp_path / "a.mp4", 3, (47, 63)))
    assert video.size == (48, 64)
    frame = next(iter(video))
    assert np.abs(frame[:47, :63].astype(int) - scene(0)[:47, :63]).mean() < 4
    assert np.abs(frame[47].astype(int) - frame[46]).mean() < 4


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), 3), ((-1, 0, 0, -1), 2)])
def test_a_stored_rotation_is_applied(tmp_path, matrix, turns):
    path = write(tmp_path / "a.mp4", 3)
    plain = next(iter(VideoReader(path)))
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44  # display matrix of the track: a b u, c d v
    a, b, c, d = (value << 16 for value in matrix)
    data[start : start + 20] = struct.pack(">5i", a, b, 0, c, d)
    path.write_bytes(data)
    video = VideoReader(path)
    rotated = next(iter(video))
    assert video.size == rotated.shape[:2]
    np.testing.assert_array_equal(rotated, np.rot90(plain, turns))


def make_folder(path, names):
    path.mkdir()
    for value, name in enumerate(names):
        cv2.imwrite(str(path / name), np.full((6, 8, 3), 20 * value, np.uint8))
    return path


def test_a_folder_is_read_in_natural_order(tmp_path):
    folder = make_folder(tmp_path / "f", ["f1.png", "f2.png", "f10.png", "f010.png", "g.PNG"])
    (folder / "notes.txt").write_text("no frame")
    (folder / ".hidden.png").write_text("no frame")
    video = VideoReader(folder)
    assert (video.num_frames, video.fps, video.size) == (5, None, (6, 8))
    names = [frame[0, 0, 0] // 20 for frame in video]
    assert names == [0, 1, 3, 2, 4]


def test_a_damaged_image_ends_a_folder_after_the_good_frames(tmp_path):
    folder = make_folder(tmp_path / "f", ["0.png", "1.png", "2.png"])
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:-9])
    frames, message = read_until_error(folder)
    assert len(frames) == 2
    assert "2.png" in message


def test_a_folder_with_two_sizes_is_refused(tmp_path):
    folder = make_folder(tmp_path / "f", ["0.png", "1.png"])
    cv2.imwrite(str(folder / "1.png"), np.zeros((9, 9, 3), np.uint8))
    frames, message = read_until_error(folder)
    assert len(frames) == 1
    assert "1.png: the image is 9x9, the first one of the folder 8x6" in message


def write_noise(path, frames=40):
    """Noise makes all packets large; the index of an mp4 stands in front, as for streaming."""
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    codec = "mpeg4" if path.suffix == ".avi" else "libx264"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for _ in range(frames):
            noise = rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize("part", [0.3, 0.5, 0.8, 0.95])
def test_a_truncated_file_gives_its_good_frames_and_then_an_error(tmp_path, suffix, part):
    path = write_noise(tmp_path / f"a{suffix}")
    whole = list(VideoReader(path))
    assert len(whole) == 40
    cut = int(path.stat().st_size * part)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    good = sum(packet.pos + packet.size <= cut for packet in packets)
    path.write_bytes(path.read_bytes()[:cut])
    frames, message = read_until_error(path)
    assert abs(len(frames) - good) <= 1  # the block headers of mkv and avi are not counted above
    assert f"{path}: frame {len(frames)} " in message
    for index in range(good - 2):  # the decoder may repair the last ones
        np.testing.assert_array_equal(frames[index], whole[index])


def test_a_truncated_file_without_its_index_is_refused(tmp_path):
    path = write(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"a\.mp4: not a video, or a damaged one"):
        VideoReader(path)


def test_damage_in_the_middle_is_an_error(tmp_path):
    path = write_noise(tmp_path / "a.mp4")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4096] = bytes(range(256)) * 16
    path.write_bytes(data)
    frames, message = read_until_error(path)
    assert 10 < len(frames) < 30
    assert f"frame {len(frames)} cannot be decoded" in message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.mp4", None, "no such file"),
        ("a.mp4", b"", "is empty"),
        ("a.mp4", b"hello" * 100, "not a video"),
        ("a.txt", b"hello", "not a video"),
    ],
)
def test_what_is_no_video_is_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: .*{message}|{name}: {message}"):
        VideoReader(tmp_path / name)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="no images"):
        VideoReader(tmp_path)


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "a.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(DataError, match="no video stream"):
        VideoReader(path)


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("before")

    def write_and_stop():
        with VideoWriter(path, 25, SIZE) as video:
            video.write(scene(0))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_and_stop()
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_nothing_appears_before_the_end(tmp_path):
    path = tmp_path / "a.mp4"
    with VideoWriter(path, 25, SIZE) as video:
        video.write(scene(0))
        assert not path.exists()
    assert os.listdir(tmp_path) == ["a.mp4"]
    assert len(list(VideoReader(path))) == 1


def test_a_video_without_frames_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no frames"), VideoWriter(tmp_path / "a.mp4", 25, SIZE):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "frame", [np.zeros((9, 9, 3), np.uint8), np.zeros((*SIZE, 3)), np.zeros(SIZE, np.uint8)]
)
def test_a_frame_that_does_not_fit_is_refused(tmp_path, frame):
    with (
        pytest.raises(ValueError, match=r"expected a frame \(48, 64, 3\) uint8"),
        VideoWriter(tmp_path / "a.mp4", 25, SIZE) as video,
    ):
        video.write(frame)
    assert os.listdir(tmp_path) == []


def test_wrong_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match="fps"):
        VideoWriter(tmp_path / "a.mp4", 0, SIZE)
    with pytest.raises(ValueError, match="size"):
        VideoWriter(tmp_path / "a.mp4", 25, (0, 4))
    with (
        pytest.raises(ValueError, match=r"a\.nothing: no video format"),
        VideoWriter(tmp_path / "a.nothing", 25, SIZE),
    ):
        pass
