"""Fourteen thousand damaged annotation files: a right parse or an error in words, never a hang."""

import json
import re
from random import Random

import cv2
import numpy as np
import pytest

from stpn_data import DataError, ImageNetVID
from stpn_data.testing import damage_bytes, damage_json, damage_xml, read_or_refuse

TOKENS = tuple(
    token.encode()
    for token in (
        *("\x00", "\ufeff", "\ud7ff", "9" * 5000, "1e999", "NaN", "-", " ", "\n", "null", "true"),
        *("[", "{", '"', "[" * 20_000, '{"a":' * 20_000, "<", ">", "&", "&e;", "<a>" * 20_000),
        *("<![CDATA[", "<!--", "<!DOCTYPE a [", "../", "999999999999 ", "val/a ", "\\ud800"),
    )
) + (b"\xff", b"\xff\xfe")
XML = """<annotation><folder>a</folder><filename>000000</filename>
<source><database>ILSVRC_2015</database></source>
<size><width>64</width><height>48</height></size>
<object><trackid>0</trackid><name>n02084071</name><bndbox><xmax>11</xmax><xmin>1</xmin>
<ymax>22</ymax><ymin>2</ymin></bndbox><occluded>0</occluded><generated>0</generated></object>
<object><trackid>1</trackid><name>n02391049</name><bndbox><xmax>60.5</xmax><xmin>-3</xmin>
<ymax>50</ymax><ymin>1e1</ymin></bndbox><occluded>1</occluded><generated>0</generated></object>
</annotation>"""
LISTS = {
    "Lists/VID_train_15frames.txt": "train/a 1 1 3\ntrain/a 1 3 3\ntrain/b 1 1 2\n",
    "Lists/VID_val_videos.txt": "val/a 1 0 3\nval/b 4 0 2\nval/c 6 0 0\n",
    "ImageSets/VID/val.txt": "a/000000 1\na/000001 2\na/000002 3\nb/000000 4\nb/000001 5\n",
    "ImageSets/VID/train_7.txt": "a 1\nb 1\n",
}


def box(number, image, category=9, instance=40, **fields):
    return {
        "id": number, "image_id": image, "category_id": category, "instance_id": instance,
        "bbox": [1, 2, 10, 20.5], "iscrowd": 0, "ignore": False, **fields,
    }  # fmt: skip


def image(number, **fields):
    name = f"val/a/{number:06d}.JPEG"
    return {"id": number, "file_name": name, "height": 48, "width": 64, **fields}


CATEGORIES = [{"id": 9, "name": "dog"}, {"id": 31, "name": "other"}]
VIDEOS = {
    "categories": CATEGORIES,
    "videos": [{"id": 7, "name": "a", "vid_train_frames": [0, 2]}, {"id": 8, "name": "b"}],
    "images": [
        *(image(i, video_id=7, frame_id=i, is_vid_train_frame=i != 1) for i in range(3)),
        *(image(3 + i, video_id=8, frame_id=i) for i in range(2)),
    ],
    "annotations": [
        *(box(i, i, instance=i % 2) for i in range(4)),
        box(4, 3, category=31),
        box(5, 4, iscrowd=1),
        box(6, 4, instance=3, bbox=None),
    ],
}
DETECTION = {
    "categories": CATEGORIES,
    "images": [image(0), image(1)],
    "annotations": [box(0, 0), box(1, 1, ignore=True)],
}
# What an error has to say beside the file: a field, an entry, or what is wrong with the whole.
JSON_FIELD = r"'\w+'|\w+\[\d+\]|no videos with frames|broken json|expected an object"
XML_FIELD = r"\w+ without \w+|(\w+/)?\w+ is .*not a|size is|broken XML"
LIST_FIELD = r":\d+: |cannot be read|no such video|no videos of split|frame numbers"


@pytest.fixture
def root(tmp_path):
    """Two videos in train and in val, three and two frames, each with the XML above."""
    pixels = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    for video, frames in (("train/a", 3), ("train/b", 2), ("val/a", 3), ("val/b", 2)):
        for number in range(frames):
            write(tmp_path / f"Data/VID/{video}/{number:06d}.JPEG", pixels)
            write(tmp_path / f"Annotations/VID/{video}/{number:06d}.xml", XML.encode())
    return tmp_path


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def check_all(dataset):
    """Read every annotation and check what a data set promises."""
    names = [video.name for video in dataset.videos]
    assert len(set(names)) == len(names) > 0
    annotated = kept = 0
    for number, video in enumerate(dataset.videos):
        assert min(video.height, video.width) > 0
        assert list(video.key_frames) == sorted(set(video.key_frames))
        assert 0 <= min(video.key_frames) <= max(video.key_frames) < video.num_frames
        for index in range(min(video.num_frames, 5)):
            annotated += len(dataset._layout.boxes(number, index))
            size = dataset._layout.image_size(number, index)
            kept += check_objects(dataset.objects(number, index), size)
    counts = dataset.report.counts.items()
    assert annotated == kept + sum(n for reason, n in counts if reason.startswith(("box", "obj")))
    return dataset


