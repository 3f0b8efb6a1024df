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
