"""The same small data set in both forms, the quirks of real files one by one, and real frames."""

import json

import cv2
import numpy as np
import pytest

from stpn_data import DataError, ImageNetVID
from stpn_data.videos import VideoDataset

DOG, ZEBRA = "n02084071", "n02391049"
OBJECT = """<object><trackid>{track}</trackid><name>{name}</name>
<bndbox><xmax>{2}</xmax><xmin>{0}</xmin><ymax>{3}</ymax><ymin>{1}</ymin></bndbox>
<occluded>0</occluded><generated>0</generated></object>"""


def xml(*objects, size=(64, 48)):
    width, height = size
    return (
        f"<annotation><size><width>{width}</width><height>{height}</height></size>"
        + "".join(objects)
        + "</annotation>"
    )


def box_xml(*box, name=DOG, track=0):
    return OBJECT.format(*box, name=name, track=track)


class Tree:
    """Write a small data set in the original layout."""

    def __init__(self, root):
        self.root = root

    def frame(self, name, number, content=None, size=(64, 48)):
        path = self.root / "Data/VID" / name / f"{number:06d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((size[1], size[0], 3), number, np.uint8))
        self.annotate(name, number, xml() if content is None else content)
        return path

    def annotate(self, name, number, content):
        path = self.root / "Annotations/VID" / name / f"{number:06d}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def write(self, path, text):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def open(self, split="val"):
        return ImageNetVID.from_folders(self.root, split)


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "ILSVRC")


def open_frame(tree, content):
    """Open a data set of one frame with this XML."""
    tree.frame("val/a", 0, content)
    return tree.open()


# Real frames


@pytest.mark.parametrize(("split", "videos", "frames"), [("train", 36, 94), ("val", 7, 315)])
def test_folders_and_json_are_the_same(shared_path, split, videos, frames):
    root = shared_path("real/vod")
    folders = ImageNetVID.from_folders(root, split)
    coco = ImageNetVID.from_coco(
        root / f"annotations/imagenet_vid_{split}.json", root / "ILSVRC/Data/VID"
    )
    assert isinstance(folders, VideoDataset)
    assert list(folders.videos) == list(coco.videos)
    assert len(folders.videos) == videos
    assert sum(video.num_frames for video in folders.videos) == frames
    for number, video in enumerate(folders.videos):
        np.testing.assert_array_equal(folders.frame(number, 0), coco.frame(number, 0))
        for index in range(video.num_frames):
            left, right = folders.objects(number, index), coco.objects(number, index)
            for field in ("boxes_xyxy", "labels", "track_ids", "is_crowd"):
                np.testing.assert_array_equal(getattr(left, field), getattr(right, field))
    assert str(folders.check()) == str(coco.check()) == "nothing left out"


def test_a_real_training_video(shared_path):
    dataset = ImageNetVID.from_folders(shared_path("real/vod/ILSVRC"), "train")
    video = dataset.videos[0]
    assert video.name.endswith("ILSVRC2015_val_00007013")
    assert (video.num_frames, video.height, video.width) == (30, 288, 512)
    assert video.key_frames == (0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 29)
    objects = dataset.objects(0, 0)
    assert objects.boxes_xyxy.tolist() == [[202, 106, 293, 146]]
    assert [dataset.classes[label] for label in objects.labels] == ["airplane"]
    assert dataset.conditions(0, 0) == frozenset()


# Lists and folders


def test_thirty_classes_in_order():
    assert len(ImageNetVID.classes) == 30
    assert ImageNetVID.classes[0] == "airplane"
    assert ImageNetVID.classes[9] == "domestic_cat"
    assert ImageNetVID.classes[29] == "zebra"


def test_the_root_may_be_the_folder_around_it(tree, tmp_path):
    tree.frame("val/a", 0)
    old = tmp_path / "old" / "ILSVRC2015"
    old.parent.mkdir()
    for root in (tree.root, tree.root.parent):
        assert len(ImageNetVID.from_folders(root, "val").videos) == 1
    tree.root.rename(old)
    assert len(ImageNetVID.from_folders(old.parent, "val").videos) == 1


