"""Folders of frames and id masks, as DAVIS has them."""

from random import Random

import cv2
import numpy as np
import pytest
from PIL import Image

from stpn_data import ClipDataset, DataError, check_data, open_mask_folder
from stpn_data.batch import collate
from stpn_data.id_masks import read_id_mask
from stpn_data.testing import damage_bytes, read_or_refuse
from stpn_data.videos import VideoDataset
from stpn_data.youtube_vis_json import to_youtube_vis

SIZE = (20, 30)


def ids(*numbers):
    """A mask with a column of three pixels for every number."""
    mask = np.zeros(SIZE, np.uint16)
    for place, number in enumerate(numbers):
        mask[2:8, 5 * place : 5 * place + 3] = number
    return mask


def save(path, mask, mode="P"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask if mode == "I;16" else mask.astype(np.uint8))
    if mode == "P":
        image.putpalette([7 * i % 256 for i in range(768)])
    image.save(path)
    assert Image.open(path).mode == mode


@pytest.fixture
def root(tmp_path, write_image):
    """Two videos of three frames; one frame of the second video has no mask."""
    for video, numbers in (("480p/a", ((1, 2), (2,), (1, 2))), ("480p/b", ((3,), None, ()))):
        for t, present in enumerate(numbers):
            write_image(tmp_path / f"JPEGImages/{video}/{t:05d}.jpg", SIZE, 40 + t)
            if present is not None:
                save(tmp_path / f"Annotations/{video}/{t:05d}.png", ids(*present))
    return tmp_path


def test_objects_have_masks_boxes_and_the_numbers_of_the_file(root):
    dataset = open_mask_folder(root)
    assert isinstance(dataset, VideoDataset)
    assert dataset.classes == ("object",)
    described = [(one.name, one.num_frames, one.key_frames) for one in dataset.videos]
    assert described == [("480p/a", 3, (0, 1, 2)), ("480p/b", 3, (0, 2))]
    objects = dataset.objects(0, 2)
    assert objects.track_ids.tolist() == [1, 2]
    assert objects.boxes_xyxy.tolist() == [[0, 2, 3, 8], [5, 2, 8, 8]]
    assert np.array_equal(objects.masks, [ids(1) > 0, ids(0, 1) > 0])
    assert dataset.frame(0, 2).shape == (*SIZE, 3)
    for t in (1, 2):  # without a mask, and with an empty one
        assert dataset.objects(1, t).masks.shape == (0, *SIZE)


def test_clips_and_the_truth_are_those_of_any_data_set(root):
    dataset = open_mask_folder(root)
    batch = collate([ClipDataset(dataset)[i] for i in range(5)], with_masks=True)
    assert [len(one.masks) for one in batch.targets] == [2, 1, 2, 1, 0]
    truth = to_youtube_vis(dataset)
    assert [one["areas"] for one in truth["annotations"]] == [
        [18, None, 18],
        [18, 18, 18],
        [18, None, None],
    ]


@pytest.mark.parametrize(
    ("mode", "kept"),
    [("P", [1, 7]), ("L", [1, 7, 255]), ("I;16", [1, 7, 255, 300])],
)
def test_numbers_are_those_of_palettes_and_of_grey(tmp_path, mode, kept):
    save(tmp_path / "a.png", ids(1, 7, 255, *([300] if mode == "I;16" else [])), mode)
    mask = read_id_mask(tmp_path / "a.png")
    assert np.unique(mask).tolist() == [0, *kept]
    assert (mask == 7).sum() == 18


def test_a_mask_of_two_values_is_one_object(tmp_path):
    Image.fromarray(ids(1) > 0).save(tmp_path / "a.png")
    assert np.array_equal(read_id_mask(tmp_path / "a.png"), ids(1))


def test_classes_are_those_of_the_table(root):
    (root / "classes.txt").write_text("dog\ncar\n")
    table = root / "instances.csv"
    table.write_text("video,id,class\n480p/a,1,car\n480p/a,2,dog\n480p/b,3,car\n")
    dataset = open_mask_folder(root)
    assert dataset.classes == ("dog", "car")
    assert dataset.objects(0, 0).labels.tolist() == [1, 0]
    assert dataset.objects(1, 0).labels.tolist() == [1]
    assert check_data(root).subsets[0].classes == {"dog", "car"}


