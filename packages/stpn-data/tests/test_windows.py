"""Windows without a clean frame, and windows as videos of their own."""

import numpy as np
import pytest

from stpn_data.deteriorated import DeterioratedSegmentation, SegmentationOptions
from stpn_data.videos import Video, VideoDataset
from stpn_data.windows import VideoWindows, windows_without_clean_frame


class Written:
    """Videos whose frames are deteriorated where a text has a "d"."""

    classes = ("thing",)

    def __init__(self, *texts):
        self._texts = texts
        self.videos = [
            Video(f"v{i}", len(text), 32, 32, tuple(range(len(text))))
            for i, text in enumerate(texts)
        ]

    def conditions(self, video, index):
        return frozenset({"deteriorated" if self._texts[video][index] == "d" else "clean"})


@pytest.mark.parametrize(
    ("text", "firsts"),
    [
        ("ddd.dddd", [4]),
        ("ddddd", [0]),
        ("dddddddd", [0, 4]),
        (".dddddddd.", [1, 5]),
        ("dd.ddd", []),
        ("", []),
    ],
)
def test_windows_are_deteriorated_throughout_early_and_apart(text, firsts):
    assert windows_without_clean_frame(Written("....", text)) == [(1, first) for first in firsts]


def test_frames_that_say_nothing_are_in_no_window():
    dataset = Written("dddd")
    dataset.conditions = lambda video, index: frozenset()
    assert windows_without_clean_frame(dataset) == []


def test_generated_clips_have_windows(tmp_path):
    options = SegmentationOptions(size=(48, 48), object_size=(12.0, 20.0))
    dataset = DeterioratedSegmentation(
        tmp_path, num_videos=8, options=options, num_workers=0, progress=False
    )
    windows = windows_without_clean_frame(dataset)
    assert len(windows) >= 4
    pieces = VideoWindows(dataset, windows)
    assert isinstance(pieces, VideoDataset)
    for number, (video, first) in enumerate(windows):
        assert pieces.videos[number].name == f"{dataset.videos[video].name}/{first}"
        assert pieces.videos[number].key_frames == (0, 1, 2, 3)
        for t in range(4):
            assert "clean" not in pieces.conditions(number, t)
            assert np.array_equal(pieces.frame(number, t), dataset.frame(video, first + t))
            assert np.array_equal(
                pieces.objects(number, t).masks, dataset.objects(video, first + t).masks
            )


def test_wrong_windows_are_refused():
    dataset = Written("dddddd")
    with pytest.raises(ValueError, match="length"):
        windows_without_clean_frame(dataset, 0)
    with pytest.raises(ValueError, match=r"frames 3 \.\. 6 are not in v0"):
        VideoWindows(dataset, [(0, 3)])
    with pytest.raises(ValueError, match="twice"):
        VideoWindows(dataset, [(0, 1), (0, 1)])
    with pytest.raises(IndexError, match="frame 4"):
        VideoWindows(dataset, [(0, 1)]).conditions(0, 4)
