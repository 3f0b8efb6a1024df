from zipfile import ZipFile

import cv2
import numpy as np
import pytest

from stpn_data import DataError
from stpn_data.got10k import GOT10k
from stpn_tasks.tracking.results_layout import (
    TrackRun,
    read_results,
    results_folder,
    write_results,
    zip_for_test_server,
)


def run(num_frames=4, start=1.0):
    boxes = start + np.arange(4 * num_frames).reshape(-1, 4) / 8
    return TrackRun(boxes, 0.01 * (start + np.arange(num_frames)))


@pytest.fixture
def dataset(tmp_path):
    """The split test with sequences "a" and "b" of four frames, and val with the sequence "c"."""
    for split, name in (("test", "a"), ("test", "b"), ("val", "c")):
        folder = tmp_path / "data" / split / name
        folder.mkdir(parents=True)
        for index in range(4):
            cv2.imwrite(str(folder / f"{index + 1:08d}.jpg"), np.zeros((8, 9, 3), np.uint8))
        (folder / "groundtruth.txt").write_text("1,1,4,4\n" * (1 if split == "test" else 4))
        for stem, value in (("cover", 8), ("absence", 0), ("cut_by_image", 0)):
            (folder / f"{stem}.label").write_text(f"{value}\n" * 4)
        (folder / "meta_info.ini").write_text("[METAINFO]\nresolution: (9, 8)\n")
    (tmp_path / "data/test/list.txt").write_text("a\nb\n")
    (tmp_path / "data/val/list.txt").write_text("c\n")
    return GOT10k(tmp_path / "data", "test")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "results"


def test_files_are_those_of_the_toolkit(root):
    write_results(root, "Own", "a", [run(2), run(2, 3.0)])
    folder = root / "GOT-10k" / "Own" / "a"
    assert sorted(file.name for file in folder.iterdir()) == [
        "a_001.txt",
        "a_002.txt",
        "a_time.txt",
    ]
    assert (folder / "a_001.txt").read_text() == (
        "1.000,1.125,1.250,1.375\n1.500,1.625,1.750,1.875\n"
    )
    assert (folder / "a_time.txt").read_text() == "0.01000000,0.03000000\n0.02000000,0.04000000\n"


def test_what_is_written_is_read(root):
    written = [run(), run(4, 2.0), run(4, 3.0)]
    write_results(root, "Own", "a", written)
    for one, other in zip(read_results(root, "Own", "a", 4), written, strict=True):
        np.testing.assert_allclose(one.boxes_xywh, other.boxes_xywh, atol=5.1e-4)
        np.testing.assert_allclose(one.times, other.times, atol=5e-9)


def test_writing_again_replaces_every_repetition(root):
    write_results(root, "Own", "a", [run(4, start) for start in (1.0, 2.0, 3.0)])
    write_results(root, "Own", "a_b", [run()])
    write_results(root, "Own", "a", [run(4, 9.0)])
    (one,) = read_results(root, "Own", "a", 4)
    assert one.boxes_xywh[0, 0] == 9
    assert len(read_results(root, "Own", "a_b", 4)) == 1


def test_repetitions_are_in_the_order_of_their_numbers(root):
    write_results(root, "Own", "a", [run(4, float(start)) for start in range(1, 12)])
    folder = results_folder(root, "Own", "a")
    (folder / "a_011.txt").rename(folder / "a_1000.txt")
    starts = [one.boxes_xywh[0, 0] for one in read_results(root, "Own", "a", 4)]
    assert starts == list(range(1, 12))


