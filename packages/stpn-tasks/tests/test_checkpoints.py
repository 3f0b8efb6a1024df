import errno
import json
import os
import random
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stpn_tasks.checkpoints import Checkpoints, Progress
from stpn_tasks.engine import make_accelerator

FILES = ["model.safetensors", "optimizer.bin", "random_states_0.pkl", "progress.json"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class Killed:
    """A data set's ``when_read`` that breaks off before the item that begins a step."""

    def __init__(self, items):
        self.items = items

    def __call__(self, number):
        if number == self.items:
            raise KeyboardInterrupt


def killed_fit(tiny, folder, steps, optim=None, **options):
    """Train, and break off after some steps more than the folder's."""
    optim = tiny.OPTIM if optim is None else optim
    dataset = tiny.PointSet(when_read=Killed(steps * optim.batch_size))
    with pytest.raises(KeyboardInterrupt):
        tiny.fit(tiny.Line(), dataset, optim, folder, **options)


@pytest.fixture(scope="module")
def unbroken(tiny):
    """Weights and losses of a run of twelve steps that nothing broke off."""
    model = tiny.Line()
    history = tiny.fit(model, tiny.PointSet())
    return model.state_dict(), history


def assert_as_unbroken(model, history, unbroken):
    weights, losses = unbroken
    assert history == losses
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, weights[name]), name


def go_on(tiny, folder, unbroken, **options):
    """Train to the end, after other draws; return what was read of the data."""
    torch.manual_seed(99)
    model, dataset = tiny.Line(), tiny.PointSet()
    history = tiny.fit(model, dataset, checkpoints=folder, **options)
    assert_as_unbroken(model, history, unbroken)
    return dataset.seen


@pytest.mark.parametrize("checkpoint_every", [1, 3, 100])
@pytest.mark.parametrize("steps", range(12))
def test_a_run_killed_at_any_step_goes_on_to_the_weights_of_one_that_was_not(
    tiny, tmp_path, unbroken, steps, checkpoint_every
):
    killed_fit(tiny, tmp_path, steps, checkpoint_every=checkpoint_every)
    seen = go_on(tiny, tmp_path, unbroken, checkpoint_every=checkpoint_every)
    kept = max(s for s in range(steps + 1) if s % 4 == 0 or s % checkpoint_every == 0)
    assert len(seen) == (12 - kept) * 4  # what was learned from is not read again


def test_all_generators_draw_again_what_they_drew_after_a_checkpoint(tmp_path):
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    checkpoints = Checkpoints(tmp_path, {}, make_accelerator("cpu"))
    checkpoints.save(Progress(1))
    drawn = []
    for _ in range(2):
        checkpoints.resume()
        drawn.append(draw())
    assert drawn[0] == drawn[1]


@settings(max_examples=10, deadline=None)
@given(
    kills=st.lists(st.integers(0, 5), max_size=4),
    epochs=st.integers(1, 3),
    batch_size=st.sampled_from([2, 4, 8]),
    halves=st.booleans(),
    checkpoint_every=st.integers(1, 5),
)
def test_a_run_killed_again_and_again_ends_the_same(
    tiny, tmp_path_factory, kills, epochs, batch_size, halves, checkpoint_every
):
    folder = tmp_path_factory.mktemp("run")
    optim = replace(tiny.OPTIM, epochs=epochs, batch_size=batch_size)
    options = {"accumulate": 2 if halves else 1}
    whole = tiny.Line()
    history = tiny.fit(whole, tiny.PointSet(), optim, **options)
    options["checkpoint_every"] = checkpoint_every
    for steps in kills:
        dataset = tiny.PointSet(when_read=Killed(steps * batch_size))
        with suppress(KeyboardInterrupt):
            tiny.fit(tiny.Line(), dataset, optim, folder, **options)
    resumed = tiny.Line()
    assert tiny.fit(resumed, tiny.PointSet(), optim, folder, **options) == history
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_the_last_two_checkpoints_are_kept(tiny, tmp_path):
    kept = []
    dataset = tiny.PointSet(when_read=lambda number: number % 4 or kept.append(names(tmp_path)))
    tiny.fit(tiny.Line(), dataset, checkpoints=tmp_path, checkpoint_every=3)
    assert kept[0] == kept[2] == []
    assert kept[3:6] == [["step-3"], ["step-3", "step-4"], ["step-3", "step-4"]]
    assert kept[6:8] == [["step-4", "step-6"]] * 2
    assert names(tmp_path) == ["step-12", "step-9"]


