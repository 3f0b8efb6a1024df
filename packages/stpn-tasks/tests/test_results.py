import json
import math
from dataclasses import replace

import pytest

from stpn_tasks.metrics import AveragePrecision, VidPrecision
from stpn_tasks.results import (
    Model,
    Results,
    Run,
    gain,
    load_results,
    save_results,
    statistic,
    vid_statistic,
)

NAN = math.nan


def precision(ap50, curve=()):
    return AveragePrecision(ap50 / 2, ap50, NAN, NAN, NAN, NAN, curve)


def model(name, *ap50, seeds=None):
    runs = [
        Run(seed, {"test": {"all": precision(value, (1.0, 0.5)), "fast": precision(NAN)}}, 3, 1.5)
        for seed, value in zip(seeds or range(len(ap50)), ap50, strict=True)
    ]
    return Model(name, name.upper(), f"About {name}.", tuple(runs))


def test_mean_and_spread_are_those_of_the_seeds():
    found = statistic(model("a", 0.5, 0.6, 0.7), "test", "all")
    assert (found.mean, found.spread, found.num_seeds) == pytest.approx((60, 10, 3))
    assert str(found) == "60.0 ± 10.0"


def test_one_seed_has_no_spread():
    assert str(statistic(model("a", 0.5), "test", "all")) == "50.0"


def test_what_is_not_there_is_a_dash():
    for test_set, condition in (("test", "fast"), ("test", "underwater"), ("other", "all")):
        assert str(statistic(model("a", 0.5), test_set, condition)) == "–"


def test_a_gain_is_taken_seed_by_seed():
    # Seeds vary by 30 points, the gain hardly.
    found = gain(model("b", 0.35, 0.64), model("a", 0.3, 0.6), "test", "all")
    assert (found.mean, found.spread) == pytest.approx((4.5, math.sqrt(0.5)))
    only_common = gain(model("b", 0.2, seeds=[1]), model("a", 0.9, 0.1), "test", "all")
    assert str(only_common) == "10.0"


def test_results_come_back_from_their_file(tmp_path):
    hidden = replace(model("b", 0.75), in_figures=False)
    results = Results("Title", {"command": "stpn demo"}, (model("a", 0.5, 0.25), hidden))
    save_results(tmp_path / "results.json", results)
    loaded = load_results(tmp_path / "results.json")
    assert (loaded.title, loaded.about, loaded.test_sets) == ("Title", results.about, ("test",))
    assert loaded.model("b").label == "B"
    assert [model.in_figures for model in loaded.models] == [True, False]
    for name in ("a", "b"):
        for mine, theirs in zip(loaded.model(name).runs, results.model(name).runs, strict=True):
            assert (mine.seed, mine.steps, mine.cpu_seconds) == (theirs.seed, 3, 1.5)
            # As text: numbers that are not there are NaN, which does not equal itself.
            assert repr(mine.precision["test"]["all"]) == repr(theirs.precision["test"]["all"])
            assert math.isnan(mine.precision["test"]["fast"].ap50)
    with pytest.raises(KeyError, match="no model 'c'"):
        loaded.model("c")


def vid_model(*ap50):
    values = [VidPrecision(v, {"cat": v, "dog": NAN}, {"cat": 3, "dog": 0}, 0.25) for v in ap50]
    runs = [Run(i, {"test": {}}, vid={"test": {"slow": one}}) for i, one in enumerate(values)]
    return Model("a", "A", "About a.", (*runs, Run(len(runs), {"test": {}})))


def test_numbers_by_the_rules_of_imagenet_vid_come_back_from_their_file(tmp_path):
    save_results(tmp_path / "results.json", Results("Title", {}, (vid_model(0.5, NAN),)))
    (loaded,) = load_results(tmp_path / "results.json").models
    assert [repr(run.vid) for run in loaded.runs] == [repr(r.vid) for r in vid_model(0.5, NAN).runs]
    assert loaded.runs[-1].vid == {}


def test_numbers_by_the_rules_of_imagenet_vid_are_averaged_over_the_seeds_that_have_them():
    model = vid_model(0.5, 0.6)
    assert str(vid_statistic(model, "test", "slow")) == "55.0 ± 7.1"
    assert str(vid_statistic(model, "test", "slow", "cat")) == "55.0 ± 7.1"
    for group, name in (("fast", None), ("slow", "dog"), ("slow", "eel")):
        assert str(vid_statistic(model, "test", group, name)) == "–"


def test_results_from_before_imagenet_vid_was_measured_are_read(tmp_path):
    path = tmp_path / "results.json"
    save_results(path, Results("Title", {}, (model("a", 0.5),)))
    values = json.loads(path.read_text())
    del values["models"][0]["runs"][0]["vid"]
    path.write_text(json.dumps(values))
    (run,) = load_results(path).models[0].runs
    assert run.vid == {}
    assert run.precision["test"]["all"].ap50 == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file"),
        ("{", "is not json"),
        ("{}", "is not a file of results: it lacks 'models'"),
        (json.dumps({"models": [{"name": "a"}]}), "it lacks 'label'"),
        (json.dumps({"models": 3}), "is not a file of results"),
        (json.dumps([1]), "is not a file of results"),
    ],
)
def test_a_file_that_holds_no_results_is_named(tmp_path, text, message):
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=f"results.json.* {message}"):
        load_results(path)
