"""Joined data sets are one; key frames that training leaves out are counted."""

import json

import numpy as np
import pytest

from stpn_data import (
    ClipDataset,
    DataError,
    DataReport,
    ImageNetVID,
    JointVideos,
    KeyFramesWithObjects,
    VideoDataset,
    det_folders_to_coco,
    vid_folders_to_coco,
)


def joint_of_folders(root):
    return JointVideos(
        [ImageNetVID.from_folders(root, "train"), ImageNetVID.from_det_folders(root)]
    )


def joint_of_json(root, folder):
    parts = []
    for task, convert in (("VID", vid_folders_to_coco), ("DET", det_folders_to_coco)):
        path = folder / f"{task}.json"
        path.write_text(json.dumps(convert(root, "train", DataReport())))
        parts.append(ImageNetVID.from_coco(path, root / "Data" / task))
    return JointVideos(parts)


def test_videos_and_images_of_folders_and_of_json_are_the_same(ilsvrc, tmp_path):
    folders, coco = joint_of_folders(ilsvrc), joint_of_json(ilsvrc, tmp_path)
    assert isinstance(folders, VideoDataset)
    assert folders.classes == ImageNetVID.classes
    assert list(folders.videos) == list(coco.videos)
    assert [video.num_frames for video in folders.videos] == [3, 1, 1, 1]
    for number, video in enumerate(folders.videos):
        for index in range(video.num_frames):
            np.testing.assert_array_equal(folders.frame(number, index), coco.frame(number, index))
            left, right = folders.objects(number, index), coco.objects(number, index)
            np.testing.assert_array_equal(left.boxes_xyxy, right.boxes_xyxy)
            np.testing.assert_array_equal(left.labels, right.labels)
            assert folders.conditions(number, index) == frozenset()
    other = "object of a class outside the list"
    assert folders.report.counts[other] == coco.report.counts[other] == 1


def test_each_video_comes_from_its_part(ilsvrc):
    joint = joint_of_folders(ilsvrc)
    assert [joint.frame(number, 0)[0, 0, 0] for number in range(4)] == [0, 0, 1, 3]
    assert len(ClipDataset(joint)) == 2 + 3
    for number in (-1, 4):
        with pytest.raises(IndexError):
            joint.objects(number, 0)


def test_reports_are_joined_without_counting_twice(ilsvrc):
    joint = joint_of_folders(ilsvrc)
    for _ in range(2):
        for number, video in enumerate(joint.videos):
            for index in range(video.num_frames):
                joint.objects(number, index)
    assert joint.report.counts == {
        "object of a class outside the list": 1,
        "image without an XML file, taken as free of objects": 1,
    }


def test_what_cannot_be_joined_is_refused(ilsvrc):
    vid = ImageNetVID.from_folders(ilsvrc, "train")
    with pytest.raises(
        DataError, match="1 names of videos occur more than once .* such as train/x/a"
    ):
        JointVideos([vid, vid])
    other = ImageNetVID.from_det_folders(ilsvrc)
    other.classes = vid.classes[::-1]
    with pytest.raises(DataError, match="classes"):
        JointVideos([vid, other])
    with pytest.raises(DataError, match="no data sets"):
        JointVideos([])


def test_key_frames_without_objects_are_left_out_and_counted(ilsvrc):
    joint = joint_of_folders(ilsvrc)
    kept = KeyFramesWithObjects(joint)
    assert isinstance(kept, VideoDataset)
    assert [video.key_frames for video in joint.videos] == [(0, 1), (0,), (0,), (0,)]
    assert [video.key_frames for video in kept.videos] == [(0,), (0,), (), (0,)]
    assert [video.num_frames for video in kept.videos] == [3, 1, 1, 1]
    left_out = "key frame without objects, not for training"
    assert kept.report.places(left_out) == (
        "train/x/a frame 1",
        "train/ILSVRC2013_train/n1/n1_2 frame 0",
    )
    assert kept.report.counts["object of a class outside the list"] == 1
    np.testing.assert_array_equal(kept.frame(3, 0), joint.frame(3, 0))
    assert len(kept.objects(0, 0)) == 2
    assert kept.conditions(0, 0) == frozenset()
    assert len(ClipDataset(kept)) == 3


@pytest.mark.parametrize(("side", "num_clips"), [(31, 1), (32, 2)])
def test_small_images_are_left_out(tmp_path, write_image, write_xml, side, num_clips):
    for name, size in (("a", (side, 99)), ("b", (99, 40))):
        write_image(tmp_path / f"Data/DET/train/n1/{name}.JPEG", size)
        path = tmp_path / f"Annotations/DET/train/n1/{name}.xml"
        write_xml(path, ("n02084071", (1, 2, 9, 9)), size=size)
    kept = KeyFramesWithObjects(ImageNetVID.from_det_folders(tmp_path))
    assert len(ClipDataset(kept)) == num_clips
    reason = "video with a side below 32 pixels, not for training"
    assert kept.report.counts[reason] == 2 - num_clips


def test_nothing_to_train_on_is_said(ilsvrc, write_xml):
    for path in (ilsvrc / "Annotations/VID").rglob("*.xml"):
        write_xml(path)
    with pytest.raises(DataError, match="no key frame has objects"):
        KeyFramesWithObjects(ImageNetVID.from_folders(ilsvrc, "train"))
