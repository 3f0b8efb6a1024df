"""A user's own videos: frames in folders, one table; what is wrong is named with file and line."""

from pathlib import Path
from random import Random

import pytest

from stpn_data import (
    AnnotatedVideos,
    ClipDataset,
    DataError,
    VideoDataset,
    check_data,
    open_own_folder,
)
from stpn_data.testing import damage_bytes, read_or_refuse

TABLE = """video,frame,class,left,top,right,bottom,track
street,2.jpg,car,1,2,30,40,7
street,2.jpg,dog,3.5,4,20,20,
street,10.jpg,,,,,,
park/day one,a.png,dog,5,6,25,26,7
street,10.jpg,car,2,2,31,40,7
"""


@pytest.fixture
def folder(tmp_path, write_image):
    """Two videos: three frames of which two have rows; one frame."""
    for value, name in enumerate(("street/1.jpg", "street/2.jpg", "street/10.jpg")):
        write_image(tmp_path / "own" / name, value=value)
    write_image(tmp_path / "own/park/day one/a.png", (40, 50))
    (tmp_path / "own/classes.txt").write_text("dog\ncar\n\nbus\n")
    (tmp_path / "own/objects.csv").write_text(TABLE)
    return tmp_path / "own"


def opened(folder):
    return open_own_folder(folder / "objects.csv")


def test_rows_are_objects_and_frames_with_rows_are_key_frames(folder):
    dataset = opened(folder)
    assert isinstance(dataset, AnnotatedVideos)
    assert isinstance(dataset, VideoDataset)
    assert dataset.classes == ("dog", "car", "bus")
    street, park = dataset.videos
    assert (street.name, street.num_frames, street.key_frames) == ("street", 3, (1, 2))
    assert (park.name, park.height, park.width, park.key_frames) == ("park/day one", 40, 50, (0,))
    first, second = dataset.objects(0, 1), dataset.objects(0, 2)
    assert first.boxes_xyxy.tolist() == [[1, 2, 30, 40], [3.5, 4, 20, 20]]
    assert first.labels.tolist() == [1, 0]
    assert first.track_ids[0] == second.track_ids[0] == 7
    assert first.track_ids[1] < 0
    assert len(dataset.objects(0, 0)) == 0
    assert dataset.frame(0, 2)[0, 0].tolist() == [2, 2, 2]
    assert str(dataset.check()) == "nothing left out"
    assert len(ClipDataset(dataset)) == 3


def test_a_folder_written_in_two_ways_is_one_video(folder):
    (folder / "objects.csv").write_text(TABLE.replace("street,10", "./street/,10"))
    assert [video.name for video in opened(folder).videos] == ["street", "park/day one"]
    assert len(opened(folder).objects(0, 2)) == 1


