import dataclasses
import json
import os
from dataclasses import replace
from functools import partial
from typing import get_args

import pytest
import torch

from stpn_data.deteriorated import RenderOptions
from stpn_tasks import demo, sweep
from stpn_tasks.commands import comparison as commands
from stpn_tasks.comparison import factors, protocol, run, stages, workers
from stpn_tasks.comparison.options import FULL, QUICK, SMOKE, ComparisonOptions, Scale
from stpn_tasks.comparison.protocol import Row, Training, comparison_rows, trainings
from stpn_tasks.detection.build import build_detector, build_test_sampler
from stpn_tasks.detection.checkpoint import load_detector
from stpn_tasks.recipes import PromptRecipe, SelsaRecipe, small, small_baseline
from stpn_tasks.results import load_results

SCALE = Scale(4, 2, 2, 2, 2)
CLIPS = RenderOptions(
    size=(64, 64), num_frames=5, object_size=(16.0, 24.0), same_class=0.5, deteriorated=0.5
)
SETS = {
    "same_class": replace(CLIPS, same_class=1.0),
    "mixed_class": replace(CLIPS, same_class=0.0, num_objects=(2, 2)),
}


@pytest.fixture
def little(monkeypatch, tiny, tmp_path):
    """Make everything that a comparison renders and trains little; return its options."""
    recipe = tiny.recipe(deep=True, centre_clips=2)
    baseline = replace(recipe, prompts=PromptRecipe(predictor="none"))
    for module in (protocol, factors):
        monkeypatch.setattr(module, "small", lambda: recipe)
    for module in (protocol, factors, stages):
        monkeypatch.setattr(module, "small_baseline", lambda: baseline)
    for name, plain in (("small_selsa", recipe), ("small_selsa_baseline", baseline)):
        selsa = replace(plain, detector="selsa", selsa=SelsaRecipe(num_heads=2))
        monkeypatch.setattr(factors, name, lambda selsa=selsa: selsa)
    for module in (run, stages, factors):
        monkeypatch.setattr(module, "CLIPS", CLIPS)
    for module in (run, stages, demo, sweep):
        monkeypatch.setattr(module, "TEST_SETS", SETS)
    monkeypatch.setattr(ComparisonOptions, "scale", SCALE)
    return ComparisonOptions(
        output=tmp_path / "out",
        workers=1,
        mixed_precision="no",  # a process has one precision, this one is shared with other tests
        device="cpu",
        cache=tmp_path / "cache",
    )


def test_the_demo_compares_all_rows_and_writes_a_report(little, capsys):
    options = replace(little, seeds=(0, 3))
    page = demo.run_demo(options)
    assert page == options.output / "report.html"
    assert "data:image/" in page.read_text()
    results = load_results(options.output / "results.json")
    assert [model.name for model in results.models] == [row.name for row in comparison_rows(SCALE)]
    assert results.about["command"] == "stpn demo --seeds 0 3 --mixed-precision no --device cpu"
    for model in results.models:
        assert [found.seed for found in model.runs] == [0, 3]
        for found in model.runs:
            assert found.precision.keys() == SETS.keys()
            assert {"all", "deteriorated", "clean"} <= found.precision["same_class"].keys()
            assert (found.cpu_seconds is None) == (model.name == "detector")
    tested = {
        name: (options.output / "seed-0" / name / "detections-same_class.npz").read_bytes()
        for name in ("stpn", "stpn_off", "stpn_other_tested", "stpn_other")
    }
    assert len(set(tested.values())) == len(tested)
    steps = {model.name: model.runs[0].steps for model in results.models}
    assert (steps["stpn"], steps["baseline"], steps["baseline_equal_compute"]) == (2, 2, 4)
    assert steps["detector"] is None
    text = capsys.readouterr().out
    assert all(row.label.split(",")[0] in text for row in comparison_rows(SCALE))


def test_pretraining_is_a_function_of_the_seed(little):
    (space,) = run.workspaces(little)
    videos, weights = space.train_videos(CLIPS), []
    for noise in (7, 8):
        detector = build_detector(stages.small_baseline(), len(videos.classes))
        torch.manual_seed(noise)  # what went before does not matter
        stages.pretrain_on_crops(
            detector.encoder.backbone,
            videos,
            space.scale.crop_steps,
            accelerator=space.accelerator(),
            seed=space.seed,
            title="crops",
        )
        weights.append(detector.state_dict())
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())


