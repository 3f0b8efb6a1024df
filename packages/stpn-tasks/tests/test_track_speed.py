"""The speed of trackers: which frames are timed as what, and the arithmetic of the table."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from stpn_data import CausalSampler
from stpn_tasks.cli import main
from stpn_tasks.commands.bench import bench_tracking
from stpn_tasks.tracking import speed
from stpn_tasks.tracking.build import build_network, build_tracker_options
from stpn_tasks.tracking.options import TrackerOptions
from stpn_tasks.tracking.recipes import small, small_baseline
from stpn_tasks.tracking.speed import (
    TrackingSpeedOptions,
    measure_tracking_speed,
    work_of,
)

OPTIONS = TrackingSpeedOptions(torch.device("cpu"), num_frames=8, rounds=2, size=(48, 64))
FOLLOW = TrackerOptions(update_interval=4, support=CausalSampler(2, 3))


def by_name(rows):
    return {row.name: row for row in rows}


@pytest.fixture(scope="module", params=["searched", "target"])
def crop(request):
    return request.param


@pytest.fixture(scope="module")
def found(crop):
    recipe = small()
    recipe = replace(
        recipe,
        follow=replace(recipe.follow, update_interval=5),
        prompts=replace(recipe.prompts, support_crop=crop),
    )
    return measure_tracking_speed(recipe, OPTIONS, progress=False)


def test_every_kind_of_frame_is_timed_for_both_trackers(found, crop):
    rows = by_name(found.frames)
    assert {name: row.number for name, row in rows.items()} == {
        "between": 1,  # frame 2
        "support": 2,  # 3 and 6
        "prompts": 3,  # 1, 4 and 7
        "templates": 1,  # 5
        "first": 1,
        "amortised": 7,
    }
    for row in rows.values():
        assert row.plain_seconds > 0
        assert row.prompted_seconds > 0
        assert row.quartiles[0] <= row.ratio <= row.quartiles[1]
    # A support frame passes twice, of the target alone a quarter more; prompts, which pass with the
    # search crop, cost a little.
    share = 0.25 if crop == "target" else 1
    assert rows["between"].passes == rows["prompts"].passes == rows["templates"].passes == 1
    assert rows["support"].passes == 1 + share
    assert rows["amortised"].passes == pytest.approx(1 + 2 / 7 * share)
    assert rows["first"].passes is None
    assert 1 < rows["between"].operations < rows["prompts"].operations < 1.5
    between, support = rows["between"].operations, rows["support"].operations
    # A small crop's tokens also see fewer of their like.
    assert between + 0.85 * share < support < between + 1.01 * share
    assert rows["templates"].plain_gmacs > rows["between"].plain_gmacs


def test_the_memory_of_the_support_is_told(found, crop):
    prompts = small().prompts
    size = 64 if crop == "target" else 128
    tokens, width = (size // 16) ** 2, 32  # the predictor reduces to dims[0]
    assert found.support_frames == prompts.num_support + 1
    assert found.support_bytes == 4 * found.support_frames * tokens * width


@pytest.mark.parametrize("num_frames", [2, 4, 8])
def test_passes_are_those_of_the_tracker(num_frames):
    recipe = small()
    network = build_network(recipe, score=True, load_weights=False).eval()
    plain = build_network(small_baseline(), score=True, load_weights=False).eval()
    follow = build_tracker_options(recipe)
    passes = {"plain": 0, "prompted": 0}
    for name, one in (("plain", plain), ("prompted", network)):
        search = one.backbone.search

        def counted(*args, name=name, search=search):
            passes[name] += 1
            return search(*args)

        one.backbone.search = counted
    speed._Pair(plain, network, follow, OPTIONS).follow(num_frames)
    assert passes["plain"] == num_frames - 1
    stride = recipe.prompts.stride
    support_passes = 1 + (num_frames - 1) // stride
    assert passes["prompted"] == num_frames - 1 + support_passes
    predicted = [1 + follow.support.embeds(frame) for frame in range(1, num_frames)]
    assert passes["prompted"] == 1 + sum(predicted)  # the first frame has the support pass alone


def test_frames_are_told_apart_by_what_they_cost():
    kinds = [work_of(frame, FOLLOW) for frame in range(13)]
    assert kinds[:7] == ["first", "prompts", "between", "support", "several", "between", "support"]
    assert kinds[7:] == ["prompts", "templates", "support", "prompts", "between", "several"]
    assert work_of(4, replace(FOLLOW, update_interval=None)) == "prompts"
    every = replace(FOLLOW, update_interval=None, support=CausalSampler(2, 1))
    assert {work_of(frame, every) for frame in range(1, 9)} == {"support"}


def test_ratios_are_taken_pair_by_pair_and_amortised_round_by_round():
    follow = replace(FOLLOW, update_interval=None)
    plain = np.array([[9.0, 1, 2, 1], [9, 10, 20, 10]])  # the second round on a busy machine
    prompted = plain * [1, 1.5, 1.25, 2]
    macs = np.array([[1.0, 2], [4, 6], [4, 5], [4, 9]])
    rows = by_name(speed._summary(np.stack([plain, prompted], axis=-1), macs, follow))
    assert rows["between"].ratio == 1.25
    assert rows["between"].plain_seconds == 11
    assert rows["support"].ratio == 2
    assert rows["support"].operations == 2.25
    assert rows["amortised"].ratio == (1.5 + 2.5 + 2) / 4
    assert rows["amortised"].plain_seconds == pytest.approx((4 + 40) / 3 / 2)
    assert rows["amortised"].operations == 20 / 12
    assert rows["amortised"].passes == pytest.approx(4 / 3)
    assert "templates" not in rows


@pytest.mark.without_shape_checks
def test_both_trackers_begin_in_turns(monkeypatch):
    order = []
    pair = speed._Pair.__new__(speed._Pair)
    pair.plain, pair.prompted = "plain", "prompted"
    monkeypatch.setattr(pair, "_frames", range, raising=False)
    monkeypatch.setattr(pair, "_time", lambda tracker, _: order.append(tracker) or tracker)
    for swapped in (False, True):
        order.clear()
        assert pair.follow(3, swapped=swapped) == [("plain", "prompted")] * 3
        first = ["prompted", "plain"] if swapped else ["plain", "prompted"]
        assert order == [*first, *first[::-1], *first]


def test_the_command_prints_and_writes_the_numbers(capsys, tmp_path, monkeypatch):
    path = tmp_path / "new" / "speed.json"
    arguments = ["bench", "tracking", "small", "--frames", "4", "--rounds", "1"]
    arguments += ["--height", "48", "--width", "64", "--device", "cpu", "--output", str(path)]
    monkeypatch.setattr(sys, "argv", ["stpn", *arguments])
    main(arguments)
    text = capsys.readouterr().out
    for kind in ("between", "support", "prompts", "first", "amortised"):
        assert f"│ {kind} " in text
    written = json.loads(path.read_text())
    assert written["about"]["command"].startswith("stpn bench tracking small --frames 4")
    assert [one["number"] for one in written["frames"]] == [1, 1, 1, 1, 3]
    assert written["support_frames"] == 5


def test_what_cannot_be_timed_is_named():
    with pytest.raises(ValueError, match="a recipe with prompts is needed, not predictor 'none'"):
        bench_tracking("small-baseline", frames=4, device="cpu")
    for wrong, message in (
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"num_frames": 1}, "frames must be at least 2, got 1"),
        ({"size": (0, 64)}, r"size must be \(height, width\) of at least 1, got \(0, 64\)"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(OPTIONS, **wrong)
