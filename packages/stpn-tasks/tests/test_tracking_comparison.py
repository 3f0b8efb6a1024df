"""The comparison of trackers: it runs whole, goes on where it stopped, and says what differs."""

from __future__ import annotations

import json

import pytest

from stpn_tasks.cli import main
from stpn_tasks.tracking.comparison.protocol import DIFFERENCES, ROWS, SCALES


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A whole comparison at the size of a smoke test; its folder and cache."""
    root = tmp_path_factory.mktemp("tracking-comparison")
    run(root)
    return root


def run(root, *options):
    main(
        [
            *("demo", "tracking", "--smoke", "--output", str(root / "out")),
            *("--cache", str(root / "cache"), "--workers", "1", "--device", "cpu"),
            *(options or ("--mixed-precision", "no")),
        ]
    )


def read(root):
    return json.loads((root / "out" / "tracking-results.json").read_text())


def test_every_row_has_numbers_of_every_test(ran):
    results = read(ran)
    assert [row["name"] for row in results["rows"]] == [row.name for row in ROWS]
    for row in results["rows"]:
        numbers = row["seeds"]["0"]
        for test in ("step_first", "step_recent", "track_first", "track_recent"):
            assert 0 <= numbers[test]["all"]["ao"] <= 100
            assert numbers[test]["all"]["frames"] > 10
    assert {(one["of"], one["minus"]) for one in results["differences"]} == set(DIFFERENCES)
    assert results["gates"]["0"]["all"]["frames"] > 10


def test_steps_and_cost_are_told(ran):
    rows = {row["name"]: row["seeds"]["0"] for row in read(ran)["rows"]}
    smoke = SCALES["smoke"]
    assert rows["stpn"]["steps"] == rows["baseline"]["steps"] == smoke.tracker_steps
    assert rows["baseline_equal_compute"]["steps"] == smoke.tracker_steps * smoke.equal_compute
    assert all(row["cpu_seconds"] > 0 for row in rows.values())


def test_another_run_makes_nothing_again_and_gives_the_same_numbers(ran):
    before = read(ran)
    weights = ran / "out" / "tracking-seed-0" / "stpn" / "model.safetensors"
    made = weights.stat().st_mtime_ns
    run(ran)
    after = read(ran)
    assert weights.stat().st_mtime_ns == made
    assert after["rows"] == before["rows"]
    assert after["differences"] == before["differences"]


def test_what_was_trained_from_a_backbone_that_is_gone_is_refused(ran, capsys):
    backbone = ran / "out" / "tracking-seed-0" / "backbone"
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
