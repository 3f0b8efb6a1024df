"""``stpn analyze`` from the command line: files, the joined report, and wrong input."""

import json
import re

import cv2
import pytest

from stpn_tasks.cli import main
from stpn_tasks.detection.checkpoint import save_detector

DATA = ("--data", "generated", "--num-videos", "2", "--device", "cpu")
CAM_TITLE = "Where the features have contrast (EigenCAM)"
SCORE_TITLE = "What the scores rest on (EigenCAM, target score)"
TSNE_TITLE = "Features of objects (t-SNE)"


def stpn(*arguments):
    main([str(argument) for argument in arguments])


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        stpn(*arguments)
    assert exit_.value.code == 1
    error = capsys.readouterr().err
    return next(line for line in reversed(error.splitlines()) if line.startswith("stpn: error:"))


@pytest.fixture(scope="module")
def weights(tiny, tmp_path_factory):
    """A baseline and a prompted detector, untrained, of the classes of generated video."""
    from stpn_tasks.detection.data import open_videos

    classes = tuple(open_videos("generated", "val", num_videos=1).classes)
    folder, files = tmp_path_factory.mktemp("weights"), {}
    for name, predictor in (("baseline", "none"), ("stpn", "transformer")):
        recipe = tiny.recipe(predictor)
        files[name] = folder / name / "model.safetensors"
        files[name].parent.mkdir()
        save_detector(files[name], tiny.detector(recipe, len(classes)), recipe, classes)
    return files


@pytest.fixture(scope="module")
def analysed(weights, tmp_path_factory):
    """An evaluated folder in which everything was analysed."""
    output = tmp_path_factory.mktemp("evaluation")
    both = ("--weights", weights["stpn"], "--baseline", weights["baseline"], "--output", output)
    stpn("eval", "detection", *both, *DATA)
    stpn("analyze", "cam", *both, *DATA, "--num-frames", 6)
    stpn("analyze", "cam", *both, *DATA, "--num-frames", 6, "--target", "score")
    stpn("analyze", "tsne", *both, *DATA, "--num-frames", 16)
    return output


def titles(page):
    return re.findall(r"<h2[^>]*>([^<]*)</h2>", page.read_text())


def test_numbers_of_both_models_are_written(analysed, weights):
    cam = json.loads((analysed / "analysis-cam.json").read_text())
    assert cam["about"]["weights"] == {name: str(weights[name]) for name in ("baseline", "stpn")}
    assert list(cam["numbers"]["in_boxes"]) == ["baseline", "stpn"]
    for by_condition in cam["numbers"]["in_boxes"].values():
        assert by_condition["all"]["num_frames"] == 6
        assert 0 < by_condition["all"]["in_boxes"] < 1
    tsne = json.loads((analysed / "analysis-tsne.json").read_text())
    assert tsne["numbers"]["seed"] == 0
    for by_group in tsne["numbers"]["clusters"].values():
        assert by_group["all"]["num_objects"] >= 16
        assert -1 <= by_group["all"]["silhouette"] <= 1


def test_pictures_are_written(analysed):
    names = sorted(path.name for path in (analysed / "cam").iterdir())
    assert len(names) == 2 * 2 * 6  # models, strips, frames
    assert re.fullmatch(r"val-\d{6}-\d{6}-baseline\.png", names[0])
    assert cv2.imread(str(analysed / "cam" / names[0])).shape == (336, 336, 3)
    assert cv2.imread(str(analysed / "tsne.png")).shape[1] > 600


def test_all_join_the_report_of_the_evaluation(analysed):
    found = titles(analysed / "report.html")
    assert found[-3:] == [CAM_TITLE, SCORE_TITLE, TSNE_TITLE]
    assert "Average precision" in found
    page = (analysed / "report.html").read_text()
    for name in ("baseline", "stpn"):
        assert f"map of {name}" in page
        assert f"t-SNE of {name}" in page


def test_a_report_written_anew_keeps_them(analysed, tmp_path):
    stpn("report", analysed, "--output", tmp_path / "again.html")
    assert titles(tmp_path / "again.html") == titles(analysed / "report.html")


def test_an_analysis_made_again_replaces_the_earlier_one(analysed, weights, tmp_path):
    for name in ("results.json", "analysis-tsne.json"):
        (tmp_path / name).write_bytes((analysed / name).read_bytes())
    one = ("--weights", weights["stpn"], "--output", tmp_path)
    stpn("analyze", "tsne", *one, *DATA, "--num-frames", 16, "--seed", 3)
    assert titles(tmp_path / "report.html").count(TSNE_TITLE) == 1
    values = json.loads((tmp_path / "analysis-tsne.json").read_text())
    assert values["numbers"]["seed"] == 3
    assert list(values["numbers"]["clusters"]) == ["stpn"]


def test_another_evaluation_in_the_folder_removes_them(analysed, weights, tmp_path):
    (tmp_path / "analysis-cam.json").write_bytes((analysed / "analysis-cam.json").read_bytes())
    one = ("--weights", weights["baseline"], "--output", tmp_path)
    stpn("eval", "detection", *one, *DATA)
    assert not (tmp_path / "analysis-cam.json").exists()
    assert CAM_TITLE not in titles(tmp_path / "report.html")


def test_without_an_evaluation_there_is_no_report(weights, tmp_path, capsys):
    one = ("--weights", weights["baseline"], "--output", tmp_path)
    stpn("analyze", "cam", *one, *DATA, "--num-frames", 2)
    assert "report" not in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["analysis-cam.json", "cam"]


def test_wrong_input_is_one_line(weights, tiny, tmp_path, capsys):
    one = ("--weights", weights["baseline"], "--output", tmp_path, *DATA)
    said = refused(capsys, "analyze", "tsne", *one, "--num-frames", 2)
    assert "t-SNE needs 10 objects at least" in said
    assert "num_frames must be at least 1" in refused(
        capsys, "analyze", "cam", *one, "--num-frames", 0
    )
    missing = ("--weights", tmp_path / "none.safetensors", "--output", tmp_path, *DATA)
    assert "none.safetensors" in refused(capsys, "analyze", "cam", *missing)
    other = tmp_path / "other" / "model.safetensors"
    other.parent.mkdir()
    recipe = tiny.recipe("none")
    save_detector(other, tiny.detector(recipe), recipe, ("bright", "dark"))
    said = refused(capsys, "analyze", "cam", "--weights", other, "--output", tmp_path, *DATA)
    assert f"the detector in {other} knows the classes ('bright', 'dark')" in said


def test_a_damaged_analysis_is_named(analysed, tmp_path, capsys):
    (tmp_path / "results.json").write_bytes((analysed / "results.json").read_bytes())
    (tmp_path / "analysis-cam.json").write_text('{"sections": 3}')
    said = refused(capsys, "report", tmp_path, "--output", tmp_path / "report.html")
    assert "analysis-cam.json is not a file of pictures" in said
