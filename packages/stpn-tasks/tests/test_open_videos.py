"""What --data may be: trees, json files and own folders, one or several, with the same classes."""

import json

import cv2
import numpy as np
import pytest

from stpn_data import DataReport, ImageNetVID, det_folders_to_coco, vid_folders_to_coco
from stpn_tasks.cli import main
from stpn_tasks.detection.checkpoint import load_detector
from stpn_tasks.detection.data import count_left_out, data_title, open_videos

SMALLER = (
    *("--backbone.embed-dim", "16", "--backbone.depths", "1", "1"),
    *("--backbone.num-heads", "1", "2", "--images.test-size", "32", "--images.max-size", "64"),
    *("--head.fpn-channels", "16", "--head.fc-dim", "16", "--head.num-proposals", "10"),
    *("--optim.epoch-size", "4", "--optim.batch-size", "2", "--prompts.centre-clips", "2"),
    *("--num-workers", "0", "--device", "cpu"),
)
TABLE = """video,frame,class,left,top,right,bottom,track
a,0.png,car,1,2,30,40,1
a,1.png,car,2,2,31,40,1
a,1.png,dog,5,5,20,30,2
a,2.png
"""


def stpn(*arguments):
    main([str(argument) for argument in arguments])


def write_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((48, 64, 3), 90, np.uint8))


def write_frame(root, name, box):
    """Write an image and its XML file of one dog, or of nothing."""
    write_image(root / f"Data/{name}.JPEG")
    path = root / f"Annotations/{name}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    sides = "".join(
        f"<{n}>{v}</{n}>" for n, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=False)
    )
    dog = f"<object><trackid>0</trackid><name>n02084071</name><bndbox>{sides}</bndbox></object>"
    size = "<size><width>64</width><height>48</height></size>"
    path.write_text(f"<annotation>{size}{dog if box else ''}</annotation>")


@pytest.fixture
def ilsvrc(tmp_path):
    """A training video of two frames, the second without objects, and an image of DET."""
    root = tmp_path / "ILSVRC"
    for number in range(2):
        write_frame(root, f"VID/train/x/a/{number:06d}", [] if number else (1, 2, 30, 40))
    write_frame(root, "DET/train/n1/b", (3, 4, 50, 40))
    return root


@pytest.fixture
def own(tmp_path):
    root = tmp_path / "own"
    for split in ("train", "val"):
        for number in range(4):
            write_image(root / split / f"a/{number}.png")
        (root / split / "objects.csv").write_text(TABLE)
    (root / "classes.txt").write_text("dog\ncar\n")
    return root


def write_json(ilsvrc):
    """Write both json files of a tree where they usually are."""
    folder = ilsvrc.parent / "annotations"
    folder.mkdir()
    for name, convert in (("vid", vid_folders_to_coco), ("det", det_folders_to_coco)):
        data = convert(ilsvrc, "train", DataReport())
        (folder / f"{name}.json").write_text(json.dumps(data))
    return [str(folder / f"{name}.json") for name in ("vid", "det")]


def test_the_papers_joint_set_of_folders_and_of_json(ilsvrc):
    folders = open_videos([str(ilsvrc), str(ilsvrc / "Data/DET")], "train")
    coco = open_videos(write_json(ilsvrc), "train")
    assert list(folders.videos) == list(coco.videos)
    assert [video.name for video in folders.videos] == ["train/x/a", "train/n1/b"]
    for number in range(2):
        left, right = (one.objects(number, 0).boxes_xyxy for one in (folders, coco))
        np.testing.assert_array_equal(left, right)
        np.testing.assert_array_equal(folders.frame(number, 0), coco.frame(number, 0))
    assert folders.classes == ImageNetVID.classes


def test_both_json_files_find_their_images_in_one_tree_that_is_named(ilsvrc, tmp_path):
    paths = write_json(ilsvrc)
    moved = tmp_path / "far" / "away"
    moved.parent.mkdir()
    ilsvrc.rename(moved)
    assert open_videos(paths, "train", image_root=moved).frame(1, 0).shape == (48, 64, 3)
    with pytest.raises(ValueError, match=r"vid\.json: no images near the file"):
        open_videos(paths, "train")


def test_empty_key_frames_are_background_or_skipped(ilsvrc):
    assert open_videos(str(ilsvrc), "train").videos[0].key_frames == (0, 1)
    assert open_videos(str(ilsvrc), "train", skip_empty=True).videos[0].key_frames == (0,)


def test_own_folders_are_opened_by_split_or_alone(own):
    for data in (own, own / "val"):
        videos = open_videos(str(data), "val")
        assert videos.classes == ("dog", "car")
        assert videos.videos[0].key_frames == (0, 1, 2)
    with pytest.raises(ValueError, match=r"own/test/objects\.csv: no such file"):
        open_videos(str(own), "test")


