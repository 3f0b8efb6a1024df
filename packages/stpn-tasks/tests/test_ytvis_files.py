"""Annotation and result files of YouTube-VIS: what is written is read, what is wrong is named."""

import copy
import json
from random import Random
from zipfile import ZipFile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from stpn_data.deteriorated import DeterioratedSegmentation, SegmentationOptions
from stpn_data.testing import damage_bytes, damage_json, read_or_refuse
from stpn_data.videos import DataError
from stpn_data.youtube_vis import YouTubeVIS
from stpn_data.youtube_vis_json import to_youtube_vis
from stpn_tasks.metrics import (
    VideoPrediction,
    frame_average_precision,
    predictions_of_frames,
    ytvis_average_precision,
)
from stpn_tasks.segmentation.results_file import read_results, write_results
from stpn_tasks.segmentation.rle_check import broken_counts
from stpn_tasks.segmentation.truth_file import parse_truth, read_truth

SIZE = [6, 8]


def encoded(mask):
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": SIZE, "counts": rle["counts"].decode()}


@pytest.fixture
def mask():
    mask = np.zeros(SIZE, np.uint8)
    mask[1:4, 2:6] = 1
    return mask


@pytest.fixture
def annotations(mask):
    runs = coco_mask.decode(encoded(mask)).flatten(order="F")
    changes = np.flatnonzero(np.diff(runs)) + 1
    counts = np.diff([0, *changes, runs.size]).tolist()
    frames = {"height": SIZE[0], "width": SIZE[1], "length": 3}
    return {
        "videos": [
            {"id": 9, **frames, "file_names": ["b/0.jpg", "b/5.jpg", "b/10.jpg"]},
            {"id": 4, **frames},
        ],
        "categories": [{"id": 7, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {
                "id": 1,
                "video_id": 9,
                "category_id": 7,
                "iscrowd": 0,
                "segmentations": [
                    {"size": SIZE, "counts": counts},
                    encoded(mask),
                    [[2, 1, 6, 1, 6, 4, 2, 4]],
                ],
                "areas": [12, 12, 12],
            },
            {
                "id": 2,
                "video_id": 4,
                "category_id": 2,
                "iscrowd": 1,
                "segmentations": [None, encoded(mask), None],
            },
        ],
    }


@pytest.fixture
def records(mask):
    masks = [encoded(mask), None, encoded(np.zeros(SIZE))]
    return [
        {"video_id": 4, "category_id": 2, "score": 0.5, "segmentations": masks},
        {"video_id": 9, "category_id": 7, "score": 1, "segmentations": [encoded(mask)] * 3},
    ]


@pytest.fixture
def files(tmp_path, annotations, records):
    truth, results = tmp_path / "gt.json", tmp_path / "results.json"
    truth.write_text(json.dumps(annotations))
    write_results(results, records)
    return truth, results


def test_annotations_are_read_in_the_order_of_ids_with_runs_texts_and_polygons(files, mask):
    truth = read_truth(files[0])
    assert list(truth.videos) == [4, 9]
    assert truth.categories == {2: "cat", 7: "dog"}
    assert truth.videos[9].name == "9 (b)"
    (dog,) = truth.videos[9].objects
    for rle in dog.masks:
        np.testing.assert_array_equal(coco_mask.decode(dict(rle)), mask)
    assert truth.videos[4].objects[0].is_crowd
    assert [one is None for one in truth.videos[4].objects[0].masks] == [True, False, True]


def test_what_training_takes_is_taken(annotations, mask, tmp_path):
    del annotations["videos"][0]["length"]
    annotations["videos"].pop()
    annotations["annotations"].pop()
    outside = [[2, 1, 6, 1, 6, 100_000, 2, 100_000]]
    annotations["annotations"][0] |= {"segmentations": [[], outside, encoded(mask)], "areas": None}
    for name in ("b/0.jpg", "b/5.jpg", "b/10.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    trained_on = YouTubeVIS(tmp_path / "gt.json", tmp_path, annotations)
    (video,) = parse_truth(annotations, "gt.json").videos.values()
    assert video.length == trained_on.videos[0].num_frames == 3
    masks = video.objects[0].masks
    assert masks[0] is None
    assert not len(trained_on.objects(0, 0))
    for t in (1, 2):
        expected = trained_on.objects(0, t).masks[0]
        np.testing.assert_array_equal(coco_mask.decode(dict(masks[t])), expected)


def test_annotations_that_lie_in_no_file_are_named_too(annotations):
    truth = parse_truth(annotations, "generated")
    assert list(truth.videos) == [4, 9]
    annotations["videos"][0]["id"] = None
    with pytest.raises(DataError, match=r"generated, videos\[0\]: 'id' is None"):
        parse_truth(annotations, "generated")


def test_generated_video_is_split_by_the_conditions_of_its_frames(tmp_path):
    options = SegmentationOptions(size=(48, 64), num_frames=6, object_size=(16.0, 22.0))
    videos = DeterioratedSegmentation(
        tmp_path, num_videos=4, options=options, num_workers=0, progress=False
    )
    truth = parse_truth(to_youtube_vis(videos), "generated")
    frames = [range(video.length) for video in truth.videos.values()]
    conditions = [[videos.conditions(v, t) for t in of_video] for v, of_video in enumerate(frames)]
    found = []  # everything in clean frames, and nothing in the others
    for number, video in enumerate(truth.videos.values()):
        perfect = [VideoPrediction(one.category, 0.5, one.masks) for one in video.objects]
        by_frame = predictions_of_frames(perfect, video.length)
        found.append([by_frame[t] if "clean" in conditions[number][t] else [] for t in range(6)])
    result = frame_average_precision(
        list(truth.videos.values()), found, truth.categories, conditions
    )
    assert result["clean"].ap == pytest.approx(1)
    assert result["deteriorated"].ap == 0
    assert 0 < result["all"].ar10 < 1
    assert result.keys() == {"all"}.union(*(one for of_video in conditions for one in of_video))


def test_results_come_back_from_a_json_and_a_zip(files, records, tmp_path):
    truth = read_truth(files[0])
    write_results(tmp_path / "results.zip", records)
    with ZipFile(tmp_path / "results.zip") as archive:
        assert archive.namelist() == ["results.json"]
        assert archive.read("results.json") == files[1].read_bytes()
    for path in (files[1], tmp_path / "results.zip"):
        cats, dogs = read_results(path, truth)
        assert (cats[0].category, cats[0].score, len(dogs)) == (2, 0.5, 1)
        assert cats[0].masks == records[0]["segmentations"]
        result = ytvis_average_precision(
            list(truth.videos.values()), [cats, dogs], truth.categories
        )
        assert result.ap == pytest.approx(1)
    again = tmp_path / "again.zip"
    write_results(again, copy.deepcopy(records))
    assert again.read_bytes() == (tmp_path / "results.zip").read_bytes()


def test_no_results_are_results(tmp_path, files):
    write_results(tmp_path / "none.json", [])
    assert read_results(tmp_path / "none.json", read_truth(files[0])) == [[], []]


def test_withheld_annotations_are_asked_for_only_where_they_are_wanted(files, annotations):
    del annotations["annotations"]
    files[0].write_text(json.dumps(annotations))
    truth = read_truth(files[0], annotated=False)
    assert len(read_results(files[1], truth)) == 2
    with pytest.raises(DataError, match=r"gt\.json has no 'annotations'"):
        read_truth(files[0])


@pytest.mark.parametrize(
    ("record", "change", "message"),
    [
        (0, {"video_id": 5}, "record 0: no video has the 'video_id' 5"),
        (1, {"video_id": "9"}, "record 1: 'video_id' is '9', expected int"),
        (1, {"category_id": 1}, "record 1: no category has the 'category_id' 1"),
        (1, {"score": "high"}, "record 1: 'score' is 'high'"),
        (1, {"score": True}, "record 1: 'score' is True"),
        (1, {"score": 10**400}, "record 1: 'score' is 1000"),
        (0, {"segmentations": [None] * 2}, "record 0: 'segmentations' has 2 masks for 3 frames"),
        (0, {"segmentations": None}, "record 0: 'segmentations' is None"),
        (0, {"segmentations": [None, None, "x"]}, r"record 0: 'segmentations'\[2\] is 'x'"),
        (
            1,
            {"segmentations": [None, {"size": [8, 6], "counts": "0"}, None]},
            r"record 1: 'segmentations'\[1\]: 'size' is \[8, 6\], not \[6, 8\]",
        ),
        (
            1,
            {"segmentations": [{"size": SIZE, "counts": [48]}, None, None]},
            r"record 1: 'segmentations'\[0\]: 'counts' are a list",
        ),
        (
            1,
            {"segmentations": [None, None, {"size": SIZE, "counts": "`1`"}]},
            r"record 1: 'segmentations'\[2\]: the counts do not fill \(6, 8\)",
        ),
        (1, {"segmentations": [{"size": SIZE}, None, None]}, r"\[0\] has no 'counts'"),
    ],
)
def test_a_wrong_record_is_named(files, records, record, change, message):
    records[record].update(change)
    files[1].write_text(json.dumps(records))
    with pytest.raises(DataError, match=message) as caught:
        read_results(files[1], read_truth(files[0]))
    assert str(files[1]) in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "change", "message"),
    [
        (("annotations", 1), {"id": 1}, r"annotations\[1\]: the id 1 occurs twice"),
        (("annotations", 1), {"video_id": 8}, r"annotations\[1\] \(id 2\): no video has the id 8"),
        (("annotations", 0), {"category_id": 8}, "no category has the id 8"),
        (("annotations", 0), {"areas": [1, 2]}, "'areas'"),
        (("annotations", 0), {"areas": [1, 2, -1]}, "'areas'"),
        (("annotations", 0), {"iscrowd": 2}, "'iscrowd' is 2"),
        (("annotations", 0), {"segmentations": [None]}, "1 masks for 3 frames"),
        (
            ("annotations", 0),
            {"segmentations": [None, {"size": SIZE, "counts": [40]}, None]},
            r"'segmentations'\[1\]: the mask's runs have 40 pixels, not 48",
        ),
        (
            ("annotations", 0),
            {"segmentations": [None, {"size": SIZE, "counts": "11"}, None]},
            r"'segmentations'\[1\]: the counts do not fill",
        ),
        (
            ("annotations", 0),
            {"segmentations": [[[1, 2, 3, 4]], None, None]},
            r"'segmentations'\[0\]: \[1, 2, 3, 4\] is no polygon",
        ),
        (("annotations", 0), {"segmentations": [[[0, 0, 2e6, 0, 9, 9]], None, None]}, "no polygon"),
        (("videos", 0), {"length": None}, "'length' is None"),
        (("annotations", 0), {"segmentations": [3, None, None]}, r"\[0\]: 3 is no mask"),
        (("videos", 0), {"length": 0}, r"videos\[0\] \(id 9\): 'length' is 0"),
        (("videos", 0), {"height": 10**6}, "'height' and 'width'"),
        (("videos", 0), {"file_names": [1]}, "'file_names'"),
        (("categories", 1), {"name": "dog"}, "the name 'dog' occurs twice"),
    ],
)
def test_a_wrong_annotation_is_named(files, annotations, entry, change, message):
    annotations[entry[0]][entry[1]].update(change)
    files[0].write_text(json.dumps(annotations))
    with pytest.raises(DataError, match=message) as caught:
        read_truth(files[0])
    assert str(files[0]) in str(caught.value)