def test_a_check_names_the_folder_that_it_is_run_in(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (subset,) = check_data(Path()).subsets
    assert subset.name == "own"


def test_columns_in_any_order_without_tracks_with_a_mark_at_the_start(folder):
    table = "\ufeffright,bottom,left,top,class,frame,video\r\n30,40,1,2,car,2.jpg,street\r\n"
    (folder / "objects.csv").write_text(table + "9,9,1,2,car,2.jpg,street\r\n", newline="")
    objects = opened(folder).objects(0, 1)
    assert objects.boxes_xyxy.tolist() == [[1, 2, 30, 40], [1, 2, 9, 9]]
    assert len(set(objects.track_ids.tolist())) == 2


def test_a_frame_without_objects_is_a_key_frame(folder):
    (folder / "objects.csv").write_text(TABLE.replace("street,10.jpg,car,2,2,31,40,7\n", ""))
    dataset = opened(folder)
    assert dataset.videos[0].key_frames == (1, 2)
    assert len(dataset.objects(0, 2)) == 0


def test_classes_may_be_in_the_folder_above(folder):
    (folder / "classes.txt").rename(folder.parent / "classes.txt")
    assert opened(folder).classes == ("dog", "car", "bus")
    (folder.parent / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"own/classes\.txt: no such file"):
        opened(folder)


def test_unusable_boxes_are_left_out_and_counted(folder):
    rows = (
        "street,2.jpg,car,9,2,3,40,7\nstreet,2.jpg,car,70,2,80,40,8\nstreet,2.jpg,car,nan,2,3,4,9\n"
    )
    (folder / "objects.csv").write_text(TABLE + rows)
    assert opened(folder).check().counts == {
        "box narrower or lower than one pixel": 1,
        "box outside the frame": 1,
        "box null or not finite": 1,
    }


FAULTS = [
    ("street,2.jpg,cat,1,2,3,4,", "'class' is 'cat', which classes.txt does not list"),
    ("street,2.jpg,,1,2,3,4,", "'class' is '', which"),
    ("street,2.jpg,car,1,x,3,4,", "'top' is 'x', not a number"),
    ("street,2.jpg,car,1,2,3,,", "'bottom' is '', not a number"),
    ("street,2.jpg,car,1,2", "'right' is '', not a number"),
    ("street,2.jpg,car,1,2,3,4,-1", "'track' is '-1', expected a whole number"),
    ("street,2.jpg,car,1,2,3,4,5,6", "9 fields for 8 columns"),
    ("street,3.jpg,car,1,2,3,4,", r"street/3\.jpg is not there"),
    ("street,../2.jpg,car,1,2,3,4,", "'frame' is '../2.jpg', no file of the folder"),
    ("street,,car,1,2,3,4,", "'frame' is ''"),
    ("../street,2.jpg,car,1,2,3,4,", "'video' is '../street', no folder beside"),
    (",2.jpg,car,1,2,3,4,", "'video' is ''"),
    ("./,2.jpg,car,1,2,3,4,", "'video' is './', no folder beside"),
    ("lake,2.jpg,car,1,2,3,4,", "lake: no such folder"),
]


@pytest.mark.parametrize(("row", "message"), FAULTS)
def test_a_wrong_row_is_named_and_a_check_goes_on(folder, row, message):
    (folder / "objects.csv").write_text(TABLE + row)
    with pytest.raises(DataError, match=rf"objects\.csv:7: .*{message}"):
        opened(folder)
    (folder / "objects.csv").write_text(TABLE + row + "\nstreet,2.jpg,car,1,x,3,4,\n")
    problems = check_data(folder).problems
    assert problems.counts.total() == 2
    text = " ".join(place for kind in problems.counts for place in problems.places(kind))
    assert f"{folder / 'objects.csv'}:7: " in text
    assert f"{folder / 'objects.csv'}:8: 'top' is 'x'" in text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("objects.csv", "", r"objects\.csv:1: the columns are '', expected video,frame,"),
        ("objects.csv", "video;frame\n", r"objects\.csv:1: the columns are 'video;frame'"),
        ("objects.csv", TABLE.replace("bottom", "low"), r"objects\.csv:1: the columns"),
        ("objects.csv", TABLE.replace("right,", "right,right,"), r"objects\.csv:1: the columns"),
        ("objects.csv", TABLE.splitlines()[0], r"objects\.csv: no rows"),
        ("objects.csv", TABLE + '"street,2', r"objects\.csv: the table cannot be read"),
        ("classes.txt", "\n", r"classes\.txt: no classes"),
        ("classes.txt", "dog\ncar\ndog\n", r"classes\.txt:3: the class 'dog' occurs twice"),
    ],
)
def test_a_wrong_file_is_named(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=message):
        opened(folder)
    if "no rows" not in message:
        (place,) = check_data(folder).problems.places("annotation that cannot be read")
        assert name in place


def test_a_check_counts_what_is_there(folder):
    check = check_data(folder)
    (subset,) = check.subsets
    assert (subset.name, subset.layout) == ("own", "objects.csv")
    assert (subset.videos, subset.frames, subset.objects, subset.tracks) == (2, 4, 4, 2)
    assert subset.classes == {"dog", "car"}
    assert not check.problems.counts
    (folder.parent / "classes.txt").write_text("dog\ncar\n")
    (folder / "classes.txt").unlink()
    folder.rename(folder.parent / "train")
    assert [subset.name for subset in check_data(folder.parent).subsets] == ["train"]


@pytest.mark.parametrize(
    ("damage", "kind", "place"),
    [
        (lambda f: (f / "street/10.jpg").write_bytes(b"x"), "image that cannot be read", "10.jpg"),
        (lambda f: (f / "street/10.jpg").unlink(), "list entry without its file", "csv:4: "),
        (lambda f: (f / "more").mkdir(), "folder without rows", "own/more"),
        (
            lambda f: (f / "objects.csv").write_text(TABLE.replace("5,6,25", "5,6,55")),
            "box over the border of the frame",
            "csv:5: (5, 6, 55, 26) in 50x40",
        ),
        (
            lambda f: (f / "objects.csv").write_text(TABLE.replace("20,20,", "20,20,7")),
            "track twice in a frame",
            "csv:3: track 7 in 2.jpg",
        ),
        (
            lambda f: (f / "street/1.jpg").write_bytes((f / "park/day one/a.png").read_bytes()),
            "image of another size than annotated",
            "2.jpg: the image is 64x48, annotated as 50x40",
        ),
    ],
)
def test_a_check_names_what_is_wrong_with_frames_and_boxes(folder, damage, kind, place):
    damage(folder)
    assert any(place in where for where in check_data(folder).problems.places(kind))


@pytest.mark.parametrize("seed", range(150))
def test_a_damaged_table_is_read_or_refused_in_words(folder, seed):
    tokens = (b"\x00", b'"', b",,", b"\r", b"\n", b"\xff", b"9" * 5000, b"../", b"nan")
    (folder / "objects.csv").write_bytes(damage_bytes(TABLE.encode(), Random(seed), tokens))
    read_or_refuse(lambda: opened(folder).check(), str(folder))
    check_data(folder)
