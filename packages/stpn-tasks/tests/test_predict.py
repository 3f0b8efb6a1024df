import json
from dataclasses import replace

import av
import cv2
import numpy as np
import pytest
import torch

from stpn_data.sampling import CausalSampler, VideoUniformSampler, WindowSampler
from stpn_data.video import VideoReader, VideoWriter
from stpn_tasks.detection.build import build_preparation
from stpn_tasks.detection.inference import VideoInference
from stpn_tasks.detection.predict import predict_video
from stpn_tasks.draw import draw_boxes
from stpn_tasks.video_source import output_files

CLASSES = ("bright", "dark")
LENGTH, SIZE = 9, (64, 96)


@pytest.fixture
def detector(tiny):
    return tiny.detector(tiny.recipe())


def make_inference(tiny, detector, sampler):
    return VideoInference(detector, sampler, build_preparation(tiny.recipe(), torch.device("cpu")))


def shades(tiny):
    """Frames that nothing confuses: frame t is t times lighter than the first."""
    videos = tiny.MovingSquares(((LENGTH, *SIZE),))
    return [videos.frame(0, t) // 6 + 20 * t for t in range(LENGTH)]


def write_mp4(path, frames):
    with VideoWriter(path, 10, SIZE) as writer:
        for frame in frames:
            writer.write(frame.astype(np.uint8))
    return path


def write_folder(path, frames):
    path.mkdir()
    for t, frame in enumerate(frames):
        cv2.imwrite(str(path / f"{t}.png"), cv2.cvtColor(frame.astype(np.uint8), cv2.COLOR_RGB2BGR))
    return path


def predict(inference, source, output, **options):
    return predict_video(inference, VideoReader(source), CLASSES, output, progress=False, **options)


@pytest.mark.parametrize("write", [write_mp4, write_folder])
@pytest.mark.parametrize("sampler", [WindowSampler(1, 3), CausalSampler(2, 2), None])
def test_frames_keep_their_boxes_whatever_the_delay(tiny, detector, tmp_path, write, sampler):
    source = write(tmp_path / "clip.mp4", shades(tiny))
    inference = make_inference(tiny, detector, sampler)
    prediction = predict(inference, source, tmp_path / "out", threshold=0.5)
    assert prediction.num_frames == LENGTH
    assert prediction.failure is None

    frames = list(VideoReader(source))
    expected = [found for found, *_ in inference.stream([frame] for frame in frames)]
    rows = json.loads(prediction.boxes.read_text())["frames"]
    drawn = list(VideoReader(prediction.video))
    assert len(drawn) == len(rows) == LENGTH
    for t, (frame, found, row) in enumerate(zip(frames, expected, rows, strict=True)):
        assert row["frame"] == t
        assert np.allclose(row["boxes_xyxy"], found.boxes_xyxy, atol=0.006)
        assert np.allclose(row["scores"], found.scores, atol=1e-5)
        assert row["labels"] == [CLASSES[label] for label in found.labels]
        kept = found.scores >= 0.5
        picture = draw_boxes(
            frame,
            found.boxes_xyxy[kept].numpy(),
            found.labels[kept].numpy(),
            CLASSES,
            found.scores[kept].numpy(),
        )
        errors = [np.abs(other.astype(int) - picture).mean() for other in drawn]
        assert int(np.argmin(errors)) == t


def test_the_json_tells_what_it_is_of(tiny, detector, tmp_path):
    inference = make_inference(tiny, detector, None)
    prediction = predict(inference, write_mp4(tmp_path / "a.b.mp4", shades(tiny)), tmp_path / "out")
    assert prediction.video == tmp_path / "out" / "a.b.mp4"
    values = json.loads(prediction.boxes.read_text())
    frames = values.pop("frames")
    assert values == {
        "video": "a.b.mp4",
        "height": 64,
        "width": 96,
        "fps": 10.0,
        "classes": list(CLASSES),
    }
    assert [set(row) for row in frames] == [{"frame", "boxes_xyxy", "scores", "labels"}] * LENGTH
    assert all(0 <= score <= 1 for row in frames for score in row["scores"])
    assert all(
        0 <= x1 <= x2 <= 96 and 0 <= y1 <= y2 <= 64
        for row in frames
        for x1, y1, x2, y2 in row["boxes_xyxy"]
    )


def test_a_folder_gives_its_whole_name_and_the_rate_that_the_user_says(tiny, detector, tmp_path):
    source = write_folder(tmp_path / "clip.v1", shades(tiny)[:3])
    inference = make_inference(tiny, detector, WindowSampler(2, 2))  # longer than the video
    prediction = predict(inference, source, tmp_path / "out", fps=5.0)
    assert prediction.video.name == "clip.v1.mp4"
    assert VideoReader(prediction.video).fps == 5
    assert prediction.num_frames == 3


@pytest.mark.parametrize("sampler", [WindowSampler(1, 3), None])
def test_a_video_that_breaks_off_is_written_up_to_there(tiny, detector, tmp_path, sampler):
    source = tmp_path / "noise.mp4"
    random = np.random.default_rng(0)
    with av.open(str(source), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for _ in range(20):
            pixels = random.integers(0, 255, (*SIZE, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    inference = make_inference(tiny, detector, sampler)
    prediction = predict(inference, source, tmp_path / "out")
    assert "noise.mp4: frame" in str(prediction.failure)
    assert 0 < prediction.num_frames < 20
    assert f"frame {prediction.num_frames} " in str(prediction.failure)
    assert len(list(VideoReader(prediction.video))) == prediction.num_frames
    assert len(json.loads(prediction.boxes.read_text())["frames"]) == prediction.num_frames


def test_the_input_is_never_overwritten(tiny, detector, tmp_path):
    source = write_mp4(tmp_path / "clip.mp4", shades(tiny))
    before = source.read_bytes()
    with pytest.raises(ValueError, match=r"clip\.mp4 is the video itself: choose another output"):
        predict(make_inference(tiny, detector, None), source, tmp_path)
    assert source.read_bytes() == before


@pytest.mark.parametrize("suffix", ["mp4", "json"])
@pytest.mark.parametrize(("write", "name"), [(write_mp4, "clip.mov"), (write_folder, "clip")])
def test_a_file_beside_the_input_is_never_overwritten(tiny, tmp_path, write, name, suffix):
    source = write(tmp_path / name, shades(tiny)[:2])
    own = tmp_path / f"clip.{suffix}"
    own.write_bytes(b"of the user")
    (tmp_path / "link").symlink_to(tmp_path)
    for output in (tmp_path, tmp_path / "link", tmp_path / "other" / ".."):
        with pytest.raises(ValueError, match=rf"clip\.{suffix} is there already, with the video"):
            output_files(VideoReader(source), output)
    own.rename(tmp_path / "mine")
    assert output_files(VideoReader(source), tmp_path)[1] == tmp_path / "clip.json"


def test_a_file_among_the_frames_of_the_input_is_never_overwritten(tiny, tmp_path):
    source = write_folder(tmp_path / "clip", shades(tiny)[:2])
    (source / "clip.json").write_text("of the user")
    with pytest.raises(ValueError, match=r"clip\.json is there already, with the video"):
        output_files(VideoReader(source), source)


def test_an_output_folder_takes_the_next_run_as_well(tiny, detector, tmp_path):
    source = write_mp4(tmp_path / "clip.mp4", shades(tiny)[:2])
    inference = make_inference(tiny, detector, None)
    first, second = (predict(inference, source, tmp_path / "out") for _ in range(2))
    assert first == second


@pytest.mark.parametrize("write", [write_mp4, write_folder])
def test_support_frames_of_the_whole_video_are_looked_up_first(tiny, detector, tmp_path, write):
    source = write(tmp_path / "clip.mp4", shades(tiny))
    inference = make_inference(tiny, detector, VideoUniformSampler(3))
    prediction = predict(inference, source, tmp_path / "out")
    frames = [[frame] for frame in VideoReader(source)]
    expected = [found for found, *_ in inference.whole(frames, LENGTH, frames.__getitem__)]
    rows = json.loads(prediction.boxes.read_text())["frames"]
    assert len(rows) == len(expected) == LENGTH
    for found, row in zip(expected, rows, strict=True):
        assert np.allclose(row["scores"], found.scores, atol=1e-5)


def test_support_frames_of_another_video_leave_nothing_behind(tiny, detector, tmp_path):
    source = write_mp4(tmp_path / "clip.mp4", shades(tiny))
    inference = make_inference(tiny, detector, VideoUniformSampler(3))
    with pytest.raises(ValueError, match="a stream has no other video"):
        predict(replace(inference, support_video="other"), source, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_frame_without_detections_is_a_row_without_boxes(tiny, detector, tmp_path):
    detector.head.roi_head.score_threshold = 2.0
    source = write_mp4(tmp_path / "clip.mp4", shades(tiny))
    inference = replace(make_inference(tiny, detector, None))
    rows = json.loads(predict(inference, source, tmp_path / "out").boxes.read_text())["frames"]
    assert [row["boxes_xyxy"] for row in rows] == [[]] * LENGTH
