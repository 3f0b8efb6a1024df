import cv2
import numpy as np
import pytest

from stpn_data import DataError, VideoWriter
from stpn_data.own_sequences import OwnSequences
from stpn_data.sequences import TrackingDataset

SIZE = (32, 48)
BOX = "4,5,10,8\n"


def pixels(index):
    return np.full((*SIZE, 3), 40 * index, np.uint8)


def write_frames(folder, num_frames=4):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(num_frames):
        assert cv2.imwrite(str(folder / f"{index + 8}.png"), pixels(index))  # 8, 9, 10, 11


def write_video(path, num_frames=4):
    with VideoWriter(path, 10, SIZE) as video:
        for index in range(num_frames):
            video.write(pixels(index))


def levels(frames):
    return [round(int(frame[0, 0, 0]) / 40) for frame in frames]


def test_folders_and_videos_are_found_with_their_boxes(tmp_path):
    write_frames(tmp_path / "b")
    (tmp_path / "b/groundtruth.txt").write_text(BOX * 4)
    write_frames(tmp_path / "c.d")
    (tmp_path / "c.d.txt").write_text(BOX * 4)
    write_video(tmp_path / "a.mp4")
    (tmp_path / "a.txt").write_text(BOX)
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "pictures").mkdir()
    (tmp_path / ".hidden.txt").write_text("no boxes")
    data = OwnSequences.from_folder(tmp_path)
    assert isinstance(data, TrackingDataset)
    assert [one.name for one in data.sequences] == ["a", "b", "c.d"]
    for number, one in enumerate(data.sequences):
        assert (one.num_frames, one.size) == (4, SIZE)
        assert levels(data.frames(number)) == [0, 1, 2, 3]
        assert levels(data.frame(number, index) for index in (2, 0, 3)) == [2, 0, 3]
    assert data.sequences[0].visible.tolist() == [True, False, False, False]
    assert np.isnan(data.sequences[0].boxes_xywh[1:]).all()
    assert data.sequences[1].counted.all()


def test_a_folder_of_frames_is_a_sequence_by_itself(tmp_path):
    write_frames(tmp_path / "own")
    (tmp_path / "own/groundtruth.txt").write_text(f"{BOX}nan\tnan\tnan\tnan\n0 0 0 0\n{BOX}")
    (one,) = OwnSequences.from_folder(tmp_path / "own").sequences
    assert one.name == "own"
    assert one.visible.tolist() == one.counted.tolist() == [True, False, False, True]


@pytest.mark.parametrize("path", [".", "..", "../own", "inner/.."])
def test_a_sequence_has_the_name_of_its_folder_however_it_is_said(tmp_path, monkeypatch, path):
    write_frames(tmp_path / "own")
    (tmp_path / "own/groundtruth.txt").write_text(BOX)
    (tmp_path / "own/inner").mkdir()
    monkeypatch.chdir(tmp_path / ("own/inner" if path == ".." else "own"))
    (one,) = OwnSequences.from_folder(path).sequences
    assert one.name == "own"


def test_a_link_keeps_its_own_name(tmp_path):
    write_frames(tmp_path / "frames/0001")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/own").symlink_to(tmp_path / "frames/0001")
    (tmp_path / "data/own.txt").write_text(BOX)
    assert [one.name for one in OwnSequences.from_folder(tmp_path / "data").sequences] == ["own"]


def test_pairs_may_be_named_wherever_they_are(tmp_path):
    write_video(tmp_path / "one.mkv")
    (tmp_path / "boxes").write_text(BOX * 4)
    data = OwnSequences([(str(tmp_path / "one.mkv"), str(tmp_path / "boxes"))])
    assert levels(data.frames(0)) == [0, 1, 2, 3]


@pytest.mark.parametrize("lines", [3, 5, 2])
def test_as_many_lines_as_frames_are_asked_for(tmp_path, lines):
    write_video(tmp_path / "one.avi")
    write_frames(tmp_path / "two")
    boxes = tmp_path / "boxes.txt"
    boxes.write_text(BOX * lines)
    for name in ("one.avi", "two"):
        with pytest.raises(DataError, match=rf"boxes\.txt:\d: {lines} lines for the 4 frames of"):
            OwnSequences([(tmp_path / name, boxes)])


@pytest.mark.parametrize("line", ["nan,nan,nan,nan", "1,2,0,0", "48,2,5,5"])
def test_the_first_frame_needs_a_box(tmp_path, line):
    write_frames(tmp_path)
    (tmp_path / "groundtruth.txt").write_text(f"{line}\n{BOX * 3}")
    with pytest.raises(DataError, match=r"groundtruth\.txt:1: the first frame has no box"):
        OwnSequences.from_folder(tmp_path)


def test_boxes_that_belong_to_no_or_to_two_videos_are_named(tmp_path):
    (tmp_path / "one.txt").write_text(BOX)
    expected = r"one\.txt: expected one video of this name, found none; every \.txt .* of boxes"
    with pytest.raises(DataError, match=expected):
        OwnSequences.from_folder(tmp_path)
    write_video(tmp_path / "one.mp4")
    write_frames(tmp_path / "one")
    with pytest.raises(DataError, match=r"one\.txt: .* found one and one\.mp4"):
        OwnSequences.from_folder(tmp_path)


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no sequence: neither folders"):
        OwnSequences.from_folder(tmp_path)
    with pytest.raises(DataError, match="missing: no such folder"):
        OwnSequences.from_folder(tmp_path / "missing")
    with pytest.raises(DataError, match="no sequences were given"):
        OwnSequences([])


def test_names_are_unique(tmp_path):
    write_frames(tmp_path / "x/one")
    write_frames(tmp_path / "y/one")
    (tmp_path / "boxes.txt").write_text(BOX)
    with pytest.raises(DataError, match="the name one is that of .*x/one too"):
        OwnSequences([(tmp_path / folder / "one", tmp_path / "boxes.txt") for folder in "xy"])


def test_a_video_that_has_become_shorter_is_refused(tmp_path):
    write_video(tmp_path / "one.mp4")
    (tmp_path / "one.txt").write_text(BOX * 4)
    data = OwnSequences.from_folder(tmp_path)
    write_video(tmp_path / "one.mp4", 2)
    with pytest.raises(DataError, match=r"one\.mp4: the video ends before frame 3"):
        data.frame(0, 3)
    with pytest.raises(DataError, match=r"one\.mp4: the video has 2 frames, its boxes are 4"):
        list(data.frames(0))
    with pytest.raises(IndexError, match="frame 4"):
        data.frame(0, 4)


def test_an_image_of_another_size_is_named(tmp_path):
    write_frames(tmp_path)
    (tmp_path / "groundtruth.txt").write_text(BOX)
    cv2.imwrite(str(tmp_path / "10.png"), np.zeros((8, 9, 3), np.uint8))
    data = OwnSequences.from_folder(tmp_path)
    with pytest.raises(DataError, match=r"10\.png: the image is 9x8, the sequence is 48x32"):
        data.frame(0, 2)


def test_frames_are_those_of_the_folder_as_it_was_opened(tmp_path):
    write_frames(tmp_path)
    (tmp_path / "groundtruth.txt").write_text(BOX * 4)
    data = OwnSequences.from_folder(tmp_path)
    assert cv2.imwrite(str(tmp_path / "1.png"), pixels(5))  # before all others
    assert levels(data.frame(0, index) for index in range(4)) == [0, 1, 2, 3]
    (tmp_path / "9.png").unlink()
    with pytest.raises(DataError, match=r"9\.png"):
        data.frame(0, 1)
