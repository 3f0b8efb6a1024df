"""A check goes on after every problem and names the file of each; planted faults, one by one."""

import json
import re
from random import Random

import cv2
import numpy as np
import pytest

from stpn_data import DataError, check_data
from stpn_data.testing import damage_bytes, damage_json, damage_xml

DOG, ZEBRA = "n02084071", "n02391049"


def xml(*boxes, name=DOG, size=(64, 48), tracks=True):
    objects = "".join(
        "<object>"
        + (f"<trackid>{track}</trackid>" if tracks else "")
        + f"<name>{name}</name><bndbox><xmax>{box[2]}</xmax><xmin>{box[0]}</xmin>"
        f"<ymax>{box[3]}</ymax><ymin>{box[1]}</ymin></bndbox></object>"
        for track, box in enumerate(boxes)
    )
    size_xml = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"<annotation>{size_xml}{objects}</annotation>"


BOX = (1, 2, 11, 22)
GOOD = xml(BOX, (5, 5, 64, 48))
JPEG = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
LISTS = {
    "Lists/VID_train_15frames.txt": "train/x/a 1 1 3\ntrain/x/a 1 3 3\n",
    "Lists/VID_val_videos.txt": "val/b 1 0 2",
    "Lists/DET_train_30classes.txt": "train/d/still_7 1",
    "ImageSets/VID/val.txt": "b/000000 1\nb/000001 2\n",
    "ImageSets/VID/train_1.txt": "x/a 1\n",
}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.fixture
def root(tmp_path):
    """A sound data set: a training video, a validation video, a test video, a DET image."""
    root = tmp_path / "ILSVRC"
    for video, frames in (("train/x/a", 3), ("val/b", 2), ("test/c", 2)):
        for number in range(frames):
            write(root / f"Data/VID/{video}/{number:06d}.JPEG", JPEG)
            if video != "test/c":
                write(root / f"Annotations/VID/{video}/{number:06d}.xml", GOOD)
    for still in ("still_7", "still_8"):  # the second without objects, so without a file
        write(root / f"Data/DET/train/d/{still}.JPEG", JPEG)
    det = xml(BOX, name="n00007846", tracks=False)
    write(root / "Annotations/DET/train/d/still_7.xml", det)
    for path, text in LISTS.items():
        write(root / path, text)
    return root


def counted(check):
    return {
        subset.name: (
            *(subset.videos, subset.still_images, subset.frames),
            *(subset.objects, subset.tracks, len(subset.classes)),
        )
        for subset in check.subsets
    }


def only_problem(check):
    assert check.problems.counts.total() == 1, str(check.problems)
    (kind,) = check.problems.counts
    return kind, check.problems.places(kind)[0]


def test_sound_folders_are_counted_and_without_problems(root):
    for folder in (root, root.parent):
        check = check_data(folder)
        assert str(check.problems) == "nothing left out"
        assert counted(check) == {
            "VID/train": (1, 0, 3, 6, 2, 1),
            "VID/val": (1, 0, 2, 4, 2, 1),
            "VID/test": (1, 0, 2, 0, 0, 0),
            "DET/train": (0, 2, 0, 1, 0, 1),
        }


def test_real_frames_are_without_problems(shared_path):
    check = check_data(shared_path("real/vod"))
    assert not check.problems.counts
    counts = counted(check)
    assert counts["VID/train"] == counts["imagenet_vid_train"] == (36, 0, 94, 101, 43, 30)
    assert counts["VID/val"] == counts["imagenet_vid_val"] == (7, 0, 315, 753, 17, 7)
    assert [path.name for path in check.other_files] == ["manifest.json", "motion_iou.json"]


