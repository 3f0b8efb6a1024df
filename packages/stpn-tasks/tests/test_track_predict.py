import json

import cv2
import numpy as np
import pytest
import torch

from stpn_data import DataError
from stpn_data.video import VideoReader, VideoWriter
from stpn_tasks.draw import draw_boxes
from stpn_tasks.tracking.options import TrackerOptions
from stpn_tasks.tracking.predict import predict_tracking
from stpn_tasks.tracking.tracker import OnlineTracker

LENGTH, BOX = 7, (10.0, 8.0, 12.0, 10.0)


@pytest.fixture
def make_tracker(tiny_tracking):
    def make(**options):
        network = tiny_tracking.ToyNetwork(prompted=True).eval()
        return OnlineTracker(network, TrackerOptions(template_size=16, search_size=32, **options))

    return make


@pytest.fixture
def frames(tiny_tracking):
    return list(tiny_tracking.MovingTargets(lengths=(LENGTH,)).frames(0))


def write_folder(path, frames):
    path.mkdir()
    for t, frame in enumerate(frames):
        cv2.imwrite(str(path / f"{t}.png"), np.ascontiguousarray(frame[..., ::-1]))
    return path


def predict(tracker, source, output, **options):
    return predict_tracking(tracker, VideoReader(source), BOX, output, progress=False, **options)


def test_every_frame_has_the_box_of_the_tracker(make_tracker, frames, tmp_path):
    source = write_folder(tmp_path / "a.b", frames)
    tracker = make_tracker()
    prediction = predict(tracker, source, tmp_path / "out", fps=10.0)
    assert (prediction.num_frames, prediction.failure) == (LENGTH, None)
    values = json.loads(prediction.boxes.read_text())
    rows = values.pop("frames")
    assert values == {"video": "a.b", "height": 40, "width": 50, "fps": 10.0}
    assert rows[0] == {"frame": 0, "box_xywh": list(BOX), "score": None, "is_lost": False}

    tracker.init(frames[0], BOX)
    for t, (frame, row) in enumerate(zip(frames[1:], rows[1:], strict=True), start=1):
        box, score, is_lost = tracker.track(frame)
        assert row["frame"] == t
        assert row["box_xywh"] == pytest.approx(box, abs=6e-4)
        assert row["score"] == pytest.approx(score, abs=6e-6)
        assert row["is_lost"] == is_lost


@pytest.mark.parametrize(("least", "name"), [(0.0, "target"), (1.0, "lost")])
def test_the_video_shows_the_box_its_score_and_whether_the_target_is_lost(
    make_tracker, frames, tmp_path, least, name
):
    source = write_folder(tmp_path / "clip", frames)
    tracker = make_tracker(lost_score=least)
    drawn = list(VideoReader(predict(tracker, source, tmp_path / "out").video))
    assert len(drawn) == LENGTH
    tracker.init(frames[0], BOX)
    for frame, picture in zip(frames[1:], drawn[1:], strict=True):
        (x, y, w, h), score, _ = tracker.track(frame)
        box = np.array([[x, y, x + w, y + h]], np.float32)
        errors = {
            label: np.abs(picture.astype(int) - expected).mean()
            for number, label in enumerate(("target", "lost"))
            for expected in [
                draw_boxes(
                    frame,
                    box,
                    np.array([number]),
                    ("target", "lost"),
                    np.array([score], np.float32),
                ).astype(int)
            ]
        }
        assert min(errors, key=errors.get) == name


def test_what_was_tracked_before_the_input_breaks_off_is_kept(make_tracker, frames, tmp_path):
    source = write_folder(tmp_path / "clip", frames)
    (source / "4.png").write_bytes((source / "4.png").read_bytes()[:-30])
    prediction = predict(make_tracker(), source, tmp_path / "out")
    assert prediction.num_frames == 4
    assert "truncated" in str(prediction.failure)
    assert len(json.loads(prediction.boxes.read_text())["frames"]) == 4
    assert len(list(VideoReader(prediction.video))) == 4


def test_of_an_input_that_breaks_off_at_once_nothing_is_written(make_tracker, frames, tmp_path):
    source = write_folder(tmp_path / "clip", frames)
    reader = VideoReader(source)
    (source / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        predict_tracking(make_tracker(), reader, BOX, tmp_path / "out", progress=False)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.without_shape_checks
def test_one_frame_is_in_memory(make_tracker, frames, tmp_path):
    """The reader is asked for a frame only when the one before was tracked and written."""
    tracker, events = make_tracker(), []
    track = tracker.track

    class Reader:
        path, size, fps, num_frames = tmp_path / "clip", (40, 50), 5.0, LENGTH

        def __iter__(self):
            for t, frame in enumerate(frames):
                events.append(("read", t))
                yield frame

    def noted(frame):
        events.append(("track", tracker.state.frame + 1))
        return track(frame)

    tracker.track = noted
    predict_tracking(tracker, Reader(), BOX, tmp_path / "out", progress=False)
    later = [(kind, t) for t in range(1, LENGTH) for kind in ("read", "track")]
    assert events == [("read", 0), *later]


def test_the_input_is_never_the_output(make_tracker, frames, tmp_path):
    source = tmp_path / "clip.mp4"
    with VideoWriter(source, 10, (40, 50)) as writer:
        for frame in frames:
            writer.write(frame)
    before = source.read_bytes()
    with pytest.raises(ValueError, match="choose another output"):
        predict(make_tracker(), source, tmp_path)
    assert source.read_bytes() == before


def test_a_box_beside_the_video_leaves_nothing_behind(make_tracker, frames, tmp_path):
    reader = VideoReader(write_folder(tmp_path / "clip", frames))
    with pytest.raises(ValueError, match="no area on a frame"):
        predict_tracking(
            make_tracker(), reader, (60.0, 0.0, 5.0, 5.0), tmp_path / "out", progress=False
        )
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("part", ["box", "score"])
def test_of_numbers_that_are_not_finite_nothing_is_written(make_tracker, frames, tmp_path, part):
    tracker = make_tracker()
    getattr(tracker.network, part).bias.data.fill_(torch.nan)
    with pytest.raises(ValueError, match=f"{part} in frame 1 is not finite"):
        predict(tracker, write_folder(tmp_path / "clip", frames), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