def test_key_frames_of_the_training_list(tree):
    for number in range(4):
        tree.frame("train/x/a", number)
    # One-based key frames, one of them listed twice, no newline at the end.
    tree.write("Lists/VID_train_15frames.txt", "train/x/a 1 1 4\ntrain/x/a 1 4 4\ntrain/x/a 1 4 4")
    dataset = tree.open("train")
    assert dataset.videos[0].key_frames == (0, 3)
    assert dataset.videos[0].num_frames == 4
    assert dataset.report.counts == {"key frame listed twice": 1}


def test_without_a_list_a_training_video_has_15_key_frames_at_equal_distances(tree):
    for name, length in (("a", 30), ("b", 15), ("c", 16)):
        for number in range(length):
            tree.frame(f"train/x/{name}", number)
    dataset = tree.open("train")
    thirty, fifteen, sixteen = (video.key_frames for video in dataset.videos)
    assert thirty == tuple(range(1, 30, 2))
    assert fifteen == tuple(range(15))
    assert len(set(sixteen)) == 15
    assert dataset.report.counts.total() == 2  # of "a" and "c"
    tree.root.joinpath("Data/VID/train").rename(tree.root / "Data/VID/val")
    tree.root.joinpath("Annotations/VID/train").rename(tree.root / "Annotations/VID/val")
    assert len(tree.open("val").videos[0].key_frames) == 30


def test_video_list_without_newline_at_the_end(tree):
    tree.frame("val/b", 0)
    tree.frame("val/a", 0)
    tree.write("Lists/VID_val_videos.txt", "val/b 1 0 2\nval/a 3 0 1\n\nval/b 1 0 2\nval/c 4 0 0")
    dataset = tree.open()
    assert [video.name for video in dataset.videos] == ["val/b", "val/a"]
    assert [video.num_frames for video in dataset.videos] == [2, 1]
    assert dataset.report.counts == {"video listed twice": 1, "video without frames": 1}


def test_frame_list(tree):
    for number in range(3):
        tree.frame("val/a", number)
    tree.write("ImageSets/VID/val.txt", "a/000000 1\na/000001 2\na/000002 3\na/000002 4")
    dataset = tree.open()
    assert dataset.videos[0].num_frames == 3
    assert dataset.report.counts == {"frame listed twice": 1}


def test_lists_per_class_name_a_video_several_times(tree):
    for name in ("a", "b", "unlisted"):
        tree.frame(f"train/x/{name}", 0)
    tree.write("ImageSets/VID/train_1.txt", "x/a 1\nx/b 1")
    tree.write("ImageSets/VID/train_2.txt", "x/a 1\n")
    assert [video.name for video in tree.open("train").videos] == ["train/x/a", "train/x/b"]


def test_without_lists_the_folders_are_walked(tree):
    for name in ("train/x/b", "train/x/a", "train/y/c"):
        tree.frame(name, 0)
    (tree.root / "Data/VID/train/x/empty").mkdir()
    dataset = tree.open("train")
    assert [video.name for video in dataset.videos] == ["train/x/a", "train/x/b", "train/y/c"]
    assert dataset.report.places("video without frames") == ("train/x/empty",)


def test_gaps_in_frame_numbers_are_closed_and_counted(tree):
    for number in (2, 3, 10):
        tree.frame("val/a", number)
    dataset = tree.open()
    assert dataset.videos[0].num_frames == 3
    assert dataset.frame(0, 2)[0, 0].tolist() == [10, 10, 10]
    assert dataset.report.counts == {"video with gaps in its frame numbers": 1}


