import numpy as np
import pytest
import torch

from stpn_data.videos import FrameObjects, Video
from stpn_tasks.detection.build import build_preparation
from stpn_tasks.detection.evaluation import evaluate_detector
from stpn_tasks.detection.inference import VideoInference
from stpn_tasks.detection.motion import (
    frames_around,
    has_tracks,
    motion_from_table,
    motion_from_tracks,
)
from stpn_tasks.engine import make_accelerator

VIDEOS = (Video("first", 3, 10, 10, (0, 2)), Video("second", 1, 10, 10, (0,)))


def objects(*rows):
    """Rows are track, x1, y1, x2, y2."""
    rows = np.array(rows, np.int64).reshape(-1, 5)
    labels, crowd = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.bool_)
    return FrameObjects(rows[:, 1:].astype(np.float32), labels, rows[:, 0], crowd)


def test_frames_around_key_frames_are_those_that_their_motion_depends_on():
    assert frames_around(Video("v", 60, 9, 9, (5, 40))) == [*range(16), *range(30, 51)]
    assert frames_around(Video("v", 3, 9, 9, (0, 1, 2))) == [0, 1, 2]
    assert frames_around(Video("v", 3, 9, 9, ())) == []


def test_motion_of_each_frame_is_in_the_order_of_its_objects():
    still, moved = (0, 0, 9, 9), (5, 0, 14, 9)
    frames = {
        3: objects((7, *still), (8, *still)),
        4: objects(),
        5: objects((8, *moved), (7, *still)),
    }
    motion = motion_from_tracks(frames)
    assert list(motion) == [3, 4, 5]
    np.testing.assert_allclose(motion[3], [1, 1 / 3])
    np.testing.assert_allclose(motion[5], [1 / 3, 1])
    assert motion[4].shape == (0,)
    assert motion_from_tracks({}) == {}


def test_without_an_object_in_two_frames_there_are_no_tracks():
    box = (0, 0, 9, 9)
    assert has_tracks({0: objects((1, *box)), 1: objects((1, *box))})
    assert not has_tracks({0: objects((1, *box)), 1: objects((2, *box))})
    assert not has_tracks({})


def write(path, rows):
    cells = np.empty((len(rows), 1), object)
    cells[:, 0] = [np.array(row, np.float64).reshape(-1, 1) for row in rows]
    pytest.importorskip("scipy.io").savemat(path, {"motion_iou": cells})
    return path


def test_a_table_gives_the_motion_of_the_key_frames(tmp_path):
    path = write(tmp_path / "motion.mat", [[0.5, 1], [], [0.7], []])
    found = motion_from_table(path, VIDEOS, [2, 1, 0])
    assert [row.tolist() for row in found] == [[0.5, 1], [0.7], []]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0.5, 1]], "motion.mat has 1 frames, the videos have 4"),
        ([[0.5, 1], [], [], []], r"motion.mat: row 3 has 0 values, first frame 2 has 1 objects"),
    ],
)
def test_a_table_of_other_videos_is_named(tmp_path, rows, message):
    path = write(tmp_path / "motion.mat", rows)
    with pytest.raises(ValueError, match=message):
        motion_from_table(path, VIDEOS, [2, 1, 0])


class Images:
    """The squares of a data set, as images of one frame."""

    def __init__(self, dataset):
        self.dataset, self.classes = dataset, dataset.classes
        self.videos = [Video(str(i), 1, 64, 96, (0,)) for i in range(dataset.videos[0].num_frames)]

    def frame(self, video, index):
        return self.dataset.frame(0, video)

    def objects(self, video, index):
        return self.dataset.objects(0, video)

    def conditions(self, video, index):
        return frozenset()


def evaluate(tiny, videos, **options):
    recipe = tiny.recipe("none")
    inference = VideoInference(
        tiny.detector(recipe), None, build_preparation(recipe, torch.device("cpu"))
    )
    accelerator = make_accelerator("cpu")
    return evaluate_detector(
        inference, videos, accelerator=accelerator, progress=False, **options
    ).vid


def test_motion_groups_are_there_only_where_objects_have_tracks(tiny):
    videos = tiny.MovingSquares(((3, 64, 96),))
    assert list(evaluate(tiny, videos)) == ["all", "slow", "medium", "fast"]
    assert list(evaluate(tiny, Images(videos))) == ["all"]


def test_a_table_that_does_not_fit_is_refused_before_anything_is_detected(
    tiny, tmp_path, monkeypatch
):
    videos = tiny.MovingSquares(((3, 64, 96),))
    path = write(tmp_path / "motion.mat", [[0.95], [0.95], [0.8]])
    groups = evaluate(tiny, videos, motion_table=path)
    assert {name: sum(one.num_objects.values()) for name, one in groups.items()} == {
        **{"all": 3, "slow": 2, "medium": 1, "fast": 0}
    }
    monkeypatch.setattr(VideoInference, "videos", None)
    path = write(tmp_path / "motion.mat", [[0.95], [0.95], [0.8, 0.9]])
    with pytest.raises(ValueError, match="row 3 has 2 values, v0 frame 2 has 1 objects"):
        evaluate(tiny, videos, motion_table=path)
