"""YouTube-VIS files: masks of every form, null frames, test sets, and what is wrong in words."""

import json
import re
from random import Random

import cv2
import numpy as np
import pytest

from stpn_data import ClipDataset, DataError, YouTubeVIS, check_data, open_coco
from stpn_data.deteriorated import DeterioratedSegmentation, SegmentationOptions
from stpn_data.rle import encode_masks
from stpn_data.testing import damage_json, read_or_refuse
from stpn_data.videos import VideoDataset
from stpn_data.youtube_vis_json import to_youtube_vis, youtube_vis_ids

SIZE = (20, 30)
FIELD = r"'\w+'|\w+\[\d+\]|no videos|broken json|expected an object|a mask is|a polygon is"


def masks():
    """Two objects in three frames; the first is not seen in the second frame."""
    first, second = np.zeros((2, 3, *SIZE), np.bool_)
    first[0, 2:9, 3:12] = first[2, 4:11, 5:14] = True
    for t in range(3):
        second[t, 10:18, 4 * t : 4 * t + 9] = True
    return first, second


def runs(mask):
    flat = mask.T.reshape(-1)
    lengths = np.diff([0, *np.flatnonzero(np.diff(flat)) + 1, flat.size]).tolist()
    return [0, *lengths] if flat[0] else lengths


def as_form(mask, form):
    if not mask.any():
        return None
    if form == "compressed":
        return encode_masks(mask[None])[0]
    if form == "uncompressed":
        return {"size": list(SIZE), "counts": runs(mask)}
    rows, columns = np.nonzero(mask)
    left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return [[float(n) for n in (left, top, right, top, right, bottom, left, bottom)]]


def document(form="compressed", **changes):
    first, second = masks()
    records = []
    for number, (category, objects, crowd) in enumerate(((40, first, 0), (3, second, 1))):
        records.append(
            {
                "id": 11 + number,
                "video_id": 7,
                "category_id": category,
                "iscrowd": crowd,
                "segmentations": [as_form(mask, form) for mask in objects],
            }
        )
    videos = [
        {
            "id": key,
            "height": 20,
            "width": 30,
            "length": 3,
            "file_names": [f"{name}/{5 * t:05d}.jpg" for t in range(3)],
        }
        for key, name in ((7, "a"), (4, "b"))
    ]
    categories = [{"id": 40, "name": "cat"}, {"id": 3, "name": "dog"}]
    data = {"videos": videos, "categories": categories, "annotations": records}
    return data | changes


@pytest.fixture
def write(tmp_path, write_image):
    """Write a file with its frames; return its path."""

    def write_data(data, name="instances.json", frames="JPEGImages"):
        for video in "ab":
            for t in range(3):
                write_image(tmp_path / frames / video / f"{5 * t:05d}.jpg", SIZE)
        path = tmp_path / name
        path.write_text(json.dumps(data))
        return path

    return write_data


@pytest.mark.parametrize("form", ["compressed", "uncompressed", "polygons"])
def test_masks_of_every_form_are_read(write, form):
    dataset = YouTubeVIS(write(document(form)))
    assert isinstance(dataset, VideoDataset)
    assert dataset.classes == ("dog", "cat")
    assert (dataset.video_ids, dataset.category_ids) == ((7, 4), (3, 40))
    assert [(one.name, one.key_frames) for one in dataset.videos] == [
        ("a", (0, 1, 2)),
        ("b", (0, 1, 2)),
    ]
    first, second = masks()
    objects = dataset.objects(0, 2)
    assert np.array_equal(objects.masks, [first[2], second[2]])
    assert objects.labels.tolist() == [1, 0]
    assert objects.track_ids.tolist() == [11, 12]
    assert objects.is_crowd.tolist() == [False, True]
    assert objects.boxes_xyxy.tolist() == [[5, 4, 14, 11], [8, 10, 17, 18]]
    assert dataset.frame(1, 2).shape == (*SIZE, 3)