def test_one_class_needs_no_table(root):
    (root / "classes.txt").write_text("dog\n")
    assert open_mask_folder(root).classes == ("dog",)
    assert open_mask_folder(root).objects(0, 0).labels.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("video,id\n", r"instances\.csv:1: the columns are 'video,id', expected video,id,class"),
        ("video,id,class\n480p/c,1,dog\n", r"instances\.csv:2: 'video' is '480p/c'"),
        ("video,id,class\n480p/a,x,dog\n", r"instances\.csv:2: 'id' is 'x'"),
        ("video,id,class\n480p/a,1,cat\n", r"instances\.csv:2: 'class' is 'cat'"),
        ("video,id,class\n480p/a,1\n", r"instances\.csv:2: 2 fields for 3 columns"),
        ("video,id,class\n480p/a,1,dog\n480p/a,01,car\n", r"\.csv:3: object 01 .* occurs twice"),
        ("video,id,class\n480p/a,1,dog\n", r"a/00000\.png: .*has no row of object 2"),
        (None, r"instances\.csv: the table cannot be read"),
    ],
)
def test_a_wrong_table_is_named_with_its_line(root, rows, message):
    (root / "classes.txt").write_text("dog\ncar\n")
    if rows is not None:
        (root / "instances.csv").write_text(rows)
    with pytest.raises(DataError, match=message):
        open_mask_folder(root).check()
    assert check_data(root).problems.counts


def test_damaged_masks_are_named(root):
    folder = root / "Annotations/480p/a"
    whole = (folder / "00000.png").read_bytes()
    dataset = open_mask_folder(root)
    colours = cv2.imencode(".png", np.zeros((*SIZE, 3), np.uint8))[1].tobytes()
    jpeg = cv2.imencode(".jpg", np.zeros(SIZE, np.uint8))[1].tobytes()
    for data, message in (
        (whole[:-20], r"a/00000\.png: the image is truncated"),
        (whole[:40] + b"\0\0\0\0" + whole[44:], "no PNG, or a damaged one"),
        (b"", "the file is empty"),
        (jpeg, "no PNG, or a damaged one"),
        (colours, r"an image of colours \(RGB\), expected a palette or grey"),
    ):
        (folder / "00000.png").write_bytes(data)
        with pytest.raises(DataError, match=message):
            dataset.objects(0, 0)
    save(folder / "00000.png", np.ones((20, 31), np.uint8))
    with pytest.raises(DataError, match=r"a/00000\.png: the mask is 31x20, its video 30x20"):
        dataset.objects(0, 0)
    assert check_data(root).problems.counts == {"mask that cannot be read": 1}


def test_missing_files_are_named(root, tmp_path):
    (root / "JPEGImages/480p/a/00001.jpg").unlink()
    with pytest.raises(DataError, match=r"a/00001\.png: no frame 00001 in .*480p/a"):
        open_mask_folder(root)
    (root / "JPEGImages/480p/a").rename(root / "elsewhere")
    with pytest.raises(DataError, match=r"480p/a: no such folder"):
        open_mask_folder(root)
    assert check_data(root).problems.counts == {"folder that cannot be read": 1}
    with pytest.raises(DataError, match="Annotations: no such folder"):
        open_mask_folder(tmp_path / "elsewhere")


def test_a_check_counts_what_is_there(root):
    check = check_data(root)
    assert not check.problems.counts
    (subset,) = check.subsets
    assert subset.layout == "id masks"
    assert (subset.videos, subset.frames, subset.objects, subset.tracks) == (2, 6, 6, 3)
    (root / "JPEGImages/480p/b/00001.jpg").write_bytes(b"")
    assert check_data(root).problems.counts == {"image that cannot be read": 1}


def test_masks_damaged_at_random_are_read_or_refused_in_words(tmp_path):
    path = tmp_path / "a.png"
    save(path, ids(1, 2))
    whole, refused = path.read_bytes(), 0
    for seed in range(1000):
        path.write_bytes(damage_bytes(whole, Random(seed), (b"\0", b"IDAT", b"PLTE", b"IHDR")))
        try:
            mask, _ = read_or_refuse(lambda: read_id_mask(path), str(path))
            assert mask is None or mask.ndim == 2
            refused += mask is None
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
    assert 0 < refused < 1000