def test_a_zip_with_a_folder_inside_is_refused(files, tmp_path):
    truth, path = read_truth(files[0]), tmp_path / "results.zip"
    with ZipFile(path, "w") as archive:
        archive.writestr("run/results.json", "[]")
    with pytest.raises(DataError, match=r"no results.json at the root, there is \['run"):
        read_results(path, truth)
    path.write_bytes(b"PK no zip")
    with pytest.raises(DataError, match=r"results\.zip: broken zip"):
        read_results(path, truth)
    with pytest.raises(DataError, match="cannot be read"):
        read_results(tmp_path / "absent.zip", truth)
    with pytest.raises(DataError, match=r"expected a list, got dict"):
        read_results(files[0], truth)


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path, records):
    with pytest.raises(ValueError, match="as .json or as .zip"):
        write_results(tmp_path / "results.txt", records)
    records[0]["score"] = float("nan")
    for name in ("results.json", "results.zip"):
        with pytest.raises(ValueError, match="JSON compliant"):
            write_results(tmp_path / name, records)
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 90), st.floats(0, 1))
def test_counts_that_fill_the_frame_are_right_and_others_are_not(seed, height, width, part):
    rng = np.random.default_rng(seed)
    masks = (rng.random((height, width, 5)) < part).astype(np.uint8)
    masks[..., 4] = 0
    counts = [rle["counts"].decode() for rle in coco_mask.encode(np.asfortranarray(masks))]
    assert broken_counts(counts, (height, width)) is None
    assert broken_counts(counts, (height, width + 1)) == 0
    for wrong in ("", "é", counts[2] + "1", counts[2] + "P", " ", "o" * 9 + "0"):
        assert broken_counts([*counts[:2], wrong, *counts[3:]], (height, width)) == 2
    assert broken_counts([], (height, width)) is None


@pytest.mark.parametrize("which", [0, 1])
def test_a_damaged_file_is_read_or_refused_in_words(files, which):
    path, text = files[which], files[which].read_text()
    truth = read_truth(files[0])
    refused = 0
    for seed in range(400):
        random = Random(seed)
        tokens = (b"[", b"NaN", b"null", b"\x00", b"\xff")
        damaged = (
            damage_json(text, random)
            if random.random() < 0.6
            else damage_bytes(text.encode(), random, tokens)
        )
        path.write_bytes(damaged)

        def read():
            if which == 1:
                found = read_results(path, truth)
                ytvis_average_precision(list(truth.videos.values()), found, truth.categories)
                return found
            damaged_truth = read_truth(path)
            nothing = [[] for _ in damaged_truth.videos]
            videos = list(damaged_truth.videos.values())
            return ytvis_average_precision(videos, nothing, damaged_truth.categories)

        try:
            refused += read_or_refuse(read, str(path))[0] is None
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
    assert 40 < refused < 400