def test_a_null_frame_has_no_object_and_a_video_may_have_none(write):
    dataset = YouTubeVIS(write(document()))
    assert dataset.objects(0, 1).track_ids.tolist() == [12]
    assert dataset.objects(1, 0).masks.shape == (0, *SIZE)


def test_crowds_are_not_trained_on_but_written_for_evaluation(write):
    dataset = YouTubeVIS(write(document()))
    clip = ClipDataset(dataset)[2]
    assert clip.track_ids.tolist() == [11]
    assert clip.masks.shape == (1, *SIZE)
    truth = to_youtube_vis(dataset)
    assert [one["iscrowd"] for one in truth["annotations"]] == [0, 1]
    assert ClipDataset(dataset)[1].masks.shape == (0, *SIZE)


def test_the_truth_has_the_ids_of_the_file(write):
    dataset = YouTubeVIS(write(document()))
    assert youtube_vis_ids(dataset) == ((7, 4), (3, 40))
    truth = to_youtube_vis(dataset)
    assert [one["id"] for one in truth["videos"]] == [7, 4]
    for one, given in zip(truth["annotations"], document()["annotations"], strict=True):
        for field in ("video_id", "category_id", "segmentations"):
            assert one[field] == given[field]
    assert truth["annotations"][0]["areas"] == [63, None, 63]
    assert truth["annotations"][0]["bboxes"] == [[3, 2, 9, 7], None, [5, 4, 9, 7]]


def test_an_empty_mask_is_taken_for_null_and_counted(write):
    data = document()
    data["annotations"][0]["segmentations"][0] = {"size": [20, 30], "counts": [600]}
    dataset = YouTubeVIS(write(data))
    assert dataset.objects(0, 0).track_ids.tolist() == [12]
    assert dataset.check().counts == {"empty mask, taken for null": 1}


@pytest.mark.parametrize("annotations", ["missing", None])
def test_a_test_set_has_frames_but_no_objects(write, annotations):
    data = document(annotations=None)
    if annotations == "missing":
        del data["annotations"]
    dataset = YouTubeVIS(write(data))
    assert not dataset.has_annotations
    assert dataset.frame(0, 0).shape == (*SIZE, 3)
    with pytest.raises(DataError, match=r"instances\.json: the file has no 'annotations'"):
        dataset.objects(0, 0)


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("train.json", "train/JPEGImages"),
        ("instances.json", "JPEGImages"),
        ("instances.json", ""),
    ],
)
def test_frames_are_found_near_the_file(write, name, frames):
    assert YouTubeVIS(write(document(), name, frames)).frame(0, 0).shape == (*SIZE, 3)


def test_frames_are_found_where_they_are_said_to_be(write, tmp_path):
    path = write(document(), frames="else/where/JPEGImages")
    with pytest.raises(DataError, match="no frames in JPEGImages near the file, such as"):
        YouTubeVIS(path)
    for folder in ("else/where", "else/where/JPEGImages"):
        assert YouTubeVIS(path, tmp_path / folder).frame(0, 0).shape == (*SIZE, 3)
    with pytest.raises(DataError, match="no frames in"):
        YouTubeVIS(path, tmp_path / "else")


def test_a_file_is_known_by_what_it_holds(write):
    assert isinstance(open_coco(write(document())), YouTubeVIS)


