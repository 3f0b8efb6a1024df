import json
import math
import re
from dataclasses import replace

import pytest
import torch

from stpn_tasks.detection.build import build_preparation, build_test_sampler
from stpn_tasks.detection.evaluation import evaluate_detector
from stpn_tasks.detection.inference import VideoInference
from stpn_tasks.engine import make_accelerator
from stpn_tasks.metrics import AveragePrecision
from stpn_tasks.report.build import evaluation_results, write_report
from stpn_tasks.report.command import merge_results, report_folders
from stpn_tasks.report.pictures import Pictures
from stpn_tasks.results import Model, Results, Run, save_results, statistic

PAGES = ("report.html", "report-pictures.json")


def model(name, seeds=(0,), test_set="test", ap50=0.5):
    runs = (
        Run(seed, {test_set: {"all": AveragePrecision(*[ap50 + seed / 10] * 6)}}) for seed in seeds
    )
    return Model(name, name.upper(), f"About {name}.", tuple(runs))


def results(*models, title="Title", **about):
    return Results(title, about, models)


@pytest.fixture(scope="module")
def evaluated(tiny):
    """Two untrained models with their detections."""
    videos = tiny.MovingSquares(((6, 64, 96), (6, 64, 96)))
    found = {}
    for name, predictor in (("baseline", "none"), ("stpn", "transformer")):
        recipe = tiny.recipe(predictor)
        prepare = build_preparation(recipe, torch.device("cpu"))
        sampler = build_test_sampler(recipe)
        inference = VideoInference(tiny.detector(recipe), sampler, prepare)
        accelerator = make_accelerator("cpu")
        found[name] = evaluate_detector(inference, videos, accelerator=accelerator, progress=False)
    return videos, found, inference


def report(path, evaluated, names=("baseline", "stpn")):
    videos, found, inference = evaluated
    results = evaluation_results(
        {name: found[name] for name in names},
        title="Evaluation",
        about={"command": "stpn eval"},
        descriptions={name: f"About {name}." for name in names},
        seed=3,
    )
    detections = {name: found[name].detections for name in names}
    write_report(path, results, Pictures(videos, detections, inference))
    return results


def test_an_evaluation_of_two_models_is_reported_with_numbers_and_pictures(evaluated, tmp_path):
    written = report(tmp_path / "report.html", evaluated)
    assert [(m.name, m.runs[0].seed) for m in written.models] == [("baseline", 3), ("stpn", 3)]
    expected = 100 * evaluated[1]["stpn"].precision["all"].ap50
    assert statistic(written.models[1], "test", "all").mean == expected
    page = (tmp_path / "report.html").read_text()
    for title in (
        "What was run",
        "Average precision",
        "Gain over baseline",
        "Where the prompts look",
    ):
        assert f">{title}</h2>" in page
    assert f"<td>{expected:.1f}</td>" in page
    assert page.count("data:image/webp") > 50


def test_an_evaluation_of_one_model_is_reported_without_a_comparison(evaluated, tmp_path):
    report(tmp_path / "report.html", evaluated, ["stpn"])
    page = (tmp_path / "report.html").read_text()
    assert "Gain" not in page
    assert ">Best and worst frames</h2>" in page


def test_pictures_are_kept_beside_the_report_and_removed_with_them(evaluated, tmp_path):
    report(tmp_path / "report.html", evaluated)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(PAGES)
    kept = json.loads((tmp_path / PAGES[1]).read_text())["sections"]
    assert [section["title"] for section in kept] == [
        "Consecutive frames",
        "Best and worst frames",
        "Where the prompts look",
    ]
    write_report(tmp_path / "report.html", results(model("a")))
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert "data:image/webp" not in (tmp_path / "report.html").read_text()


def test_without_a_model_or_with_pictures_of_another_one_nothing_is_written(evaluated, tmp_path):
    videos, found, _ = evaluated
    with pytest.raises(ValueError, match="there is no model to write .*report.html about"):
        write_report(tmp_path / "report.html", results())
    pictures = Pictures(videos, {"stpn": found["stpn"].detections})
    with pytest.raises(KeyError, match="no model 'stpn'"):
        write_report(tmp_path / "report.html", results(model("a")), pictures)
    assert list(tmp_path.iterdir()) == []


def test_names_are_escaped_everywhere(tmp_path):
    name = '<b>"x"</b>'
    hostile = replace(model(name, test_set=name), label=name, about=name)
    other = replace(hostile, name="other")
    write_report(tmp_path / "report.html", results(hostile, other, title=name, **{name: name}))
    page = (tmp_path / "report.html").read_text()
    assert "<b>" not in page
    assert page.count("&lt;b&gt;&quot;x&quot;&lt;/b&gt;") > 10


def test_a_report_without_any_number_can_be_written(tmp_path):
    empty = Run(0, {"test": {"all": AveragePrecision(*[math.nan] * 6)}})
    models = (Model("a", "A", "About.", (empty,)), Model("b", "B", "About.", ()))
    write_report(tmp_path / "report.html", results(*models))
    assert "A –, B –; gain – points (0 seeds)" in (tmp_path / "report.html").read_text()


def test_seeds_of_several_folders_become_one_report(evaluated, tmp_path):
    for seed in (1, 0):
        about = {"command": f"stpn demo --seed {seed}", "environment": {"commit": "abc"}}
        given = results(model("a", [seed]), model("b", [seed], ap50=0.6), title=f"{seed}", **about)
        save_results(tmp_path / str(seed) / "results.json", given)
    report(tmp_path / "0" / "report.html", evaluated)
    output = tmp_path / "new" / "all.html"
    folders = [tmp_path / "1", tmp_path / "0" / "results.json"]
    assert report_folders(folders, output) == output
    page = output.read_text()
    assert "A 55.0 ± 7.1, B 65.0 ± 7.1; gain +10.0 ± 0.0 points (2 seeds)" in page
    assert ">Consecutive frames</h2>" in page  # the pictures of the first folder that has some
    for seed in (0, 1):
        key = f"command, {tmp_path / str(seed) / 'results.json'}"
        assert f"<dt>{key}</dt><dd><code>stpn demo --seed {seed}</code></dd>" in page
    assert "<dt>commit</dt><dd>abc</dd>" in page
    assert [path.name for path in output.parent.iterdir()] == ["all.html"]


def test_runs_are_merged_by_model_in_the_order_of_their_seeds(tmp_path):
    found = {
        tmp_path / "x": results(model("a", [2, 0]), title="First"),
        tmp_path / "y": results(model("b", [0]), model("a", [1]), title="Second"),
    }
    merged = merge_results(found)
    assert merged.title == "First"
    assert [(m.name, [run.seed for run in m.runs]) for m in merged.models] == [
        ("a", [0, 1, 2]),
        ("b", [0]),
    ]


def test_results_that_do_not_fit_are_named(tmp_path):
    for name, given in (
        ("a", model("m", [0])),
        ("b", model("m", [0, 1])),
        ("c", model("m", [2], test_set="other")),
    ):
        save_results(tmp_path / name / "results.json", results(given))
    a, b, c = (tmp_path / name for name in "abc")
    output = tmp_path / "report.html"
    for paths, message in (
        ([a, b], f"{b / 'results.json'} has seed 0 of the model 'm', as has {a / 'results.json'}"),
        ([a, c], f"{c / 'results.json'} has the test sets ['other'], "),
        ([a, a / "results.json"], f"{a / 'results.json'} is named more than once"),
        ([tmp_path], f"{tmp_path / 'results.json'} cannot be read"),
        ([], "name at least one file or folder"),
    ):
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            report_folders(paths, output)
    assert not output.exists()
