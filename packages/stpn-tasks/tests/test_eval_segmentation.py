"""What ``stpn eval segmentation`` refuses before the work, and says of its data."""

import json

import cv2
import pytest

from stpn_data import to_youtube_vis
from stpn_tasks.cli import main
from stpn_tasks.segmentation import data as data_module
from stpn_tasks.segmentation.build import build_segmenter
from stpn_tasks.segmentation.checkpoint import save_segmenter


def stpn(*arguments):
    main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def videos(tiny_segmentation, tmp_path_factory):
    return tiny_segmentation.videos(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def generated(tiny_segmentation, monkeypatch):
    """Let "generated" be the tiny clips."""
    monkeypatch.setattr(data_module, "GENERATED", {"generated": tiny_segmentation.OPTIONS})


@pytest.fixture(scope="module")
def weights(tiny_segmentation, videos, tmp_path_factory):
    """The files of STPN and of its baseline, not trained, by name."""
    folder = tmp_path_factory.mktemp("weights")
    files = {"stpn": folder / "stpn.safetensors", "minvis": folder / "minvis.safetensors"}
    for path, predictor in zip(files.values(), ("transformer", "none"), strict=True):
        recipe = tiny_segmentation.recipe(predictor)
        save_segmenter(path, build_segmenter(recipe, 6), recipe, videos.classes)
    return files


@pytest.fixture
def written(videos, tmp_path):
    """A YouTube-VIS json and its frames."""
    for number, video in enumerate(videos.videos):
        (tmp_path / "JPEGImages" / video.name).mkdir(parents=True)
        for t in range(video.num_frames):
            path = tmp_path / "JPEGImages" / video.name / f"{t:05d}.jpg"
            cv2.imwrite(str(path), videos.frame(number, t)[..., ::-1])
    (tmp_path / "valid.json").write_text(json.dumps(to_youtube_vis(videos)))
    return tmp_path / "valid.json"


@pytest.mark.parametrize("crowds_only", [False, True])
def test_annotations_without_an_object_are_refused(weights, written, tmp_path, capsys, crowds_only):
    values = json.loads(written.read_text())
    crowds = [one | {"iscrowd": 1} for one in values["annotations"]]
    values["annotations"] = crowds if crowds_only else []
    written.write_text(json.dumps(values))
    for command in (
        ("eval", "segmentation", "--weights", weights["stpn"]),
        ("train", "segmentation", "small", "--output", tmp_path / "run"),
    ):
        with pytest.raises(SystemExit):
            stpn(*command, "--data", written, "--device", "cpu")
        assert f"{written}: no object is annotated, which " in capsys.readouterr().err


@pytest.mark.parametrize("data", ["generated", "generated-large", "folder"])
def test_images_are_for_a_json_alone(tmp_path, data):
    for folder in ("JPEGImages", "Annotations"):
        (tmp_path / "folder" / folder).mkdir(parents=True)
    data = str(tmp_path / "folder") if data == "folder" else data
    with pytest.raises(ValueError, match=rf"images is for a \.json of YouTube-VIS, not for {data}"):
        data_module.open_videos(data, "val", image_root=tmp_path)


@pytest.mark.parametrize(
    "option",
    [("test-sampler", "grid"), ("test-support", 2), ("stride", 3), ("support-video", "own")],
)
def test_support_frames_of_a_segmenter_that_reads_none_are_not_chosen(
    weights, generated, tmp_path, capsys, option
):
    chosen = (f"--support.{option[0]}", option[1], "--weights", weights["minvis"])
    command = ("eval", "segmentation", "--data", "generated", "--num-videos", 1)
    for arguments in (
        command,
        (*command, "--zip-test"),
        ("predict", "segmentation", tmp_path / "clip"),
    ):
        with pytest.raises(SystemExit):
            stpn(*arguments, *chosen, "--device", "cpu", "--output", tmp_path / "out")
        name = option[0].replace("-", "_")
        assert f"support.{name} is for prompts of support frames" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_zip_has_no_headroom(weights, generated, tmp_path, capsys):
    options = ("--zip-test", "--headroom", "--output", tmp_path, "--device", "cpu")
    with pytest.raises(SystemExit):
        stpn(
            "eval", "segmentation", "--weights", weights["minvis"], "--data", "generated", *options
        )
    assert "--headroom needs annotations, and --zip-test evaluates" in capsys.readouterr().err


@pytest.mark.parametrize("data", ["generated", "json"])
def test_an_evaluation_says_which_data_it_is_of(
    weights, generated, written, tmp_path, capsys, monkeypatch, data
):
    monkeypatch.chdir(tmp_path)
    given, options = (
        ("generated", ("--num-videos", 1)) if data == "generated" else (written.name, ())
    )
    command = ("eval", "segmentation", "--weights", weights["minvis"], "--device", "cpu")
    stpn(*command, "--data", given, *options, "--output", tmp_path / "out")
    shown = capsys.readouterr().out
    about = json.loads((tmp_path / "out" / "evaluation.json").read_text())["about"]
    said = {name: about[name] for name in ("data", "split", "num_videos")}
    if data == "generated":
        assert said == {"data": "generated", "split": "val", "num_videos": 1}
        assert "; generated (val):" in " ".join(shown.split())
    else:
        assert said == {"data": str(written), "split": None, "num_videos": 2}
        assert "; valid.json:" in " ".join(shown.split())


def test_a_folder_of_parts_has_them_and_a_part_has_none(tmp_path):
    for folder in ("JPEGImages", "Annotations"):
        (tmp_path / "val" / folder).mkdir(parents=True)
    assert data_module.part_of(str(tmp_path), "val") == "val"
    assert data_module.part_of(str(tmp_path / "val"), "train") is None