def test_a_comparison_goes_on_where_it_stopped(little, monkeypatch):
    calls = []
    fit = stages._fit

    def counted(space, detector, recipe, videos, name, start):
        if name == "static":
            raise KeyboardInterrupt
        calls.append(name)
        fit(space, detector, recipe, videos, name, start)

    monkeypatch.setattr(stages, "_fit", counted)
    with pytest.raises(KeyboardInterrupt):
        demo.run_demo(little)
    done = list(calls)
    assert "static" not in done
    monkeypatch.setattr(stages, "_fit", lambda *a: (calls.append(a[4]), fit(*a)))
    demo.run_demo(little)
    assert sorted(calls) == sorted([*done, *(set(calls) - set(done))])  # nothing twice
    assert set(calls) - set(done) >= {"static"}
    about = load_results(little.output / "results.json").about
    assert "after an earlier start" in about["minutes"]


def test_a_folder_of_another_comparison_is_refused(little, monkeypatch):
    run.workspaces(little)
    monkeypatch.setattr(ComparisonOptions, "scale", replace(SCALE, finetune_steps=9))
    with pytest.raises(ValueError, match=r"protocol.json tells of another .* differs in scale"):
        run.workspaces(little)


def test_a_damaged_file_of_a_comparison_is_named(little):
    run.workspaces(little)
    (little.output / "protocol.json").write_text("{")
    with pytest.raises(ValueError, match=r"protocol.json cannot be read as json"):
        run.workspaces(little)


def test_weights_of_another_recipe_are_not_taken_for_this_one(little, monkeypatch):
    demo.run_demo(little)
    changed = replace(protocol.small(), optim=replace(protocol.small().optim, lr=0.5))
    monkeypatch.setattr(protocol, "small", lambda: changed)
    message = r"seed-0/stpn(_other)?/model.safetensors was trained by another recipe"
    with pytest.raises(ValueError, match=message):
        demo.run_demo(little)


def test_numbers_of_weights_that_are_gone_are_made_again(little):
    demo.run_demo(little)
    folder = little.output / "seed-0"
    (folder / "stpn" / "model.safetensors").unlink()
    (folder / "stpn_off" / "run.json").write_text("stale")
    demo.run_demo(little)
    assert "stale" not in (folder / "stpn_off" / "run.json").read_text()


def test_what_was_trained_from_weights_that_are_gone_is_refused(little):
    demo.run_demo(little)
    folder = little.output / "seed-0"
    (folder / "detector" / "model.safetensors").unlink()
    before = (folder / "stpn" / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(ValueError, match=r"detector/model.safetensors is gone.* stpn.*/seed-0 too"):
        demo.run_demo(little)
    assert (folder / "stpn" / "model.safetensors").stat().st_mtime_ns == before


def test_a_sweep_varies_one_factor_and_reuses_what_is_there(little, monkeypatch, capsys):
    demo.run_demo(little)
    calls = []
    fit = stages._fit
    monkeypatch.setattr(stages, "_fit", lambda *a: (calls.append(a[4]), fit(*a)))
    names = ("stride", "predictor", "depth", "clips", "detector")
    path = sweep.run_sweep(little, names)
    half_mixed = {"half_mixed", "half_mixed_14", "baseline_half_mixed"}
    assert set(calls) == {"mixer", "shallow", *half_mixed, "selsa", "stpn_selsa"}
    assert len(calls) == 7
    text = path.read_text()
    assert text.count("\n## ") == len(names)
    for name in names:
        assert (little.output / f"sweep-{name}.png").stat().st_size > 1000
        assert f"(sweep-{name}.png)" in text
    assert "| mixer |" in text
    assert "| baseline, half mixed |" in text
    kinds = {
        name: load_detector(little.output / "seed-0" / name / "model.safetensors").recipe.prompts
        for name in ("mixer", "shallow")
    }
    assert kinds["mixer"].predictor == "mixer"
    assert not kinds["shallow"].deep
    sweep.run_sweep(little, ["num-support"])
    assert path.read_text().count("\n## ") == len(names) + 1  # what was there stays
    results = load_results(little.output / "sweep-stride.json")
    assert results.model("stpn").label == "STPN"
    found = [
        (little.output / "seed-0" / name / "detections-same_class.npz").read_bytes()
        for name in ("stpn", "stride_1")
    ]
    assert found[0] != found[1]


def test_rows_differ_in_what_their_names_say_and_in_nothing_else():
    rows = {row.name: row for row in comparison_rows(QUICK)}
    recipes = {name: row.training.recipe for name, row in rows.items() if row.training}
    stpn, baseline = recipes["stpn"], recipes["baseline"]
    assert replace(baseline, prompts=stpn.prompts) == stpn
    assert baseline.prompts.predictor == "none"
    other = recipes["stpn_other"]
    assert other.prompts.support_video == "other"
    assert replace(other, prompts=replace(other.prompts, support_video="own")) == stpn
    static = recipes["static"].prompts
    assert (static.predictor, static.num_prompts, static.deep) == ("static", 7, True)
    longer = recipes["baseline_equal_compute"]
    assert longer.optim.epoch_size == round(QUICK.finetune_steps * QUICK.equal_compute) * 16
    assert replace(longer, optim=baseline.optim) == baseline
    assert recipes["stpn_off"] == recipes["stpn_other_tested"] == stpn
    assert rows["stpn_off"].support.off
    assert rows["stpn_other_tested"].support.support_video == "other"


@pytest.mark.parametrize("scale", [QUICK, FULL])
def test_every_factor_holds_the_small_recipe_once_and_changes_one_thing(scale):
    for name, make in factors.FACTORS.items():
        if name == "detector":
            continue
        factor = make(scale)
        assert [row.name for row in factor.rows].count("stpn") == 1
        for row in factor.rows:
            prompts = row.training.recipe.prompts
            tested = row.support.change(prompts)
            changed = {
                name
                for name, value in vars(tested).items()
                if value != getattr(small().prompts, name)
            }
            if row.training.clips is not None:
                changed |= {"clips"}
            if row.name == "mixer":  # which has no reduction
                assert changed >= {"centre_clips"}
                changed -= {"centre_clips"}
            few = 2 if row.name == "half_mixed_14" else row.name != "stpn"
            assert len(changed - {"ffn_dim"}) == few


def test_sizes_grow():
    sizes = (dataclasses.astuple(size) for size in (SMOKE, QUICK, FULL))
    assert all(a <= b <= c for a, b, c in zip(*sizes, strict=True))


def test_two_trainings_of_one_name_are_an_error():
    rows = [
        Row("a", "a", "", Training("same", small())),
        Row("b", "b", "", Training("same", small_baseline())),
    ]
    with pytest.raises(ValueError, match="named 'same'"):
        trainings(rows)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"full": True, "smoke": True}, "two sizes"),
        ({"seeds": ()}, "--seeds"),
        ({"seeds": (1, 1)}, "--seeds"),
        ({"workers": 0}, "--workers"),
    ],
)
def test_options_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        ComparisonOptions(**values)