@pytest.mark.parametrize(
    ("path", "split", "text", "message"),
    [
        ("Lists/VID_val_videos.txt", "val", "val/a 1 0 1\nval/a 3", r"videos\.txt:2: expected 4"),
        ("Lists/VID_val_videos.txt", "val", "val/a 1 0 many", "'many'"),
        ("Lists/VID_train_15frames.txt", "train", "val/a 1 5 4", "key frame 5 is not in 1 .. 4"),
        ("Lists/VID_train_15frames.txt", "train", "val/a 1 0 4", "key frame 0 is not in 1 .. 4"),
        ("Lists/VID_train_15frames.txt", "train", "val/a 1 1 4\nval/a 1 1 5", "before 4"),
        ("Lists/VID_val_videos.txt", "val", "val/missing 1 0 3", "missing.*cannot be read"),
        ("ImageSets/VID/train_1.txt", "train", "missing 1", "no such video"),
        ("Lists/VID_val_videos.txt", "val", "", "no videos"),
    ],
)
def test_a_wrong_list_is_named(tree, path, split, text, message):
    tree.frame("val/a", 0)
    tree.write(path, text)
    with pytest.raises(DataError, match=message):
        tree.open(split)


def test_a_missing_root_or_split_is_named(tree, tmp_path):
    with pytest.raises(DataError, match="Data/VID"):
        ImageNetVID.from_folders(tmp_path / "nowhere", "val")
    tree.frame("val/a", 0)
    with pytest.raises(DataError, match="'training'"):
        tree.open("training")


# XML files


def test_fields_are_read_by_name_not_by_order(tree):
    content = (
        "<annotation><object><bndbox><ymin>2</ymin><xmin>1</xmin><xmax>11</xmax><ymax>22</ymax>"
        f"</bndbox><name>{ZEBRA}</name><trackid>5</trackid></object>"
        "<size><height>48</height><width>64</width></size></annotation>"
    )
    objects = open_frame(tree, content).objects(0, 0)
    assert objects.boxes_xyxy.tolist() == [[1, 2, 11, 22]]
    assert (objects.labels.tolist(), objects.track_ids.tolist()) == ([29], [5])


def test_object_free_frames_with_and_without_a_file(tree):
    tree.frame("val/a", 0)
    tree.frame("val/a", 1)
    (tree.root / "Annotations/VID/val/a/000001.xml").unlink()
    dataset = tree.open()
    assert len(dataset.objects(0, 0)) == len(dataset.objects(0, 1)) == 0
    assert dataset.objects(0, 1).boxes_xyxy.shape == (0, 4)
    assert sum(dataset.report.counts.values()) == 1


def test_a_frame_size_is_found_without_a_file(tree):
    tree.frame("val/a", 0)
    tree.frame("val/a", 1)
    (tree.root / "Annotations/VID/val/a/000000.xml").unlink()
    assert (tree.open().videos[0].height, tree.open().videos[0].width) == (48, 64)


def test_a_test_split_has_frames_but_no_objects(tree):
    (tree.root / "Annotations/VID").mkdir(parents=True)
    path = tree.frame("test/a", 0)
    xml_path = tree.root / "Annotations/VID/test/a/000000.xml"
    xml_path.unlink()
    xml_path.parent.rmdir()
    dataset = tree.open("test")
    assert path.exists()
    assert dataset.frame(0, 0).shape == (48, 64, 3)
    with pytest.raises(DataError, match="no annotations"):
        dataset.objects(0, 0)


DROPS = [
    ((1, 2, 1.5, 20), "box narrower or lower than one pixel"),
    ((1, 2, 11, 2), "box narrower or lower than one pixel"),
    ((20, 2, 10, 12), "box narrower or lower than one pixel"),
    ((64, 2, 80, 12), "box outside the frame"),
    ((-20, 2, 0, 12), "box outside the frame"),
    ((2, -9, 12, -1), "box outside the frame"),
    (("NaN", 2, 11, 22), "box null or not finite"),
    ((1, 2, "inf", 22), "box null or not finite"),
]


