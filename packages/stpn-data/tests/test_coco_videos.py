"""A json of the user's own classes, with videos or without, is opened by what it says."""

import json
from random import Random

import pytest

from stpn_data import AnnotatedVideos, DataError, ImageNetVID, open_coco
from stpn_data.testing import damage_json, read_or_refuse


def own(**changes):
    return {
        "categories": [{"id": 7, "name": "wheel"}, {"id": 2, "name": "door"}],
        "images": [
            {"id": i, "file_name": f"frames/{i}.png", "height": 48, "width": 64} for i in range(2)
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 2, 10, 20]},
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [3, 4, 5, 6]},
        ],
    } | changes


def video(**changes):
    data = own(videos=[{"id": 5, "name": "clip"}])
    for index, image in enumerate(data["images"]):
        image |= {"video_id": 5, "frame_id": index}
    return data | changes


@pytest.fixture
def write(tmp_path, write_image):
    def write_data(data, folder="annotations"):
        for index in range(2):
            write_image(tmp_path / f"frames/{index}.png", value=index)
        path = tmp_path / folder / "own.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(data))
        return path

    return write_data


def test_categories_decide_the_classes(write):
    dataset = open_coco(write(own()))
    assert type(dataset) is AnnotatedVideos
    assert dataset.classes == ("door", "wheel")
    assert [one.name for one in dataset.videos] == ["frames/0", "frames/1"]
    assert dataset.objects(1, 0).labels.tolist() == [1, 0]
    assert dataset.objects(1, 0).boxes_xyxy.tolist() == [[1, 2, 11, 22], [3, 4, 8, 10]]


def test_videos_without_instances_have_no_tracks(write):
    dataset = open_coco(write(video()))
    assert [(one.name, one.num_frames) for one in dataset.videos] == [("clip", 2)]
    assert sorted(dataset.objects(0, 1).track_ids.tolist()) == [0, 1]


@pytest.mark.parametrize("folder", ["", "annotations"])
def test_images_are_found_near_the_file_or_where_they_are_said_to_be(write, tmp_path, folder):
    path = write(own(), folder)
    assert open_coco(path).frame(1, 0)[0, 0].tolist() == [1, 1, 1]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "frames").rename(elsewhere / "frames")
    assert open_coco(path, elsewhere).frame(1, 0).shape == (48, 64, 3)
    with pytest.raises(DataError, match=r"own\.json: no images near the file, such as 'frames/0"):
        open_coco(path)
    with pytest.raises(DataError, match=rf"own\.json: no images in {tmp_path}, such as"):
        open_coco(path, tmp_path)


def test_both_files_of_imagenet_are_found_in_one_tree(ilsvrc, tmp_path):
    names = {"VID": "train/x/a/000000.JPEG", "DET": "train/ILSVRC2014_train_0000/c.JPEG"}
    for task, name in names.items():
        path = tmp_path / f"far/away/{task}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = {"id": 1, "file_name": name, "height": 1, "width": 1}
        categories = [{"id": 9, "name": "dog", "encode_name": "n02084071"}]
        path.write_text(json.dumps({"images": [image], "categories": categories}))
        for root in (ilsvrc, ilsvrc.parent, ilsvrc / "Data" / task):
            dataset = open_coco(path, root)
            assert isinstance(dataset, ImageNetVID)
            assert dataset._layout.image_path(0, 0) == ilsvrc / "Data" / task / name


def test_imagenet_is_told_by_its_wordnet_ids_or_by_all_its_names(write):
    thirty = [{"id": i, "name": name} for i, name in enumerate(ImageNetVID.classes)]
    reordered = [{"id": i, "name": name} for i, name in enumerate(ImageNetVID.classes[::-1])]
    data = own(annotations=[])
    for categories in (thirty, reordered, [*thirty, {"id": 31, "name": "other_categeries"}]):
        dataset = open_coco(write(data | {"categories": categories}))
        assert isinstance(dataset, ImageNetVID)
        assert dataset.classes == ImageNetVID.classes
    assert open_coco(write(data | {"categories": thirty[:29]})).classes == ImageNetVID.classes[:29]


def test_images_that_are_not_for_training_are_left_out_where_others_are(write):
    data = own()
    data["images"][0]["is_vid_train_frame"] = False
    assert len(open_coco(write(data)).videos) == 2
    data["images"][1]["is_vid_train_frame"] = True
    dataset = open_coco(write(data))
    assert [one.name for one in dataset.videos] == ["frames/1"]
    assert dataset.objects(0, 0).track_ids.tolist() == [0, 1]
    data["annotations"][0]["image_id"] = 0  # of an image that is left out
    assert open_coco(write(data)).objects(0, 0).track_ids.tolist() == [0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (own(categories=[]), "no list 'categories'"),
        (own(categories=None), "no list 'categories'"),
        (own(categories=[5]), r"categories\[0\] is not an object"),
        (own(categories=[{"id": 1}]), r"categories\[0\] has no 'name'"),
        (own(categories=[{"id": i, "name": "door"} for i in (2, 7)]), "two 'categories' .*'door'"),
        (own(images=[]), "no videos with frames"),
        (own(images=None), "no list 'images'"),
        (own(annotations=[{"id": 1}]), "annotation 1 has no 'image_id'"),
        (video(videos=[{"id": 6, "name": "clip"}]), "image 0: no video has its 'video_id' 5"),
    ],
)
def test_a_wrong_json_is_named(write, data, message):
    with pytest.raises(DataError, match=rf"own\.json.*{message}"):
        open_coco(write(data))


def test_a_missing_json_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.json: the file cannot be read"):
        open_coco(tmp_path / "none.json")


@pytest.mark.parametrize("document", [own(), video()], ids=["images", "videos"])
def test_a_damaged_json_is_read_or_refused_in_words(write, document):
    path = write(document)
    refused = 0

    def read():
        dataset = open_coco(path)
        for number in range(len(dataset.videos)):
            assert (dataset.objects(number, 0).labels < len(dataset.classes)).all()
        return dataset

    for seed in range(500):
        path.write_bytes(damage_json(json.dumps(document), Random(seed)))
        try:
            dataset, _ = read_or_refuse(read, str(path))
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
        refused += dataset is None
    assert 0 < refused < 500