def change(path, value):
    """Return the document with the value at a path, or without it."""
    data = document()
    *parents, last = path
    target = data
    for key in parents:
        target = target[key]
    if value is KeyError:
        del target[last]
    else:
        target[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("categories",), [], "no 'categories'"),
        (("annotations",), 3, "no list 'annotations'"),
        (("videos", 1, "id"), 7, r"videos\[1\]: the id 7 occurs twice"),
        (("annotations", 1, "id"), 11, r"annotations\[1\]: the id 11 occurs twice"),
        (("categories", 1, "id"), 40, r"categories\[1\]: the id 40 occurs twice"),
        (("categories", 1, "name"), "cat", "two 'categories' have the 'name' 'cat'"),
        (("videos", 0, "length"), 4, "video 7: 'length' is 4 for 3 'file_names'"),
        (("videos", 0, "width"), KeyError, "video 7 has no 'width'"),
        (("videos", 0, "height"), 0, "video 7: 'height' and 'width' are"),
        (("videos", 0, "file_names"), [], "video 7: 'file_names' is empty"),
        (("videos", 0, "file_names", 1), None, "video 7: 'file_names' has None"),
        (("videos", 0, "file_names", 1), "a/00000.jpg", "video 7: 'file_names' has a frame twice"),
        (("videos", 1, "file_names", 0), "a/9.jpg", "two videos have the frames of 'a'"),
        (("annotations", 0, "video_id"), 5, "annotation 11: 'video_id' is 5, which the file"),
        (("annotations", 0, "category_id"), 0, "annotation 11: 'category_id' is 0, which the file"),
        (("annotations", 0, "iscrowd"), 2, "annotation 11: 'iscrowd' is 2"),
        (("annotations", 0, "segmentations"), KeyError, "annotation 11 has no 'segmentations'"),
        (("annotations", 0, "segmentations"), [None], "'segmentations' has 1 entries, its video 3"),
        (
            ("annotations", 0, "segmentations", 2, "size"),
            [20, 31],
            r"annotation 11, frame 2: 'size' of a mask is \[20, 31\], its frame has \[20, 30\]",
        ),
        (
            ("annotations", 0, "segmentations", 2, "counts"),
            [60, 9],
            "annotation 11, frame 2: 'counts' of a mask make 69 pixels",
        ),
        (("annotations", 1, "segmentations", 0), "x", "annotation 12, frame 0: a mask is 'x'"),
    ],
)
def test_what_is_wrong_is_named_with_file_entry_and_field(write, path, value, message):
    file = write(change(path, value))
    with pytest.raises(DataError, match=message) as raised:
        YouTubeVIS(file).check()
    assert str(raised.value).startswith(str(file))
    check = check_data(file)  # goes on after it
    assert check.problems.counts.total() >= 1
    assert check.subsets[0].layout == "YouTube-VIS json"


def test_a_file_without_videos_is_refused(write):
    with pytest.raises(DataError, match=r"instances\.json: no videos"):
        YouTubeVIS(write(document(videos=[])))
    with pytest.raises(DataError, match=r"instances\.json: the file has no list 'videos'"):
        YouTubeVIS(write(change(("videos",), KeyError)))


def test_damaged_files_are_read_or_refused_in_words(write):
    path = write(document())
    text, refused = path.read_text(), 0
    for seed in range(600):
        path.write_bytes(damage_json(text, Random(seed)))
        try:
            read, message = read_or_refuse(lambda: YouTubeVIS(path).check(), str(path))
            if read is None:
                assert re.search(FIELD, message.replace(str(path), "")) or "no frames" in message
                assert len(message) < 2000
                refused += 1
            else:
                check_data(path)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
    assert 0 < refused < 600


def test_damaged_frames_are_named(write, tmp_path):
    dataset = YouTubeVIS(write(document()))
    frames = tmp_path / "JPEGImages/a"
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    (frames / "00005.jpg").write_bytes(cv2.imencode(".jpg", noise)[1].tobytes()[:-40])
    (frames / "00010.jpg").write_bytes(
        cv2.imencode(".jpg", np.zeros((21, 30, 3), np.uint8))[1].tobytes()
    )
    (tmp_path / "JPEGImages/b/00000.jpg").unlink()
    for place, message in (
        ((0, 1), r"a/00005\.jpg: the image is truncated"),
        ((0, 2), r"a/00010\.jpg: the image is 30x21, its annotations are for 30x20"),
        ((1, 0), r"b/00000\.jpg: the frame cannot be read"),
    ):
        with pytest.raises(DataError, match=message):
            dataset.frame(*place)
    counts = check_data(tmp_path).problems.counts
    assert counts == {
        "image that cannot be read": 1,
        "image of another size than annotated": 1,
        "image missing": 1,
    }