def test_a_table_of_all_videos_does_not_stand_for_a_split_beside_those_of_others(own):
    (own / "val/objects.csv").rename(own / "objects.csv")
    assert len(open_videos(str(own), "train").videos) == 1
    with pytest.raises(ValueError, match=r"own/val/objects\.csv: no such file"):
        open_videos(str(own), "val")


def test_titles_name_the_split_where_the_data_has_splits(own):
    data = [str(own), str(own / "val"), "some.json", "generated"]
    assert data_title(data, "val") == f"{own} (val) + {own}/val + some.json + generated (val)"


def test_images_are_refused_where_they_change_nothing(ilsvrc, own, tmp_path):
    for data in (["generated"], [str(own)], [str(ilsvrc), str(ilsvrc / "Data/DET")]):
        with pytest.raises(ValueError, match=r"images are named for a \.json, not for "):
            open_videos(data, "train", image_root=tmp_path)
    mixed = [str(ilsvrc), write_json(ilsvrc)[1]]
    assert len(open_videos(mixed, "train", image_root=ilsvrc).videos) == 2


def test_what_is_wrong_with_an_annotation_shows_before_training(ilsvrc):
    (ilsvrc / "Annotations/VID/train/x/a/000001.xml").write_text("<annotation>")
    with pytest.raises(ValueError, match=r"000001\.xml"):
        count_left_out(open_videos(str(ilsvrc), "train"))


def test_training_tells_what_workers_leave_out(own, tmp_path, capsys):
    with (own / "train/objects.csv").open("a") as table:
        table.write("a,3.png,car,5,5,5,9,1\n")
    smaller = SMALLER[:-4] + ("--num-workers", "1", "--device", "cpu")
    stpn("train", "detection", "small", "--data", own, *smaller, "--output", tmp_path / "run")
    text = capsys.readouterr().out
    assert "1 x box narrower or lower than one pixel (first: a frame 3, object 0)" in text
    assert "nothing left out" not in text


def test_data_of_different_classes_is_not_joined(ilsvrc, own):
    with pytest.raises(ValueError, match="joined only where their classes"):
        open_videos([str(ilsvrc), str(own)], "train")


def test_the_joint_set_is_trained_on(ilsvrc, tmp_path, capsys):
    output = tmp_path / "run"
    data = ("--data", ilsvrc, ilsvrc / "Data/DET", "--skip-empty")
    stpn("train", "detection", "small", *data, *SMALLER, "--output", output)
    assert load_detector(output / "model.safetensors").classes == ImageNetVID.classes
    text = " ".join(capsys.readouterr().out.split())
    assert "1 x key frame without objects, not for training (first: train/x/a frame 1)" in text


def test_own_videos_are_checked_trained_on_and_evaluated(own, tmp_path, capsys):
    stpn("data", "check", own)
    assert capsys.readouterr().out.endswith("no problems\n")
    weights = tmp_path / "run/model.safetensors"
    stpn("train", "detection", "small", "--data", own, *SMALLER, "--output", weights.parent)
    assert load_detector(weights).classes == ("dog", "car")
    output = tmp_path / "out"
    command = ("eval", "detection", "--weights", weights, "--device", "cpu")
    stpn(*command, "--data", own, "--output", output)
    values = json.loads((output / "results.json").read_text())
    assert values["about"]["num_frames"] == 3
    capsys.readouterr()
    (own / "classes.txt").write_text("car\ndog\n")
    with pytest.raises(SystemExit):
        stpn(*command, "--data", own)
    assert "the detector knows the classes ('dog', 'car')" in capsys.readouterr().err


def test_a_folder_that_is_no_data_set_is_told_what_it_may_hold(own):
    for split in ("train", "val"):
        (own / split / "objects.csv").unlink()
    with pytest.raises(ValueError, match=r"own: .* has a Data/VID, nor is there objects\.csv"):
        open_videos(str(own), "train")


def test_a_json_is_named_json_before_it_is_made(ilsvrc, tmp_path, capsys):
    with pytest.raises(SystemExit):
        stpn("data", "convert", ilsvrc, tmp_path / "train")
    assert f"must be named *.json, got {tmp_path / 'train'}" in capsys.readouterr().err


def test_data_convert_goes_both_ways(ilsvrc, tmp_path, capsys):
    back = tmp_path / "back"
    for task, data, found in (
        ("VID", ilsvrc, "1 videos, 2 frames"),
        ("DET", ilsvrc / "Data/DET", "1 images"),
    ):
        path = tmp_path / f"{task}.json"
        stpn("data", "convert", data, path)
        assert capsys.readouterr().out == f"nothing left out\n{found}: {path}\n"
        stpn("data", "convert", path, back)
        number = 2 if task == "VID" else 1
        assert capsys.readouterr().out == f"nothing left out\n{number} XML files: {back}\n"
    (back / "Data").symlink_to(ilsvrc / "Data")
    names = [str(back), str(back / "Data/DET")]
    assert list(open_videos(names, "train").videos) == list(
        open_videos([str(ilsvrc), str(ilsvrc / "Data/DET")], "train").videos
    )
