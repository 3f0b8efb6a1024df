"""Folders become the json that mmtracking's converter writes; read back, both hold the same."""

import json

import cv2
import numpy as np
import pytest

from stpn_data import DataError, DataReport, ImageNetVID, vid_folders_to_coco

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