@pytest.mark.parametrize(("box", "reason"), DROPS)
def test_an_unusable_box_is_dropped_and_counted_once(tree, box, reason):
    content = xml(box_xml(*box), box_xml(5, 5, 15, 15, track=1), box_xml(-5, 5, 90, 15, track=2))
    dataset = open_frame(tree, content)
    for _ in range(2):  # reading twice counts once
        objects = dataset.objects(0, 0)
    # Over the border is kept, and not clipped.
    assert objects.boxes_xyxy.tolist() == [[5, 5, 15, 15], [-5, 5, 90, 15]]
    assert objects.track_ids.tolist() == [1, 2]
    assert dataset.report.counts == {reason: 1}
    assert str(dataset.report) == f"1 x {reason} (first: val/a frame 0, object 0)"


def test_classes_outside_the_list_and_repeated_track_ids_are_dropped(tree):
    content = xml(
        box_xml(1, 2, 11, 22, name="n00000000"),
        box_xml(1, 2, 11, 22, track=3),
        box_xml(5, 5, 15, 15, track=3),
    )
    dataset = open_frame(tree, content)
    assert dataset.check() is dataset.report
    assert dataset.objects(0, 0).boxes_xyxy.tolist() == [[1, 2, 11, 22]]
    assert dataset.report.counts == {
        "object of a class outside the list": 1,
        "object with the track id of another one in its frame": 1,
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<trackid>0</trackid>", "", "trackid"),
        (f"<name>{DOG}</name>", "<name></name>", "name"),
        ("<xmin>1</xmin>", "", "bndbox/xmin"),
        ("<xmin>1</xmin>", "<xmin/>", "bndbox/xmin"),
        ("<xmin>1</xmin>", "<xmin>left</xmin>", "bndbox/xmin is 'left'"),
        ("<trackid>0</trackid>", "<trackid>0.5</trackid>", r"trackid is 0\.5"),
        ("</annotation>", "", "broken XML"),
    ],
)
def test_a_missing_or_wrong_field_is_named_with_its_file(tree, old, new, message):
    dataset = open_frame(tree, xml(box_xml(1, 2, 11, 22)))
    tree.annotate("val/a", 0, xml(box_xml(1, 2, 11, 22)).replace(old, new))
    with pytest.raises(DataError, match=rf"000000\.xml: .*{message}"):
        dataset.objects(0, 0)


@pytest.mark.parametrize("size", [(0, 48), (64, -1)])
def test_an_impossible_frame_size_is_refused(tree, size):
    with pytest.raises(DataError, match="size is"):
        open_frame(tree, xml(size=size))


def test_a_changing_frame_size_is_refused(tree):
    tree.frame("val/a", 0)
    tree.frame("val/a", 1, xml(size=(32, 48)))
    with pytest.raises(DataError, match=r"000001\.xml: size is 32x48"):
        tree.open().objects(0, 1)


# Frames


def test_a_missing_frame_is_named(tree):
    tree.frame("val/a", 0)
    tree.write("Lists/VID_val_videos.txt", "val/a 1 0 3")
    with pytest.raises(DataError, match=r"000002\.JPEG"):
        tree.open().frame(0, 2)


def test_a_truncated_frame_is_named(tree):
    path = tree.frame("val/a", 0)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"000000\.JPEG: .*truncated"):
        tree.open().frame(0, 0)


def test_a_frame_of_another_size_than_annotated_is_refused(tree):
    tree.frame("val/a", 0, xml(size=(48, 64)))
    with pytest.raises(DataError, match="the image is 64x48, its annotations are for 48x64"):
        tree.open().frame(0, 0)


@pytest.mark.parametrize("place", [(0, 1), (0, -1), (1, 0), (-1, 0)])
def test_indices_outside_are_refused(tree, place):
    dataset = open_frame(tree, xml())
    for read in (dataset.frame, dataset.objects):
        with pytest.raises(IndexError):
            read(*place)


# CocoVID


