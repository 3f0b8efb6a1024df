"""Folders become the json that mmtracking's converter writes; read back, both hold the same."""

import json
import shutil

import cv2
import numpy as np
import pytest

from stpn_data import (
    DataError,
    DataReport,
    ImageNetVID,
    coco_to_folders,
    det_folders_to_coco,
    vid_folders_to_coco,
)

OBJECT = (
    "<object><trackid>{track}</trackid><name>{name}</name><bndbox><xmax>20.5</xmax>"
    "<xmin>{left}</xmin><ymax>30</ymax><ymin>2</ymin></bndbox><occluded>1</occluded></object>"
)


@pytest.fixture
def root(tmp_path):
    """Two videos, the first with a gap in its frame numbers; track 5 is in both."""
    for name, number in (("a", 2), ("a", 4), ("b", 0)):
        for kind, suffix in (("Data", "JPEG"), ("Annotations", "xml")):
            path = tmp_path / f"ILSVRC/{kind}/VID/val/{name}/{number:06d}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "Data":
                cv2.imwrite(str(path), np.zeros((48, 64, 3), np.uint8))
                continue
            objects = (
                OBJECT.format(track=5, name="n02084071", left=1),
                OBJECT.format(track=1, name="n00000000", left=1),
                OBJECT.format(track=2, name="n02084071", left="NaN"),
                OBJECT.format(track=3, name="n02084071", left=90),
            )
            size = "<size><width>64</width><height>48</height></size>"
            path.write_text(f"<annotation>{size}{''.join(objects)}</annotation>")
    return tmp_path / "ILSVRC"


@pytest.mark.parametrize("split", ["train", "val"])
def test_real_folders_give_the_json_of_mmtracking(shared_path, split):
    root, report = shared_path("real/vod"), DataReport()
    expected = json.loads((root / f"annotations/imagenet_vid_{split}.json").read_text())
    assert vid_folders_to_coco(root, split, report) == expected
    assert str(report) == "nothing left out"


def test_what_comes_back_is_what_the_folders_hold(root, tmp_path):
    report = DataReport()
    (tmp_path / "val.json").write_text(json.dumps(vid_folders_to_coco(root, "val", report)))
    coco = ImageNetVID.from_coco(tmp_path / "val.json", root / "Data/VID")
    folders = ImageNetVID.from_folders(root, "val")
    assert coco.videos == folders.videos
    for video, index in ((0, 0), (0, 1), (1, 0)):
        assert coco.frame(video, index).shape == (48, 64, 3)
        boxes = folders.objects(video, index).boxes_xyxy
        assert boxes.tolist() == [[1, 2, 20.5, 30]]
        np.testing.assert_array_equal(coco.objects(video, index).boxes_xyxy, boxes)
    assert report.counts == {
        "video with gaps in its frame numbers": 1,
        "object of a class outside the list": 3,
        "box null or not finite": 3,
    }
    # The reader, not the converter, leaves out a box whose left is right of its right.
    assert coco.check().counts["box narrower or lower than one pixel"] == 3


def test_instances_differ_between_videos_and_flags_are_kept(root):
    boxes = vid_folders_to_coco(root, "val", DataReport())["annotations"]
    assert [box["instance_id"] for box in boxes] == [1, 2, 1, 2, 3, 4]
    assert all(box["occluded"] and not box["generated"] for box in boxes)


def test_a_wrong_flag_is_named_with_its_file(root):
    path = root / "Annotations/VID/val/b/000000.xml"
    path.write_text(path.read_text().replace("<occluded>1", "<occluded>7"))
    with pytest.raises(DataError, match=r"000000\.xml: occluded is 7, expected 0 or 1"):
        vid_folders_to_coco(root, "val", DataReport())


def test_a_test_split_has_frames_and_no_annotations(root):
    for kind in ("Data", "Annotations"):
        (root / kind / "VID/val").rename(root / kind / "VID/test")
    data = vid_folders_to_coco(root, "test", DataReport())
    assert len(data["images"]) == 3
    assert "annotations" not in data