def test_workers_are_processes_with_lines_and_threads_of_their_own():
    before = torch.get_num_threads()
    (pids, lines) = workers.in_two_stages([], [[os.getpid] * 2, [workers.line] * 2], 2)
    assert os.getpid() not in pids
    assert set(lines) <= {0, 1}
    assert torch.get_num_threads() == before
    assert workers.in_two_stages([os.getpid], [[os.getpid]], 2) == [[os.getpid()]]


def test_followers_wait_for_what_they_need(tmp_path):
    paths = [tmp_path / name for name in "abc"]
    found = workers.in_two_stages(
        [partial(path.write_text, path.name) for path in paths],
        [[path.read_text] * 2 for path in paths],
        2,
    )
    assert found == [["a", "a"], ["b", "b"], ["c", "c"]]


@pytest.mark.parametrize("stage", [0, 1])
def test_after_a_failure_nothing_else_begins(tmp_path, stage):
    bad = partial(json.loads, "{")
    others = [partial((tmp_path / str(i)).write_text, "ran") for i in range(6)]
    tasks = [bad, *others]
    first, then = (tasks, [[]] * len(tasks)) if stage == 0 else ([], [tasks])
    with pytest.raises(json.JSONDecodeError):
        workers.in_two_stages(first, then, 2)
    assert len(list(tmp_path.iterdir())) < len(others)


def test_detectors_differ_in_selsa_and_in_prompts_only():
    factor = factors.detector(QUICK)
    recipes = {row.name: row.training.recipe for row in (*factor.rows, *factor.references)}
    assert [row.name for row in factor.rows] == ["stpn", "selsa", "stpn_selsa"]
    assert recipes["stpn"].prompts == recipes["stpn_selsa"].prompts == small().prompts
    assert replace(recipes["stpn_selsa"], detector="faster-rcnn") == recipes["stpn"]
    selsa = recipes["selsa"]
    assert (selsa.detector, selsa.prompts.predictor) == ("selsa", "none")
    assert replace(selsa, prompts=small().prompts) == recipes["stpn_selsa"]
    assert build_test_sampler(selsa) == build_test_sampler(recipes["stpn"])


def test_the_command_names_every_factor():
    assert get_args(commands.Factor) == tuple(factors.FACTORS)


def test_the_command_tells_what_changes_the_numbers():
    options = ComparisonOptions(full=True, seeds=(1, 2), mixed_precision="no", device="cpu")
    expected = "stpn demo --full --seeds 1 2 --mixed-precision no --device cpu"
    assert run.as_command("demo", options) == expected