def test_a_check_counts_what_is_there(write, tmp_path):
    write(document())
    check = check_data(tmp_path)
    assert not check.problems.counts
    (subset,) = check.subsets
    counts = (subset.videos, subset.frames, subset.objects, subset.tracks, subset.classes)
    assert counts == (2, 6, 5, 2, {"cat", "dog"})


def test_an_object_that_is_never_seen_is_a_problem(write):
    data = document()
    data["annotations"][0]["segmentations"] = [None, None, {"size": [20, 30], "counts": [600]}]
    counts = check_data(write(data)).problems.counts
    assert counts == {"empty mask, taken for null": 1, "object that is never seen": 1}


def test_generated_clips_come_back_from_their_file(tmp_path):
    options = SegmentationOptions(size=(48, 64), num_frames=5, object_size=(16.0, 22.0))
    generated = DeterioratedSegmentation(
        tmp_path / "cache", num_videos=3, options=options, num_workers=0, progress=False
    )
    data = to_youtube_vis(generated)
    for number, video in enumerate(data["videos"]):
        for t, name in enumerate(video["file_names"]):
            path = tmp_path / "JPEGImages" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), generated.frame(number, t)[..., ::-1])
    (tmp_path / "instances.json").write_text(json.dumps(data))
    assert not check_data(tmp_path / "instances.json").problems.counts
    read = YouTubeVIS(tmp_path / "instances.json")
    assert to_youtube_vis(read) == data
    for v in range(3):
        for t in range(5):
            for name in ("masks", "boxes_xyxy", "labels", "is_crowd"):
                one, other = (
                    getattr(read.objects(v, t), name),
                    getattr(generated.objects(v, t), name),
                )
                assert np.array_equal(one, other)


def test_the_real_videos_are_as_their_description_says(shared_path):
    root = shared_path("real/vis")
    described = json.loads((root / "manifest.json").read_text())
    for split in ("train", "valid"):
        rows = [row for row in described if row["split"] == split]
        raw = json.loads((root / split / "instances.json").read_text())
        dataset = YouTubeVIS(root / split / "instances.json")
        assert len(dataset.classes) == 40
        assert dataset.category_ids == tuple(range(1, 41))
        assert [one.name for one in dataset.videos] == [row["video"] for row in rows]
        assert not dataset.check().counts
        for number, row in enumerate(rows):
            assert dataset.videos[number].num_frames == row["frames"]
            areas = []
            for t in range(row["frames"]):
                objects = dataset.objects(number, t)
                assert [dataset.classes[i] for i in objects.labels] == [row["category"]]
                areas.append(int(objects.masks.sum()))
            assert (min(areas), max(areas)) == (row["min_area"], row["max_area"])
            assert dataset.frame(number, 0).shape[:2] == tuple(row["size"][::-1])
        truth = to_youtube_vis(dataset)
        compressed = json.loads((root / split / "instances_compressed_rle.json").read_text())
        for one, given, packed in zip(
            truth["annotations"], raw["annotations"], compressed["annotations"], strict=True
        ):
            for field in ("video_id", "category_id", "bboxes", "areas", "iscrowd", "length"):
                assert one[field] == given[field]
            assert one["segmentations"] == packed["segmentations"]
        assert to_youtube_vis(YouTubeVIS(root / split / "instances_compressed_rle.json")) == truth
        bare = YouTubeVIS(root / split / "instances_no_annotations.json")
        assert not bare.has_annotations
        assert bare.videos == dataset.videos
    assert [s.frames for s in check_data(root).subsets] == [120, 50]