def test_images_of_det_become_the_json_of_mmtracking(ilsvrc):
    report = DataReport()
    data = det_folders_to_coco(ilsvrc, "train", report)
    assert [(one["id"], one["name"], one["encode_name"]) for one in data["categories"][-2:]] == [
        (30, "zebra", "n02391049"),
        (31, "other_categeries", None),
    ]
    assert data["images"] == [
        {"file_name": f"train/{name}.JPEG", "height": 32, "width": width, "id": number,
         "is_vid_train_frame": is_chosen}
        for number, (name, width, is_chosen) in enumerate(
            [("ILSVRC2013_train/n1/n1_1", 40, True), ("ILSVRC2013_train/n1/n1_2", 41, True),
             ("ILSVRC2014_train_0000/c", 43, True), ("ILSVRC2014_train_0000/b", 42, False)], 1)
    ]  # fmt: skip
    fields = {"iscrowd": False}
    assert data["annotations"] == [
        fields | {"id": 1, "image_id": 1, "category_id": 9, "bbox": [1, 2, 29, 38], "area": 1102},
        fields | {"id": 2, "image_id": 1, "category_id": 31, "bbox": [3, 4, 17, 16], "area": 272},
        fields | {"id": 3, "image_id": 3, "category_id": 30, "bbox": [0, 0, 10.5, 20], "area": 210},
        fields | {"id": 4, "image_id": 4, "category_id": 31, "bbox": [1, 2, 29, 38], "area": 1102},
    ]
    assert report.counts == {"image without an XML file, taken as free of objects": 1}


def same_objects(one, other, tracks=True):
    """Compare all objects of two data sets; tracks may be numbered otherwise."""
    assert list(one.videos) == list(other.videos)
    for number, video in enumerate(one.videos):
        renamed = {}
        for index in range(video.num_frames):
            left, right = one.objects(number, index), other.objects(number, index)
            np.testing.assert_array_equal(left.boxes_xyxy, right.boxes_xyxy)
            np.testing.assert_array_equal(left.labels, right.labels)
            for a, b in zip(left.track_ids.tolist(), right.track_ids.tolist(), strict=True):
                assert renamed.setdefault(a, b) == b
        assert len(set(renamed.values())) == len(renamed)
    return True


@pytest.mark.parametrize("split", ["train", "val"])
def test_real_videos_come_back_from_json_as_folders(shared_path, tmp_path, split):
    source, back = shared_path("real/vod"), tmp_path / "ILSVRC"
    report = DataReport()
    number = coco_to_folders(source / f"annotations/imagenet_vid_{split}.json", back, report)
    (back / "Data").symlink_to(source / "ILSVRC/Data")
    one, other = (ImageNetVID.from_folders(root, split) for root in (source / "ILSVRC", back))
    assert number == sum(video.num_frames for video in one.videos)
    assert same_objects(one, other)
    assert vid_folders_to_coco(back, split, report) == vid_folders_to_coco(source, split, report)
    assert str(report) == "nothing left out"
    for name in ("VID_train_15frames.txt", "VID_val_videos.txt"):
        if (back / "Lists" / name).exists():
            lists = [(root / "Lists" / name).read_text() for root in (source / "ILSVRC", back)]
            assert lists[0].split() == lists[1].split()


@pytest.mark.parametrize("task", ["VID", "DET"])
def test_folders_come_back_from_json(ilsvrc, tmp_path, task):
    convert, open_root = {
        "VID": (vid_folders_to_coco, lambda root: ImageNetVID.from_folders(root, "train")),
        "DET": (det_folders_to_coco, ImageNetVID.from_det_folders),
    }[task]
    path, back = tmp_path / "a.json", tmp_path / "back"
    path.write_text(json.dumps(convert(ilsvrc, "train", DataReport())))
    assert coco_to_folders(path, back, DataReport()) == (3 if task == "VID" else 4)
    (back / "Data").symlink_to(ilsvrc / "Data")
    assert same_objects(open_root(ilsvrc), open_root(back))
    assert convert(back, "train", DataReport()) == json.loads(path.read_text())


def test_videos_with_gaps_come_back(root, tmp_path):
    path, back = tmp_path / "val.json", tmp_path / "back"
    path.write_text(json.dumps(vid_folders_to_coco(root, "val", DataReport())))
    assert coco_to_folders(path, back, DataReport()) == 3
    (back / "Data").symlink_to(root / "Data")
    assert same_objects(*(ImageNetVID.from_folders(one, "val") for one in (root, back)))
    assert "<occluded>1</occluded>" in (back / "Annotations/VID/val/a/000004.xml").read_text()


