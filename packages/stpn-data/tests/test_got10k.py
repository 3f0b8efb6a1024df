import math

import cv2
import numpy as np
import pytest

from stpn_data import DataError
from stpn_data.got10k import GOT10k
from stpn_data.sequences import TrackingDataset, TrackingSequence, read_boxes, read_rows

WIDTH, HEIGHT = 32, 24
META = (
    "[METAINFO]\nurl: https://example.org/watch?v=1\nbegin: 00:00:10\nanno_fps: 10Hz\n"
    f"object_class: zebra\nresolution: ({WIDTH}, {HEIGHT})"
)


def write_sequence(folder, boxes, labels=True, **files):
    """A sequence as GOT-10k's authors lay it out; `files` replace the text of one, by its stem."""
    folder.mkdir(parents=True)
    for index in range(len(boxes)):
        pixels = np.full((HEIGHT, WIDTH, 3), (0, 20 * index, 200), np.uint8)  # BGR
        assert cv2.imwrite(str(folder / f"{index + 1:08d}.jpg"), pixels)
    texts = {"groundtruth": "".join(",".join(f"{v:.4f}" for v in box) + "\n" for box in boxes)}
    if labels:
        texts |= {"absence": "0\n" * len(boxes), "cut_by_image": "0\n" * len(boxes)}
        texts |= {"cover": "8\n" * len(boxes), "meta_info": META}
    suffixes = {"groundtruth": "txt", "meta_info": "ini"}
    for stem, text in (texts | files).items():
        if text is not None:
            (folder / f"{stem}.{suffixes.get(stem, 'label')}").write_text(text)


@pytest.fixture
def make(tmp_path):
    """Write a root with one sequence "one" of four boxes and open its split."""

    def made(split="val", num_frames=4, **files):
        boxes = [(1.5 + i, 2, 8, 6) for i in range(num_frames)]
        write_sequence(tmp_path / split / "one", boxes, split != "test", **files)
        (tmp_path / split / "list.txt").write_text("one")
        return GOT10k(tmp_path, split)

    return made


def refused(make, split="val", **files):
    with pytest.raises(DataError) as error:
        make(split, **files)
    return str(error.value).partition(f"/{split}/")[2]


def test_a_sequence_has_its_boxes_labels_and_frames(make):
    data = make(cover="8\n0\n1\n8", absence="0\n0\n0\n1\n", cut_by_image="0\n1\n0\n0\n")
    (one,) = data.sequences
    assert isinstance(data, TrackingDataset)
    assert (one.name, one.num_frames, one.size) == ("one", 4, (HEIGHT, WIDTH))
    np.testing.assert_array_equal(one.boxes_xywh, [(1.5 + i, 2, 8, 6) for i in range(4)])
    (labels,) = data.labels
    assert labels.cover.tolist() == [8, 0, 1, 8]
    assert labels.absent.tolist() == [False, False, False, True]
    assert labels.cut_by_image.tolist() == [False, True, False, False]
    assert labels.meta["url"] == "https://example.org/watch?v=1"
    assert labels.meta["begin"] == "00:00:10"
    assert labels.meta["object_class"] == "zebra"
    assert data.frame(0, 3).shape == (HEIGHT, WIDTH, 3)
    assert [int(frame[0, 0, 1]) // 10 for frame in data.frames(0)] == [0, 2, 4, 6]
    assert data.frame(0, 0)[0, 0, 0] > 150 > data.frame(0, 0)[0, 0, 2]  # RGB


def test_what_is_seen_and_what_counts_differ_where_the_target_is_absent(make):
    (one,) = make(cover="8\n0\n1\n8\n", absence="0\n0\n0\n1\n").sequences
    assert one.visible.tolist() == [True, False, True, False]
    assert one.counted.tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    ("line", "visible", "counted"),
    [
        ("NaN,NaN,NaN,NaN", False, False),
        ("nan,2,8,6", False, False),
        ("0,0,0,0", False, True),
        ("3,2,8,-6", False, True),
        (f"{WIDTH},2,8,6", False, True),
        ("-9,2,8,6", False, True),
        (f"{WIDTH - 1},-5,8,6", True, True),
        ("-7.5,23,8,600", True, True),
    ],
)
def test_a_box_without_area_on_the_frame_is_not_seen(make, line, visible, counted):
    (one,) = make(groundtruth=f"1,2,3,4\n{line}\n1,2,3,4\n1,2,3,4\n").sequences
    assert one.visible.tolist() == [True, visible, True, True]
    assert one.counted.tolist() == [True, counted, True, True]
    assert np.isnan(one.boxes_xywh[1]).sum() == (0 if counted else 4)


