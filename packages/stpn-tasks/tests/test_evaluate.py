"""Evaluate detectors from files: what is wrong shows first, and no number is lost."""

from pathlib import Path

import pytest

from stpn_tasks import evaluate
from stpn_tasks.detection.checkpoint import save_detector
from stpn_tasks.engine import make_accelerator
from stpn_tasks.evaluate import evaluate_files, model_names
from stpn_tasks.recipes import SupportOptions
from stpn_tasks.results import load_results


@pytest.fixture
def write(tiny, tmp_path):
    def write_detector(name, predictor="transformer", classes=("bright", "dark")):
        recipe = tiny.recipe(predictor)
        path = tmp_path / name / "model.safetensors"
        save_detector(path, tiny.detector(recipe), recipe, classes)
        return path

    return write_detector


@pytest.fixture
def run(tiny):
    def run_evaluation(*files, output=None, tell=lambda evaluations: None, **support):
        evaluate_files(
            files,
            tiny.MovingSquares(((2, 64, 96),)),
            accelerator=make_accelerator("cpu"),
            support=SupportOptions(**support),
            batch_size=1,
            motion_table=None,
            output=output,
            title="Squares",
            tell=tell,
        )

    return run_evaluation


@pytest.fixture
def not_evaluated(monkeypatch):
    def evaluate_detector(*_, **__):
        raise AssertionError("evaluated before all was checked")

    monkeypatch.setattr(evaluate, "evaluate_detector", evaluate_detector)


@pytest.mark.usefixtures("not_evaluated")
def test_a_folder_that_cannot_be_written_is_named_before_the_evaluation(write, run, tmp_path):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(OSError, match=f"cannot write in {output}: "):
            run(write("one"), output=output)


@pytest.mark.usefixtures("not_evaluated")
def test_what_is_wrong_with_the_second_detector_shows_before_the_first_is_evaluated(write, run):
    with pytest.raises(ValueError, match="the detector knows the classes"):
        run(write("one"), write("two", classes=("dark", "bright")))
    with pytest.raises(ValueError, match=r"support\.off is for prompts of support frames"):
        run(write("one"), write("static", "static"), off=True)


def test_a_report_that_fails_loses_no_number(write, run, tmp_path, monkeypatch):
    def write_report(*_):
        raise OSError("no space left")

    monkeypatch.setattr(evaluate, "write_report", write_report)
    told = []
    with pytest.raises(OSError, match="no space left"):
        run(write("one"), write("two"), output=tmp_path / "out", tell=told.append)
    assert [list(evaluations) for evaluations in told] == [["one", "two"]]
    models = load_results(tmp_path / "out/results.json").models
    assert [model.name for model in models] == ["one", "two"]
    found = told[0]["two"].precision
    assert models[1].runs[0].precision["test"]["all"].ap == pytest.approx(found["all"].ap)


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/model.safetensors", "b/model.safetensors"], ["a", "b"]),
        (["x/a/one.safetensors", "x/a/two.safetensors"], None),
        (["x/a/model.safetensors", "y/a/model.safetensors"], None),
    ],
)
def test_models_are_named_by_folders_that_differ_or_by_whole_paths(files, names):
    assert model_names([Path(file) for file in files]) == (files if names is None else names)


def test_a_file_is_not_compared_with_itself():
    files = [Path("a/model.safetensors"), Path("a/../a/model.safetensors")]
    with pytest.raises(ValueError, match=r"compared with itself: a/model\.\w+ and a/\.\./a/model"):
        model_names(files)