def test_a_test_json_becomes_lists_without_xml_files(ilsvrc, tmp_path):
    for kind in ("Data", "Annotations"):
        (ilsvrc / kind / "VID/train").rename(ilsvrc / kind / "VID/test")
    path = tmp_path / "test.json"
    path.write_text(json.dumps(vid_folders_to_coco(ilsvrc, "test", DataReport())))
    assert coco_to_folders(path, tmp_path / "back", DataReport()) == 0
    assert [path.name for path in (tmp_path / "back").rglob("*.*")] == ["test.txt"]


@pytest.fixture
def write_coco(ilsvrc, tmp_path):
    """Write the json of the training video with some fields of its first entries changed."""

    def write(kind=None, **fields):
        data = vid_folders_to_coco(ilsvrc, "train", DataReport())
        if kind == "all images":
            for image in data["images"]:
                image |= {name: value.format(**image) for name, value in fields.items()}
        elif kind is not None:
            data[kind][0] |= fields
        path = tmp_path / "a.json"
        path.write_text(json.dumps(data))
        return path

    return write


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"iscrowd": 1}, "crowd, which XML files cannot hold"),
        ({"ignore": True}, "object marked to be ignored"),
        ({"bbox": None}, "box null or not finite"),
    ],
)
def test_what_folders_cannot_hold_is_counted(write_coco, tmp_path, fields, reason):
    report, path = DataReport(), write_coco("annotations", **fields)
    coco_to_folders(path, tmp_path / "back", report)
    assert report.places(reason) == (f"{path}: annotation 1",)
    xml = (tmp_path / "back/Annotations/VID/train/x/a/000000.xml").read_text()
    assert xml.count("<object>") == 1


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("images", {"file_name": "train/x/a/0.JPEG"}, "not named by ascending six digits"),
        ("images", {"file_name": "train/x/a/000000.png"}, r"image 1: 'file_name' .*\.png"),
        ("images", {"file_name": "../x/a/000000.JPEG"}, "image 1: 'file_name'"),
        ("images", {"file_name": "train/x/b/000000.JPEG"}, "not all in the folder of its name"),
        ("images", {"file_name": "a/000000.JPEG"}, "image 1: 'file_name' 'a/0"),
        ("videos", {"name": "train/y"}, "video 'train/y': its frames are not all in the folder"),
        ("annotations", {"occluded": 7}, "annotation 1: 'occluded' is 7"),
        ("annotations", {"bbox": [1]}, r"annotation 1: 'bbox' is \[1\]"),
        ("all images", {"file_name": "train/x/a/1{id:05d}.JPEG"}, "'train/x/a' has gaps"),
    ],
)
def test_a_json_that_is_none_of_the_tree_is_named(write_coco, tmp_path, kind, fields, message):
    path = write_coco(kind, **fields)
    with pytest.raises(DataError, match=message) as error:
        coco_to_folders(path, tmp_path / "back", DataReport())
    assert str(path) in str(error.value)
    assert not (tmp_path / "back").exists()


def test_other_classes_than_imagenets_are_refused(write_coco, tmp_path):
    path = write_coco()
    data = json.loads(path.read_text())
    data["categories"] = [
        {"id": one["id"], "name": f"my {one['id']}"} for one in data["categories"]
    ]
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match=r"a\.json: its 'categories' are not ImageNet's"):
        coco_to_folders(path, tmp_path / "back", DataReport())


def test_annotations_and_lists_that_are_there_are_kept(write_coco, ilsvrc):
    path = write_coco()
    with pytest.raises(DataError, match="Annotations/VID/train is there already"):
        coco_to_folders(path, ilsvrc, DataReport())
    shutil.rmtree(ilsvrc / "Annotations/VID")
    with pytest.raises(DataError, match=r"VID_train_15frames\.txt is there already"):
        coco_to_folders(path, ilsvrc, DataReport())
    assert not (ilsvrc / "Annotations/VID").exists()