def test_a_finished_run_is_loaded_not_repeated(tiny, tmp_path, unbroken):
    go_on(tiny, tmp_path, unbroken)
    assert go_on(tiny, tmp_path, unbroken) == []


def test_a_half_written_checkpoint_is_ignored(tiny, tmp_path, unbroken):
    for half in ("step-2.partial", "step-8.partial"):
        (tmp_path / half).mkdir()
        (tmp_path / half / "model.safetensors").write_bytes(b"half")
    assert len(go_on(tiny, tmp_path, unbroken)) == 48
    assert names(tmp_path) == ["step-12", "step-8"]


def damage(path, fault):
    data = path.read_bytes()
    if fault == "cut":
        path.write_bytes(data[:-10])
    elif fault == "changed":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif fault == "gone":
        path.unlink()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("fault", ["cut", "changed", "gone"])
def test_a_damaged_last_checkpoint_is_named_and_the_one_before_used(
    tiny, tmp_path, unbroken, capsys, name, fault
):
    killed_fit(tiny, tmp_path, 7, checkpoint_every=3)
    assert names(tmp_path) == ["step-4", "step-6"]
    path = tmp_path / "step-6" / name
    damage(path, fault)
    seen = go_on(tiny, tmp_path, unbroken, checkpoint_every=3)
    assert len(seen) == 8 * 4
    said = capsys.readouterr().out
    assert f"{path} is missing or damaged: using {tmp_path / 'step-4'} instead" in said
    assert names(tmp_path) == ["step-12", "step-9"]


def test_a_number_of_the_progress_cannot_change_unnoticed(tiny, tmp_path, unbroken, capsys):
    killed_fit(tiny, tmp_path, 7, checkpoint_every=3)
    path = tmp_path / "step-6" / "progress.json"
    path.write_text(path.read_text().replace('"step": 6', '"step": 5'))
    go_on(tiny, tmp_path, unbroken)
    assert f"{path} is missing or damaged: using" in capsys.readouterr().out


def test_a_whole_checkpoint_outlives_the_damaged_one_after_it(tiny, tmp_path, unbroken):
    killed_fit(tiny, tmp_path, 7, checkpoint_every=3)
    damage(tmp_path / "step-6" / "optimizer.bin", "cut")
    killed_fit(tiny, tmp_path, 1, checkpoint_every=1)
    assert names(tmp_path) == ["step-4", "step-5"]
    assert len(go_on(tiny, tmp_path, unbroken)) == 7 * 4


def test_two_damaged_checkpoints_are_both_named(tiny, tmp_path):
    killed_fit(tiny, tmp_path, 7, checkpoint_every=3)
    damage(tmp_path / "step-4" / "optimizer.bin", "cut")
    damage(tmp_path / "step-6" / "model.safetensors", "gone")
    with pytest.raises(ValueError, match="no checkpoint in .* is whole: ") as error:
        tiny.fit(tiny.Line(), tiny.PointSet(), checkpoints=tmp_path)
    for named in ("step-4/optimizer.bin is missing or damaged", "step-6/model.safetensors is"):
        assert named in str(error.value)
    assert "remove the folder to train from the beginning" in str(error.value)