def check_objects(objects, size):
    n = len(objects)
    assert objects.boxes_xyxy.shape == (n, 4)
    assert len(objects.labels) == len(objects.track_ids) == len(objects.is_crowd) == n
    assert np.isfinite(objects.boxes_xyxy).all()
    left, top, right, bottom = objects.boxes_xyxy.T
    assert ((left < right) & (top < bottom)).all()
    assert ((left < size[1]) & (top < size[0]) & (right > 0) & (bottom > 0)).all()
    assert ((objects.labels >= 0) & (objects.labels < len(ImageNetVID.classes))).all()
    assert len(set(objects.track_ids.tolist())) == n
    return n


def check_each(seeds, damage, read, names, field):
    """Damage and read a file once per seed; some files must be read and some refused."""
    refused = 0
    for seed in range(seeds):
        try:
            damage(Random(seed))
            result, message = read_or_refuse(lambda: check_all(read()), names)
            if result is None:
                assert re.search(field, message.replace(names, "")), message
                assert len(message) < 2000
                refused += 1
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
    assert 0 < refused < seeds


@pytest.mark.parametrize("document", [VIDEOS, DETECTION], ids=["videos", "images"])
@pytest.mark.parametrize("part", ["values", "bytes"])
def test_a_damaged_json_is_read_or_refused_in_words(tmp_path, document, part):
    path, text = tmp_path / "vid.json", json.dumps(document)

    def damage(random):
        by_byte = part == "bytes"
        write(
            path,
            damage_bytes(text.encode(), random, TOKENS) if by_byte else damage_json(text, random),
        )

    def read():
        return ImageNetVID.from_coco(path, tmp_path)

    check_each(2000, damage, read, str(path), JSON_FIELD)


@pytest.mark.parametrize("part", ["elements", "bytes"])
@pytest.mark.parametrize("frame", [0, 1])
def test_a_damaged_xml_is_read_or_refused_in_words(root, part, frame):
    path = root / f"Annotations/VID/val/a/{frame:06d}.xml"
    write(root / "Lists/VID_val_videos.txt", b"val/a 1 0 2")

    def damage(random):
        by_byte = part == "bytes"
        write(
            path, damage_bytes(XML.encode(), random, TOKENS) if by_byte else damage_xml(XML, random)
        )

    def read():
        return ImageNetVID.from_folders(root, "val")

    check_each(1000, damage, read, ".xml", XML_FIELD)


@pytest.mark.parametrize("name", LISTS)
def test_a_damaged_list_is_read_or_refused_in_words(root, name):
    def damage(random):
        write(root / name, damage_bytes(LISTS[name].encode(), random, TOKENS))

    def read():
        return ImageNetVID.from_folders(root, "train" if "train" in name else "val")

    check_each(500, damage, read, str(root), LIST_FIELD)


def test_entities_are_refused_before_they_grow(root):
    entities = [
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefg", "bcdefgh", strict=True)
    ]
    bomb = f'<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">{"".join(entities)}]>'
    path = root / "Annotations/VID/val/a/000000.xml"
    for encoding in ("utf-8", "utf-16"):
        write(path, (bomb + XML.replace("n02084071", "&h;")).encode(encoding))
        result, message = read_or_refuse(
            lambda: ImageNetVID.from_folders(root, "val"), str(path), seconds=1
        )
        assert result is None
        assert "a document type is declared" in message


@pytest.mark.parametrize("name", ["../a", "/etc", "x" * 2000])
def test_a_list_names_only_videos_below_its_folder(root, name):
    write(root / "Lists/VID_val_videos.txt", f"{name} 1 0 1".encode())
    with pytest.raises(DataError, match=r"VID_val_videos\.txt:1: .* is no name of a video"):
        ImageNetVID.from_folders(root, "val")


@pytest.mark.parametrize("listed", [True, False])
def test_a_damaged_xml_of_det_is_read_or_refused_in_words(root, listed):
    path = root / "Annotations/DET/train/n1/a.xml"
    (root / "Data/VID").rename(root / "Data/DET")
    write(root / "Annotations/DET/train/n1/b.xml", XML.encode())
    if listed:
        write(root / "Lists/DET_train_30classes.txt", b"train/n1/a 1\ntrain/n1/b 1")

    def damage(random):
        write(path, damage_xml(XML, random))

    def read():
        return ImageNetVID.from_det_folders(root)

    check_each(300, damage, read, ".xml", XML_FIELD)


def test_a_damaged_list_of_det_is_read_or_refused_in_words(root):
    (root / "Data/VID").rename(root / "Data/DET")
    for name in "ab":
        write(root / f"Annotations/DET/train/n1/{name}.xml", XML.encode())

    def damage(random):
        lines = b"train/n1/a 1\ntrain/n1/b 1"
        write(root / "Lists/DET_train_30classes.txt", damage_bytes(lines, random, TOKENS))

    def read():
        return ImageNetVID.from_det_folders(root)

    check_each(300, damage, read, str(root), LIST_FIELD + "|no images of DET")