@pytest.mark.parametrize(
    "text",
    [
        "1,2,3,4\n5,6,7,8.5",
        "1\t2\t3\t4\r\n5\t6\t7\t8.5\r\n",
        "1, 2, 3, 4\n5 6 7 8.5\n\n\n",
        "\ufeff1.0,2.,+3,4e0\n 5 , 6 , 7 , .85e1 \n",
    ],
)
def test_boxes_are_read_with_every_separator_and_end(tmp_path, text):
    path = tmp_path / "boxes.txt"
    path.write_text(text, encoding="utf-8", newline="")
    assert read_boxes(path).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8.5]]


@pytest.mark.parametrize(
    "line",
    ["1,2,3", "1,2,3,4,5,6,7,8", "1,,2,3", "1,2,3,x", "1,2,3,inf", "1,2,3,1e999", "1_0,2,3,4", ""],
)
def test_a_line_that_is_no_box_is_named(tmp_path, line):
    path = tmp_path / "boxes.txt"
    path.write_text(f"1,2,3,4\n{line}\n1,2,3,4\n")
    with pytest.raises(DataError, match=r"boxes\.txt:2: expected 4 finite numbers, got '"):
        read_boxes(path)


def test_rows_have_as_many_numbers_as_the_first(tmp_path):
    path = tmp_path / "times.txt"
    path.write_text("0.1,0.2\n0.3,nan\n")
    assert read_rows(path)[1, 0] == 0.3
    assert math.isnan(read_rows(path)[1, 1])
    path.write_text("0.1,0.2\n0.3\n")
    with pytest.raises(DataError, match=r"times\.txt:2: expected 2 finite numbers"):
        read_rows(path)


def test_a_file_without_text_or_that_is_none_is_named(tmp_path):
    path = tmp_path / "boxes.txt"
    for data, reason in ((b" \n\n", "is empty"), (b"\xff\xfe1", "cannot be read")):
        path.write_bytes(data)
        with pytest.raises(DataError, match=rf"boxes\.txt: the file {reason}"):
            read_boxes(path)
    path.unlink()
    with pytest.raises(DataError, match=r"boxes\.txt: the file cannot be read"):
        read_boxes(path)