def test_checkpoints_of_an_older_version_are_not_taken_for_none(tiny, tmp_path):
    (tmp_path / "epoch-3").mkdir()
    with pytest.raises(ValueError, match=r"older version \(epoch-3\), .*: remove the folder"):
        tiny.fit(tiny.Line(), tiny.PointSet(), checkpoints=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optim": {"batch_size": 8}}, "batch_size 4 not 8"),
        ({"optim": {"lr": 0.5}}, "lr 0.05 not 0.5"),
        ({"size": 17}, "clips 16 not 17"),
        ({"seed": 1}, "seed 0 not 1"),
        ({"accumulate": 2}, "accumulate 1 not 2"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_what_differs(tiny, tmp_path, change, message):
    killed_fit(tiny, tmp_path, 5)
    optim = replace(tiny.OPTIM, **change.pop("optim", {}))
    dataset = tiny.PointSet(size=change.pop("size", 16))
    with pytest.raises(ValueError, match=rf"step-4 is of another run \({message}\)"):
        tiny.fit(tiny.Line(), dataset, optim, tmp_path, **change)
    assert names(tmp_path) == ["step-4"]


def test_a_checkpoint_of_another_number_of_processes_is_refused(tiny, tmp_path):
    killed_fit(tiny, tmp_path, 5)
    run = json.loads((tmp_path / "step-4" / "progress.json").read_text())["run"]
    assert run["processes"] == 1
    checkpoints = Checkpoints(tmp_path, run, make_accelerator("cpu"))
    checkpoints.run["processes"] = 2
    with pytest.raises(ValueError, match=r"another run \(processes 1 not 2\)"):
        checkpoints.resume()


def test_a_checkpoint_of_another_model_is_refused(tiny, tmp_path):
    killed_fit(tiny, tmp_path, 5)
    other = tiny.Line()
    other.layers[0] = nn.Linear(3, 8, bias=False)
    with pytest.raises(ValueError, match="step-4 is of another model"):
        tiny.fit(other, tiny.PointSet(), checkpoints=tmp_path)


@pytest.mark.parametrize("failing", ["save_state", "replace"])
def test_a_checkpoint_that_cannot_be_written_loses_nothing(
    tiny, tmp_path, unbroken, monkeypatch, failing
):
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(*paths):
        if Path(paths[-1]).name.startswith("step-6"):
            raise full
        return original(*paths)

    owner = Accelerator if failing == "save_state" else os
    original = getattr(owner, failing)
    monkeypatch.setattr(owner, failing, fail)
    with pytest.raises(OSError, match="cannot write the checkpoint") as error:
        tiny.fit(tiny.Line(), tiny.PointSet(), checkpoints=tmp_path, checkpoint_every=3)
    monkeypatch.undo()
    assert f"{tmp_path / 'step-6'}: No space left on device; " in str(error.value)
    assert f"{tmp_path / 'step-4'} is whole" in str(error.value)
    assert names(tmp_path) == ["step-3", "step-4"]
    assert len(go_on(tiny, tmp_path, unbroken)) == 8 * 4


@pytest.mark.parametrize("place", ["a file", "below a file", "/sys/checkpoints"])
def test_a_folder_that_cannot_be_written_is_named_before_training(tiny, tmp_path, place):
    (tmp_path / "a file").write_text("")
    folder = {"below a file": tmp_path / "a file" / "checkpoints"}.get(place, tmp_path / place)
    dataset = tiny.PointSet()
    with pytest.raises(OSError, match=f"cannot write in {folder}: [A-Z]"):
        tiny.fit(tiny.Line(), dataset, checkpoints=folder)
    assert dataset.seen == []


def test_a_step_is_counted_once_and_an_epoch_averaged():
    progress = Progress()
    for value in (1.0, 2.0, 6.0):
        progress = progress.after({"fit": value}, steps=2)
    assert progress == Progress(3, [{"fit": 1.5}], {"fit": 6.0})


def test_no_checkpoint_is_asked_for_less_than_every_step(tiny, tmp_path):
    with pytest.raises(ValueError, match="checkpoint_every must be at least 1, got 0"):
        tiny.fit(tiny.Line(), tiny.PointSet(), checkpoints=tmp_path, checkpoint_every=0)
    assert names(tmp_path) == []