IMAGE, XML = "Data/VID/val/b/000001.JPEG", "Annotations/VID/val/b/000001.xml"
FAULTS = [
    (XML, "<annotation><size>", "annotation that cannot be read", r"000001\.xml: broken XML"),
    (XML, xml(BOX, size=(0, 48)), "annotation that cannot be read", "size is 0x48"),
    (XML, xml(BOX, tracks=False), "annotation that cannot be read", r"trackid \(object 0\)"),
    (XML, xml((1, 2, 65, 22)), "box over the border of the frame", r"\.xml: object 0: .*in 64x48"),
    (XML, xml((-1, 2, 6, 22)), "box over the border of the frame", r"\(-1, 2, 6, 22\)"),
    (XML, xml((64, 2, 80, 22)), "box outside the frame", r"000001\.xml: object 0"),
    (XML, xml((9, 2, 2, 22)), "box narrower or lower than one pixel", r"000001\.xml: object 0"),
    (XML, xml(BOX, name="n1"), "unknown class", r"000001\.xml: object 0: 'n1'"),
    (XML, GOOD.replace("d>1<", "d>0<"), "track twice in a frame", r"000001\.xml: object 1"),
    (XML, None, "image without its annotation", r"b/000001\.JPEG"),
    (IMAGE, JPEG[:-9], "image that cannot be read", r"000001\.JPEG: the image is truncated"),
    (IMAGE, b"", "image that cannot be read", r"000001\.JPEG: the file is empty"),
    ("Data/VID/val/b/2.JPEG", JPEG, "file that is not read", r"b/2\.JPEG"),
    ("Annotations/VID/val/b/7.xml", GOOD, "annotation without its image", r"b/7\.xml"),
    ("Annotations/VID/val/e/000000.xml", GOOD, "annotated, but without images", "VID/val/e"),
    ("Annotations/DET/train/d/9.xml", GOOD, "annotation without its image", r"d/9\.xml"),
    ("Lists/VID_train_15frames.txt", "train/x/a 1 1 3\n" * 2, "frame listed twice", ":2: train"),
    ("Lists/VID_train_15frames.txt", "train/x/a 1 4 3", "key frame outside its video", "4 of 3"),
    ("Lists/VID_train_15frames.txt", "train/x/a 1 1", "list line that cannot be read", ":1: exp"),
    ("Lists/VID_train_15frames.txt", "train/x/a 1 1 2", "length of a video differs", "1 more"),
    ("Lists/VID_val_videos.txt", "val/b 1 0 2\nval/b 1 0 2", "video listed twice", "txt:2: val/b"),
    ("Lists/VID_val_videos.txt", "val/b 1 0 3", "list entry without its file", r"b/000002\.JPEG"),
    ("Lists/VID_val_videos.txt", "val/q 1 0 3", "list entry without its file", "no folder val/q"),
    ("Lists/DET_train_30classes.txt", "train/d/9 1", "list entry without its file", "d/9.JPEG"),
    ("ImageSets/VID/val.txt", "b/000009 1", "list entry without its file", r"b/000009\.JPEG"),
    ("ImageSets/VID/val.txt", "b/000000 1\nb/000000 2", "frame listed twice", ":2: b/000000"),
    ("ImageSets/VID/train_1.txt", "x/q 1", "list entry without its file", "no folder x/q"),
    ("ImageSets/VID/val.txt", b"\xff\xfe", "list that cannot be read", r"VID/val\.txt"),
]


@pytest.mark.parametrize(("path", "content", "kind", "place"), FAULTS)
def test_a_fault_in_folders_is_named_with_its_file(root, path, content, kind, place):
    if content is None:
        (root / path).unlink()
    else:
        write(root / path, content)
    found, where = only_problem(check_data(root))
    assert found == kind
    assert str(root) in where
    assert re.search(place, where)


def test_an_image_of_another_size_and_a_size_that_changes(root):
    write(root / XML, xml(BOX, size=(80, 48)))
    problems = check_data(root).problems
    assert problems.places("image of another size than annotated") == (
        f"{root / IMAGE}: the image is 64x48, annotated as 80x48",
    )
    assert problems.places("frame size changes within a video") == (str(root / IMAGE),)
    assert problems.counts.total() == 2


def test_a_missing_image_is_named_by_annotation_and_lists(root):
    (root / "Data/VID/train/x/a/000001.JPEG").unlink()
    assert check_data(root).problems.counts == {
        "annotation without its image": 1,
        "video with gaps in its frame numbers": 1,
        "list entry without its file": 1,
    }


def test_every_problem_is_found_not_the_first_alone(root):
    for number in range(3):
        content = xml((70, 2, 80, 22), BOX, (1, 2, 65, 22), name=DOG)
        write(root / f"Annotations/VID/train/x/a/{number:06d}.xml", content)
    write(root / XML, "broken")
    write(root / "Data/VID/val/b/000000.JPEG", b"none")
    check = check_data(root)
    assert check.problems.counts == {
        "box outside the frame": 3,
        "box over the border of the frame": 3,
        "annotation that cannot be read": 1,
        "image that cannot be read": 1,
    }
    assert counted(check)["VID/train"] == (1, 0, 3, 9, 3, 1)


def image(number, **fields):
    name = f"val/b/{number:06d}.JPEG"
    size = {"height": 48, "width": 64}
    return {
        "id": number + 1,
        "video_id": 7,
        "frame_id": number,
        "file_name": name,
        **size,
        **fields,
    }


def coco(**changes):
    boxes = [{"id": i, "image_id": 1 + i, "category_id": 9, "instance_id": 4} for i in range(2)]
    return {
        "categories": [
            {"id": 9, "name": "dog", "encode_name": DOG},
            {"id": 31, "name": "other"},
        ],
        "videos": [{"id": 7, "name": "val/b", "vid_train_frames": [0]}],
        "images": [image(0), image(1)],
        "annotations": [{**box, "bbox": [1, 2, 10, 20]} for box in boxes],
    } | changes


def changed(kind, position=0, **fields):
    data = coco()
    data[kind][position] |= fields
    return data


def write_json(root, data):
    path = root.parent / "annotations/vid.json"
    write(path, data if isinstance(data, str | bytes) else json.dumps(data))
    return path