def coco(**changes):
    return {
        "categories": [
            {"id": 9, "name": "dog", "encode_name": DOG},
            {"id": 31, "name": "other", "encode_name": None},
        ],
        "videos": [{"id": 7, "name": "val/a", "vid_train_frames": []}],
        "images": [
            {"id": 1 + i, "video_id": 7, "frame_id": i, "file_name": f"val/a/{i:06d}.JPEG",
             "height": 48, "width": 64}
            for i in range(2)
        ],
        "annotations": [
            {"id": 1, "image_id": 2, "category_id": 9, "instance_id": 40, "bbox": [1, 2, 10, 20]},
            {"id": 2, "image_id": 2, "category_id": 9, "instance_id": 12, "bbox": [3, 4, 5, 6]},
        ],
    } | changes  # fmt: skip


@pytest.fixture
def open_coco(tmp_path):
    def write_and_open(data):
        path = tmp_path / "vid.json"
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return ImageNetVID.from_coco(path, tmp_path / "ILSVRC/Data/VID")

    return write_and_open


def changed(kind, position=0, **fields):
    data = coco()
    data[kind][position] |= fields
    return data


def without(kind, field):
    data = coco()
    del data[kind][0][field]
    return data


def test_json_boxes_and_tracks(open_coco):
    dataset = open_coco(coco())
    objects = dataset.objects(0, 1)
    assert objects.boxes_xyxy.tolist() == [[1, 2, 11, 22], [3, 4, 8, 10]]
    assert objects.labels.tolist() == [8, 8]
    assert objects.track_ids.tolist() == [1, 0]
    assert len(dataset.objects(0, 0)) == 0
    assert dataset.videos[0].key_frames == (0, 1)


def test_images_out_of_order_with_gaps(open_coco):
    data = changed("images", 0, frame_id=9)
    data["videos"][0]["vid_train_frames"] = [9]
    dataset = open_coco(data)
    assert [len(dataset.objects(0, index)) for index in range(2)] == [2, 0]
    assert dataset.videos[0].key_frames == (1,)
    assert dataset.report.counts == {"video with gaps in its frame numbers": 1}


def test_crowds_are_kept_and_ignored_objects_dropped(open_coco):
    data = changed("annotations", 0, iscrowd=1)
    data["annotations"][1]["ignore"] = True
    dataset = open_coco(data)
    assert dataset.objects(0, 1).is_crowd.tolist() == [True]
    assert dataset.report.counts == {"object marked to be ignored": 1}


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        (None, "box null or not finite"),
        ([1, None, 10, 20], "box null or not finite"),
        ([1, float("nan"), 10, 20], "box null or not finite"),
        ([1, 2, 0, 20], "box narrower or lower than one pixel"),
        ([1, 2, 10, -4], "box narrower or lower than one pixel"),
        ([64, 2, 10, 20], "box outside the frame"),
    ],
)
def test_an_unusable_json_box_is_dropped_and_counted(open_coco, box, reason):
    dataset = open_coco(changed("annotations", 0, bbox=box))
    assert dataset.objects(0, 1).boxes_xyxy.tolist() == [[3, 4, 8, 10]]
    assert dataset.report.counts == {reason: 1}


def test_detection_images_are_videos_of_one_frame(open_coco):
    images = [
        {"id": 5, "file_name": "train/a.JPEG", "height": 48, "width": 64,
         "is_vid_train_frame": True},
        {"id": 6, "file_name": "train/b.JPEG", "height": 30, "width": 40},
    ]  # fmt: skip
    annotations = [
        {"id": 1, "image_id": 6, "category_id": 31, "bbox": [1, 2, 3, 4]},
        {"id": 2, "image_id": 6, "category_id": 9, "bbox": [1, 2, 3, 4]},
        {"id": 3, "image_id": 6, "category_id": 9, "bbox": [1, 2, 5, 6]},
    ]
    dataset = open_coco(
        {"categories": coco()["categories"], "images": images, "annotations": annotations}
    )
    assert [video.name for video in dataset.videos] == ["train/a", "train/b"]
    assert [video.key_frames for video in dataset.videos] == [(0,), (0,)]
    assert dataset.objects(1, 0).boxes_xyxy.tolist() == [[1, 2, 4, 6], [1, 2, 6, 8]]
    assert len(dataset.objects(0, 0)) == 0
    assert dataset.report.counts == {"object of a class outside the list": 1}


