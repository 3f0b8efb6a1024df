"""Still images of DET are one-frame videos of the thirty classes: those listed, or chosen alike."""

import pytest

from stpn_data import (
    BilateralRandomSampler,
    ClipDataset,
    DataError,
    ImageNetVID,
    VideoDataset,
    det_folders,
)

DOG, ZEBRA = "n02084071", "n02391049"


def test_listed_images_are_videos_of_one_frame(ilsvrc):
    dataset = ImageNetVID.from_det_folders(ilsvrc)
    assert isinstance(dataset, VideoDataset)
    assert [(video.name, video.height, video.width) for video in dataset.videos] == [
        ("train/ILSVRC2013_train/n1/n1_1", 32, 40),
        ("train/ILSVRC2013_train/n1/n1_2", 32, 41),
        ("train/ILSVRC2014_train_0000/c", 32, 43),
    ]
    assert all(video.key_frames == (0,) and video.num_frames == 1 for video in dataset.videos)
    objects = dataset.objects(0, 0)
    assert objects.boxes_xyxy.tolist() == [[1, 2, 30, 40]]
    assert [dataset.classes[label] for label in objects.labels] == ["dog"]
    assert dataset.objects(2, 0).boxes_xyxy.tolist() == [[0, 0, 10.5, 20]]
    assert dataset.frame(2, 0).shape == (32, 43, 3)
    assert dataset.frame(2, 0)[0, 0].tolist() == [3, 3, 3]


def test_other_classes_and_missing_xml_files_are_counted(ilsvrc):
    report = ImageNetVID.from_det_folders(ilsvrc.parent).check()
    assert report.counts == {
        "object of a class outside the list": 1,
        "image without an XML file, taken as free of objects": 1,
    }
    assert len(ImageNetVID.from_det_folders(ilsvrc).objects(1, 0)) == 0


def test_an_image_supports_itself(ilsvrc):
    clips = ClipDataset(
        ImageNetVID.from_det_folders(ilsvrc), BilateralRandomSampler(frame_range=9, num_frames=2)
    )
    clip = clips[2]
    assert len(clips) == 3
    assert len(clip.support) == 2
    assert all((image == clip.frame).all() for image in clip.support)


def test_an_image_that_is_listed_twice_is_there_once(ilsvrc):
    path = ilsvrc / "Lists/DET_train_30classes.txt"
    path.write_text(f"{path.read_text()}\ntrain/ILSVRC2014_train_0000/c 1")
    dataset = ImageNetVID.from_det_folders(ilsvrc)
    assert len(dataset.videos) == 3
    assert dataset.report.places("image listed twice") == (f"{path}:4",)


@pytest.fixture
def many(tmp_path, write_image, write_xml):
    """Twelve images with a dog, of which two have a zebra too, and one image of no class."""
    root = tmp_path / "ILSVRC"
    for number in range(13):
        name = f"train/n1/{number:02d}"
        write_image(root / f"Data/DET/{name}.JPEG")
        objects = [(DOG, (1, 2, 30, 40))] * (number < 12) + [(ZEBRA, (1, 2, 9, 9))] * (
            number in (1, 7)
        )
        write_xml(root / f"Annotations/DET/{name}.xml", *objects)
    return root


def numbers(dataset):
    return [int(video.name[-2:]) for video in dataset.videos]


def test_without_a_list_images_of_the_thirty_classes_are_found(many):
    assert numbers(ImageNetVID.from_det_folders(many)) == list(range(12))


def test_without_a_list_no_class_takes_more_than_its_share(many, monkeypatch):
    monkeypatch.setattr(det_folders, "MAX_PER_CLASS", 3)
    # The dogs at equal distances, both zebras.
    assert numbers(ImageNetVID.from_det_folders(many)) == [0, 1, 4, 7, 8]
    assert det_folders._spread(list(range(7))) == [0, 2, 4]


def test_the_share_is_that_of_the_paper():
    assert det_folders.MAX_PER_CLASS == 2000


def test_other_splits_are_chosen_from_too(many):
    for kind in ("Data", "Annotations"):
        (many / kind / "DET/train").rename(many / kind / "DET/val")
    assert len(ImageNetVID.from_det_folders(many, "val").videos) == 12
    with pytest.raises(DataError, match="Annotations/DET/train: no such folder"):
        ImageNetVID.from_det_folders(many, "train")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train/n1/99 1", r"99\.JPEG: the frame cannot be read"),
        ("train/n1/01", r"DET_train_30classes\.txt:1: expected 2 fields"),
        ("../n1/01 1", r"DET_train_30classes\.txt:1: '../n1/01' is no name"),
        ("", "no images of DET of split 'train'"),
    ],
)
def test_a_wrong_list_is_named(many, line, message):
    (many / "Lists").mkdir()
    (many / "Lists/DET_train_30classes.txt").write_text(line)
    with pytest.raises(DataError, match=message):
        ImageNetVID.from_det_folders(many)


def test_a_broken_xml_is_named(many):
    path = many / "Annotations/DET/train/n1/03.xml"
    path.write_text(path.read_text().replace("</annotation>", ""))
    with pytest.raises(DataError, match=r"n1/03\.xml: broken XML"):
        ImageNetVID.from_det_folders(many)


def test_a_missing_tree_is_named(tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path}: neither .* Data/DET"):
        ImageNetVID.from_det_folders(tmp_path)