def test_a_sound_json_is_counted_alone_and_with_the_folders(root):
    path = write_json(root, coco())
    assert counted(check_data(path)) == {"vid": (1, 0, 2, 2, 1, 1)}
    for place in (path, path.parent, root.parent):
        check = check_data(place)
        assert str(check.problems) == "nothing left out"
        assert counted(check)["vid"] == (1, 0, 2, 2, 1, 1)
    assert len(check.subsets) == 5


def test_still_images_may_have_other_classes(root):
    still = {"id": 1, "file_name": "train/d/still_7.JPEG", "height": 48, "width": 64}
    boxes = [{"id": 1, "image_id": 1, "category_id": 31, "bbox": [1, 2, 10, 20]}]
    data = coco(videos=[], images=[still], annotations=boxes)
    check = check_data(write_json(root, data))
    assert str(check.problems) == "nothing left out"
    assert counted(check) == {"vid": (0, 1, 0, 1, 0, 1)}


def test_own_classes_without_instances_are_sound(root):
    data = coco(categories=[{"id": 9, "name": "wheel"}, {"id": 31, "name": "door"}])
    for annotation in data["annotations"]:
        del annotation["instance_id"]
    check = check_data(write_json(root, data))
    assert str(check.problems) == "nothing left out"
    assert counted(check) == {"vid": (1, 0, 2, 2, 0, 1)}
    del data["annotations"][0]["image_id"]
    del data["categories"][1]["name"]
    check = check_data(write_json(root, data))
    assert check.problems.counts == {BAD_ENTRY: 2}
    places = " ".join(check.problems.places(BAD_ENTRY))
    assert "category 31 has no 'name'" in places
    assert "annotation 0 has no 'image_id'" in places


BAD_ENTRY = "json entry that cannot be read"
JSON_FAULTS = [
    ("{", "annotation that cannot be read", "broken json"),
    (changed("images", file_name="val/b/9.JPEG"), "image missing", r"VID/val/b/9\.JPEG"),
    (changed("images", width=None), BAD_ENTRY, "image 1: 'width' is None"),
    (changed("images", video_id=8), BAD_ENTRY, "image 1: no video has its 'video_id' 8"),
    (changed("images", 1, file_name=image(0)["file_name"]), "frame listed twice", "image 2: val"),
    (changed("images", 1, frame_id=0), "frame listed twice", "image 2: frame 0 of video 7"),
    (changed("images", 1, frame_id=5), "video with gaps in its frame numbers", "video 7: 4 betw"),
    (changed("annotations", bbox=[60, 2, 10, 20]), "box over the border of the frame", "annot"),
    (changed("annotations", bbox=[70, 2, 9, 20]), "box outside the frame", r"annotation 0 \(val"),
    (changed("annotations", bbox=None), "box null or not finite", "annotation 0"),
    (changed("annotations", bbox=[1, 2]), BAD_ENTRY, "annotation 0: 'bbox'"),
    (changed("annotations", image_id=5), BAD_ENTRY, "annotation 0: 'image_id' is 5"),
    (changed("annotations", image_id=2), "track twice in a frame", "instance 4 in image 2"),
    (changed("annotations", category_id=5), "unknown class", "annotation 0: 'category_id' 5"),
    (changed("annotations", category_id=31), "unknown class", "category 'other'"),
    (changed("annotations", 1, id=0), BAD_ENTRY, r"annotations\[1\]: the id 0 occurs twice"),
    (changed("videos", vid_train_frames=[3]), "key frame outside its video", "video 7: 3"),
    (changed("videos", vid_train_frames=3), BAD_ENTRY, "'vid_train_frames' is 3"),
    (changed("videos", name=3), BAD_ENTRY, "video 7: 'name' is 3"),
    (coco(annotations=None), BAD_ENTRY, "no list 'annotations'"),
]


@pytest.mark.parametrize(("data", "kind", "place"), JSON_FAULTS)
def test_a_fault_in_a_json_is_named_with_its_file(root, data, kind, place):
    problems = check_data(write_json(root, data)).problems
    assert any(re.search(place, where) for where in problems.places(kind)), str(problems)
    # What follows from a fault may be named too, but nothing else of the same kind.
    assert problems.counts[kind] == 1


def test_a_json_size_that_differs_from_the_image(root):
    data = coco(images=[image(i, width=80) for i in range(2)])
    problems = check_data(write_json(root, data)).problems
    assert problems.counts == {"image of another size than annotated": 2}
    places = problems.places("image of another size than annotated")
    assert f"{root / IMAGE}: the image is 64x48, annotated as 80x48" in places


def test_a_folder_of_neither_format_is_refused(tmp_path):
    write(tmp_path / "other.json", "{}")
    with pytest.raises(DataError, match=f"{tmp_path}: neither"):
        check_data(tmp_path)


@pytest.mark.parametrize("seed", range(60))
def test_damaged_files_never_stop_a_check(root, seed):
    random = Random(seed)
    write_json(root, damage_json(json.dumps(coco()), random))
    write(root / XML, damage_xml(GOOD, random))
    write(root / IMAGE, damage_bytes(JPEG, random))
    for name, text in LISTS.items():
        write(root / name, damage_bytes(text.encode(), random))
    check_data(root.parent)
