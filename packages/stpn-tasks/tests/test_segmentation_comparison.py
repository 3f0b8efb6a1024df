"""The comparison of segmenters: it runs whole, goes on where it stopped, and says what differs."""

from __future__ import annotations

import json
import shutil

import pytest

from stpn_tasks.cli import main
from stpn_tasks.segmentation.comparison.protocol import ASSOCIATED, ASSOCIATIONS, ROWS, SCALES


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A whole comparison at the size of a smoke test; its folder and cache."""
    root = tmp_path_factory.mktemp("segmentation-comparison")
    run(root)
    return root


def run(root, *options):
    main(
        [
            *("demo", "segmentation", "--smoke", "--output", str(root / "out")),
            *("--cache", str(root / "cache"), "--workers", "1", "--device", "cpu"),
            *(options or ("--mixed-precision", "no")),
        ]
    )


def read(root):
    return json.loads((root / "out" / "segmentation-results.json").read_text())


def test_every_row_has_numbers_of_every_test(ran):
    rows = {row["name"]: row["seeds"]["0"] for row in read(ran)["rows"]}
    assert list(rows) == [row.name for row in ROWS]
    for name, numbers in rows.items():
        assert {"all", "deteriorated", "clean"} <= numbers["frames"].keys()
        assert numbers["num_windows"] > 0
        for one in (numbers["video"], numbers["windows"], numbers["headroom"]["oracle"]):
            assert 0 <= one["ap"] <= 100
        beyond = [other for other in ASSOCIATIONS if other != "MinVIS"]
        assert list(numbers.get("associations", [])) == (beyond if name in ASSOCIATED else [])


def test_steps_and_cost_are_told(ran):
    rows = {row["name"]: row["seeds"]["0"] for row in read(ran)["rows"]}
    smoke = SCALES["smoke"]
    assert rows["stpn"]["steps"] == rows["baseline"]["steps"] == smoke.finetune_steps
    longer = round(smoke.finetune_steps * smoke.equal_compute)
    assert rows["baseline_equal_compute"]["steps"] == longer > smoke.finetune_steps
    assert all(row["cpu_seconds"] > 0 for row in rows.values())


def test_another_run_makes_nothing_again_and_gives_the_same_numbers(ran):
    before = read(ran)
    weights = ran / "out" / "segmentation-seed-0" / "stpn" / "model.safetensors"
    made = weights.stat().st_mtime_ns
    run(ran)
    assert weights.stat().st_mtime_ns == made
    assert read(ran)["rows"] == before["rows"]


def test_a_training_that_is_made_again_is_tested_again(ran):
    seed = ran / "out" / "segmentation-seed-0"
    before = {path.name: path.stat().st_mtime_ns for path in (seed / "tests").iterdir()}
    shutil.rmtree(seed / "stpn")
    run(ran)
    after = {path.name: path.stat().st_mtime_ns for path in (seed / "tests").iterdir()}
    assert before.keys() == after.keys()
    made = {name for name in before if after[name] != before[name]}
    of_stpn = ("stpn-", "stpn_off-", "stpn_other_tested-")
    assert made == {name for name in before if name.startswith(of_stpn)}


def test_what_was_trained_from_a_backbone_that_is_gone_is_refused(ran, capsys):
    backbone = ran / "out" / "segmentation-seed-0" / "backbone"
    backbone.rename(backbone.with_name("away"))
    try:
        with pytest.raises(SystemExit):
            run(ran)
    finally:
        backbone.with_name("away").rename(backbone)
    assert "backbone/model.safetensors is gone" in " ".join(capsys.readouterr().err.split())


def test_a_folder_of_another_comparison_is_refused(ran):
    with pytest.raises(SystemExit):
        run(ran, "--mixed-precision", "bf16")