def test_a_test_json_has_frames_but_no_objects(open_coco):
    data = coco()
    del data["annotations"]
    dataset = open_coco(data)
    assert len(dataset.videos) == 1
    with pytest.raises(DataError, match="annotations"):
        dataset.objects(0, 0)


def test_a_video_without_images_is_counted(open_coco):
    data = coco()
    data["videos"].append({"id": 8, "name": "val/empty"})
    assert open_coco(data).report.places("video without frames") == ("val/empty",)


def test_a_video_of_several_frame_sizes_is_refused_as_in_the_tree(open_coco):
    message = r"vid\.json: video 'val/a': the image 'val/a/000001\.JPEG' is 32x16, .* 64x48"
    with pytest.raises(DataError, match=message):
        open_coco(changed("images", 1, height=16, width=32))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", "broken json"),
        ("[]", "expected an object"),
        ({key: coco()[key] for key in ("videos", "categories")}, "no list 'images'"),
        ({key: coco()[key] for key in ("videos", "images")}, "no list 'categories'"),
        (coco(images=[]), "no videos"),
        (coco(images=[5]), r"images\[0\] is not an object"),
        (without("images", "file_name"), "image 1 has no 'file_name'"),
        (without("images", "height"), "image 1 has no 'height'"),
        (without("images", "frame_id"), "image 1 has no 'frame_id'"),
        (without("images", "video_id"), "image 1 has no 'video_id'"),
        (without("images", "id"), r"images\[0\] has no 'id'"),
        (without("videos", "name"), "video 7 has no 'name'"),
        (without("categories", "name"), "category 9 has no 'name'"),
        (without("annotations", "bbox"), "annotation 1 has no 'bbox'"),
        (without("annotations", "category_id"), "annotation 1 has no 'category_id'"),
        (without("annotations", "instance_id"), "annotation 1 has no 'instance_id'"),
        (without("annotations", "image_id"), "annotation 1 has no 'image_id'"),
        (changed("annotations", category_id=99), "annotation 1: 'category_id' is 99"),
        (changed("annotations", category_id=None), "annotation 1: 'category_id' is None"),
        (changed("annotations", image_id=99), "annotation 1: 'image_id' is 99"),
        (changed("annotations", bbox=[1, 2, 3]), r"annotation 1: 'bbox' is \[1, 2, 3\]"),
        (changed("annotations", bbox=[1, 2, 3, "4"]), "annotation 1: 'bbox' is"),
        (changed("annotations", id=2), r"annotations\[1\]: the id 2 occurs twice"),
        (changed("images", id=2), r"images\[1\]: the id 2 occurs twice"),
        (changed("images", frame_id=1), "'val/a' has a 'frame_id' twice"),
        (changed("images", video_id=99), "no video has its 'video_id' 99"),
        (changed("images", width=0), "image 1: 'height' and 'width' are"),
        (changed("images", width=None), "image 1: 'width' is None"),
        (changed("images", width=10**9), "image 1: 'height' and 'width' are"),
        (changed("images", frame_id=2**70), "image 1: 'frame_id' is .* too large"),
        (changed("images", file_name=""), "image 1: 'file_name' '' names no file"),
        (changed("annotations", iscrowd="0"), "annotation 1: 'iscrowd' is '0', expected 0 or 1"),
        (changed("videos", vid_train_frames=5), "video 7: 'vid_train_frames' is 5, expected list"),
        (coco(videos=[{"id": i, "name": "val/a"} for i in (7, 8)]), "name 'val/a' occurs twice"),
        ("[" * 100_000, "broken json"),
        (changed("videos", vid_train_frames=[5]), r"'vid_train_frames' \[5\]"),
    ],
)
def test_a_wrong_json_is_named(open_coco, data, message):
    with pytest.raises(DataError, match=rf"vid\.json.*{message}"):
        open_coco(data)


def test_a_missing_json_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.json: .*cannot be read"):
        ImageNetVID.from_coco(tmp_path / "none.json", tmp_path)