def test_times_may_be_missing_and_boxes_whole_numbers_between_tabs(root):
    folder = results_folder(root, "MixFormer", "a")
    folder.mkdir(parents=True)
    (folder / "a_001.txt").write_text("1\t2\t3\t4\n5\t6\t7\t8\n")
    (one,) = read_results(root, "MixFormer", "a", 2)
    assert one.boxes_xywh.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert np.isnan(one.times).all()


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("a_001.txt", "1,2,3,4\n" * 3, r"a_001\.txt:4: 3 lines for 4 frames"),
        ("a_001.txt", "1,2,3,4\n" * 5, r"a_001\.txt:5: 5 lines for 4 frames"),
        ("a_001.txt", "1,2,3,4\n1,2,3\n", r"a_001\.txt:2: expected 4 finite numbers"),
        ("a_001.txt", "1,2,3,4\n" * 3 + "1,2,nan,4\n", r"a_001\.txt:4: the box is not finite"),
        ("a_time.txt", "0.1\n" * 3, r"a_time\.txt:4: 3 lines for 4 frames"),
        ("a_time.txt", "0.1,0.1\n" * 4, r"a_time\.txt:1: 2 times of a frame for 1 repetitions"),
    ],
)
def test_lengths_that_do_not_fit_are_named_with_the_file(root, file, text, message):
    write_results(root, "Own", "a", [run()])
    (results_folder(root, "Own", "a") / file).write_text(text)
    with pytest.raises(DataError, match=message):
        read_results(root, "Own", "a", 4)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "a: there is no run"),
        ([TrackRun(np.ones((3, 4)), np.ones(4))], r"boxes \(3, 4\) and times \(4,\) of run 1"),
        ([run(), run(3)], r"of run 2 do not agree, or not with the first run's 4 frames"),
        ([TrackRun(np.ones((0, 4)), np.ones(0))], "of run 1"),
        ([TrackRun(np.full((2, 4), np.nan), np.ones(2))], "a box of run 1 is not finite"),
    ],
)
def test_runs_that_do_not_fit_are_refused_before_anything_is_written(root, runs, message):
    with pytest.raises(ValueError, match=message):
        write_results(root, "Own", "a", runs)
    assert not root.exists()


@pytest.mark.parametrize("name", ["clip (1)", "a, b", "50%", "[1] *?", "größe", "a\u00a0b", "...x"])
def test_a_name_may_have_what_a_folder_s_may(root, name):
    write_results(root, name, name, [run()])
    (one,) = read_results(root, name, name, 4)
    np.testing.assert_allclose(one.boxes_xywh, run().boxes_xywh, atol=5.1e-4)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\\b", "a\n", "a\0", "\x85"])
def test_a_name_is_a_folder_and_no_path(root, name):
    with pytest.raises(ValueError, match="cannot be a folder"):
        write_results(root, name, "a", [run()])
    with pytest.raises(ValueError, match="cannot be a folder"):
        read_results(root, "Own", name, 4)


def test_no_results_are_an_error(root):
    with pytest.raises(DataError, match=r"Own/a: no results of a"):
        read_results(root, "Own", "a", 4)


def test_the_zip_has_the_results_of_the_test_split_and_nothing_else(root, dataset):
    for name in ("a", "b", "c"):
        write_results(root, "Own", name, [run(), run(4, 2.0)])
    (results_folder(root, "Own", "a") / "notes.txt").write_text("mine")
    path = zip_for_test_server(root, "Own", dataset)
    assert path == root / "GOT-10k" / "Own.zip"
    with ZipFile(path) as archive:
        assert archive.namelist() == [
            f"{name}/{name}_{part}.txt" for name in "ab" for part in ("001", "002", "time")
        ]
        text = (results_folder(root, "Own", "b") / "b_002.txt").read_bytes()
        assert archive.read("b/b_002.txt") == text
    again = zip_for_test_server(root, "Own", dataset, root / "own.zip")
    assert again.read_bytes() == path.read_bytes()


def test_no_zip_is_made_of_results_that_are_missing_or_too_short(root, dataset):
    write_results(root, "Own", "a", [run()])
    with pytest.raises(DataError, match="no results of b"):
        zip_for_test_server(root, "Own", dataset)
    write_results(root, "Own", "b", [run(3)])
    with pytest.raises(DataError, match="3 lines for 4 frames"):
        zip_for_test_server(root, "Own", dataset)
    write_results(root, "Own", "b", [run()])
    (results_folder(root, "Own", "b") / "b_time.txt").unlink()
    with pytest.raises(DataError, match=r"b_time\.txt: the times"):
        zip_for_test_server(root, "Own", dataset)
    assert not list(root.rglob("*.zip"))


def test_no_zip_is_made_of_another_split(root, dataset, tmp_path):
    with pytest.raises(ValueError, match="of the split test, not of val"):
        zip_for_test_server(root, "Own", GOT10k(tmp_path / "data", "val"))