@pytest.mark.parametrize(
    ("stem", "text", "message"),
    [
        ("groundtruth", "1,2,3,4\n" * 3, "one/groundtruth.txt:4: 3 lines for 4 frames"),
        ("groundtruth", "1,2,3,4\n" * 6, "one/groundtruth.txt:5: 6 lines for 4 frames"),
        ("groundtruth", "1,2,3,4\n", "one/groundtruth.txt:2: 1 lines for 4 frames"),
        ("groundtruth", None, "one/groundtruth.txt: the file cannot be read"),
        ("cover", "8\n8\n8\n", "one/cover.label:4: 3 lines for 4 frames"),
        ("cover", "8\n9\n8\n8\n", "one/cover.label:2: expected 0 .. 8, got '9'"),
        ("absence", "0\n0\n2\n0\n", "one/absence.label:3: expected 0 .. 1, got '2'"),
        ("absence", None, "one/absence.label: the file cannot be read"),
        ("cut_by_image", "0\n\n0\n0\n", "one/cut_by_image.label:2: expected 0 .. 1, got ''"),
        ("meta_info", None, "one/meta_info.ini: the file cannot be read"),
        ("meta_info", "url: x\n", "one/meta_info.ini:1: expected [METAINFO]"),
        ("meta_info", "[METAINFO]\nurl\n", "one/meta_info.ini:2: expected 'key: value'"),
        ("meta_info", META + "\nurl: y", "one/meta_info.ini:7: 'url' stands there twice"),
        ("meta_info", "[METAINFO]\nurl: x\n", "one/meta_info.ini: resolution is missing"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(make, stem, text, message):
    assert refused(make, **{stem: text}).startswith(message)


@pytest.mark.parametrize(
    "value", ["(32,)", "(0, 24)", "(99999, 24)", "32x24", "__import__('os').abort()", "[32, 24]"]
)
def test_a_resolution_is_matched_and_never_evaluated(make, value):
    message = refused(make, meta_info=f"[METAINFO]\nresolution: {value}\n")
    assert message.startswith("one/meta_info.ini: resolution must be (width, height), got")


def test_the_test_split_has_one_box_and_needs_no_labels(make):
    data = make("test", groundtruth="1,2,8,6\n")
    (one,) = data.sequences
    assert data.labels == [None]
    assert one.size == (HEIGHT, WIDTH)
    assert one.boxes_xywh[0].tolist() == [1, 2, 8, 6]
    assert np.isnan(one.boxes_xywh[1:]).all()
    assert one.visible.tolist() == one.counted.tolist() == [True, False, False, False]


def test_the_test_split_needs_a_box_to_start_from(make):
    assert refused(make, "test", groundtruth="1,2,0,0").startswith("one/groundtruth.txt:1: no box")


def test_a_missing_frame_is_named(make, tmp_path):
    make()
    (tmp_path / "val/one/00000002.jpg").unlink()
    with pytest.raises(DataError, match=r"00000002\.jpg: the frame is missing; the folder has 3"):
        GOT10k(tmp_path, "val")


def test_a_frame_of_another_size_than_said_is_named(make):
    data = make(meta_info="[METAINFO]\nresolution: (64, 24)\n")
    with pytest.raises(
        DataError, match=r"00000001\.jpg: the image is 32x24, the sequence is 64x24"
    ):
        data.frame(0, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one\nzero\n", "zero: the sequence cannot be read"),
        ("one\none\n", "list.txt:2: sequence one is listed twice"),
        ("one\n\none\n", "list.txt:2: '' is no name of a sequence"),
        ("../one\n", "list.txt:1: '../one' is no name of a sequence"),
        ("..\n", "list.txt:1: '..' is no name"),
        ("\n", "list.txt: the file is empty"),
    ],
)
def test_a_wrong_list_is_named_with_its_line(make, tmp_path, text, message):
    make()
    (tmp_path / "val/list.txt").write_text(text)
    with pytest.raises(DataError) as error:
        GOT10k(tmp_path, "val")
    assert str(error.value).partition("/val/")[2].startswith(message)


def test_splits_sequences_and_frames_that_are_not_there_are_refused(make, tmp_path):
    data = make()
    with pytest.raises(ValueError, match="split must be one of train, val, test, got 'all'"):
        GOT10k(tmp_path, "all")
    with pytest.raises(DataError, match=r"train/list\.txt: the file cannot be read"):
        GOT10k(tmp_path, "train")
    for place, message in (((1, 0), "sequence 1"), ((0, 4), "frame 4"), ((0, -1), "frame -1")):
        with pytest.raises(IndexError, match=message):
            data.frame(*place)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes_xywh": np.ones((3, 4), np.float32)}, "boxes_xywh must be float64"),
        ({"boxes_xywh": np.ones((3, 5))}, r"boxes_xywh must be float64 of shape \(3, 4\)"),
        ({"visible": np.ones(2, np.bool_)}, r"visible must be bool of shape \(3,\)"),
        ({"counted": np.ones(3)}, "counted must be bool"),
        ({"boxes_xywh": np.zeros((3, 4))}, "visible in frame 0 without a box"),
    ],
)
def test_arrays_that_do_not_fit_a_sequence_are_named(changes, message):
    arrays = {"boxes_xywh": np.ones((3, 4)), "visible": np.ones(3, np.bool_)}
    arrays |= {"counted": np.ones(3, np.bool_)}
    with pytest.raises(ValueError, match=message):
        TrackingSequence("one", (HEIGHT, WIDTH), **(arrays | changes))


@pytest.mark.parametrize(
    ("split", "lengths"),
    [
        ("val", {"Crossing": 80, "MotorRolling": 80, "bag": 80}),
        ("train", {"camel": 45, "soapbox": 45}),
    ],
)
def test_real_sequences_are_read_whole(shared_path, split, lengths):
    data = GOT10k(shared_path("real/vot"), split)
    assert {one.name: one.num_frames for one in data.sequences} == lengths
    for number, one in enumerate(data.sequences):
        assert one.visible.all()
        assert one.counted.all()
        assert data.frame(number, one.num_frames - 1).shape == (*one.size, 3)


def test_opening_decodes_the_first_frames_of_the_split_test_only(make, tmp_path):
    for split in ("val", "test"):
        make(split)
        (tmp_path / split / "one" / "00000001.jpg").write_bytes(b"no image")
    assert len(GOT10k(tmp_path, "val").sequences) == 1
    with pytest.raises(DataError, match=r"00000001\.jpg"):
        GOT10k(tmp_path, "test")
