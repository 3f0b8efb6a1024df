import json
import math
from dataclasses import dataclass, replace

import pytest
import torch
from accelerate import debug_launcher
from accelerate.state import AcceleratorState
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from stpn_tasks.engine import (
    EpochSampler,
    evaluate,
    learning_rate_factor,
    make_accelerator,
    parameter_groups,
    train,
)
from stpn_tasks.recipes import OptimRecipe

OPTIM = OptimRecipe(lr=0.05, weight_decay=0.0, batch_size=4, epochs=3, warmup_steps=0)


@dataclass(frozen=True)
class Points:
    inputs: Tensor
    targets: Tensor

    def to(self, device):
        return Points(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class LineLosses:
    fit: Tensor
    size: Tensor

    @property
    def total(self):
        return self.fit + self.size


class Line(nn.Module):
    """Fit a line; dropout makes training depend on torch's generator."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.1), nn.Linear(8, 1))

    def forward(self, batch):
        error = self.layers(batch.inputs).squeeze(1) - batch.targets
        return LineLosses(error.square().mean(), 0.0 * error.sum())


class PointSet:
    """Points of a plane whose noise depends on the epoch; may break off."""

    def __init__(self, size=16, breaks_in=None):
        self.size = size
        self.breaks_in = breaks_in
        self.epoch = 0
        self.seen = []

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        if self.epoch == self.breaks_in and len(self.seen) % 3 == 2:
            raise KeyboardInterrupt
        self.seen.append((self.epoch, i))
        generator = torch.Generator().manual_seed(1000 * self.epoch + i)
        inputs = torch.randn(3, generator=generator)
        return inputs, inputs.sum()


def collate(items):
    return Points(*(torch.stack(column) for column in zip(*items, strict=True)))


def fit(model, dataset, optim=OPTIM, checkpoints=None, seed=0):
    return train(
        model,
        dataset,
        collate,
        optim,
        accelerator=make_accelerator("cpu"),
        seed=seed,
        checkpoints=checkpoints,
        progress=False,
    )


def test_the_paper_schedule_warms_up_from_a_third_and_decays_after_epoch_six():
    optim = OptimRecipe(warmup_steps=500, schedule="step", decay_epoch=6)
    factor = [learning_rate_factor(step, optim, 1000) for step in (0, 250, 500, 5999, 6000, 8999)]
    assert factor == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0, 0.1, 0.1])


def test_the_cosine_schedule_falls_to_zero_over_all_epochs():
    optim = OptimRecipe(warmup_steps=0, schedule="cosine", epochs=2)
    assert learning_rate_factor(0, optim, 50) == pytest.approx(1.0)
    assert learning_rate_factor(25, optim, 50) == pytest.approx(0.5 * (1 + math.sqrt(0.5)))
    assert learning_rate_factor(50, optim, 50) == pytest.approx(0.5)
    assert learning_rate_factor(100, optim, 50) == pytest.approx(0.0)


@given(st.integers(1, 20), st.integers(1, 50), st.integers(0, 5), st.integers(0, 5))
def test_the_order_is_a_function_of_seed_and_epoch(num_items, epoch_size, seed, epoch):
    def order(seed, epoch):
        sampler = EpochSampler(num_items, epoch_size, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    drawn = order(seed, epoch)
    assert drawn == order(seed, epoch)
    assert len(drawn) == epoch_size
    for start in range(0, epoch_size - num_items + 1, num_items):
        assert sorted(drawn[start : start + num_items]) == list(range(num_items))
    rest = drawn[epoch_size - epoch_size % num_items :]
    assert len(set(rest)) == len(rest)


def test_epochs_and_seeds_differ_in_order():
    sampler = EpochSampler(50, 50, seed=0)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first != list(EpochSampler(50, 50, seed=1))


def test_norms_and_position_tables_do_not_decay_and_frozen_parameters_are_left_out():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1 = nn.LayerNorm(2)
            self.linear = nn.Linear(2, 2)
            self.relative_position_bias_table = nn.Parameter(torch.zeros(9, 1))
            self.queries = nn.Parameter(torch.zeros(3, 2))
            self.frozen = nn.Parameter(torch.zeros(7), requires_grad=False)

    block = Block()
    groups = parameter_groups(block, replace(OPTIM, weight_decay=0.05))
    decayed, kept = sorted(groups, key=lambda group: -group["weight_decay"])
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.05, 0.0)
    assert decayed["factor"] == kept["factor"] == 1.0
    assert {id(p) for p in decayed["params"]} == {
        id(p) for p in (block.queries, block.linear.weight, block.linear.bias)
    }
    assert {id(p) for p in kept["params"]} == {
        id(p) for p in (block.norm1.weight, block.norm1.bias, block.relative_position_bias_table)
    }


def test_the_backbone_has_a_rate_of_its_own():
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    groups = parameter_groups(model, replace(OPTIM, backbone_factor=0.1))
    factors = {id(p): group["factor"] for group in groups for p in group["params"]}
    assert factors[id(model["backbone"].weight)] == 0.1
    assert factors[id(model["head"].bias)] == 1.0


def test_training_learns_and_returns_the_losses_of_every_epoch():
    history = fit(Line(), PointSet(), replace(OPTIM, epochs=20))
    assert len(history) == 20
    assert history[0].keys() == {"fit", "size"}
    assert history[-1]["fit"] < 0.3 * history[0]["fit"]


def test_every_epoch_sees_every_item_once_with_the_draws_of_that_epoch():
    dataset = PointSet()
    fit(Line(), dataset)
    for epoch in range(3):
        assert sorted(i for e, i in dataset.seen if e == epoch) == list(range(16))


def test_training_is_a_function_of_the_seed():
    models = [Line() for _ in range(3)]
    for model, seed, noise in zip(models, (0, 0, 1), (7, 8, 7), strict=True):
        torch.manual_seed(noise)  # what went before does not matter
        fit(model, PointSet(), seed=seed)
    weights = [model.layers[0].weight for model in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("breaks_in", [1, 2])
def test_a_run_that_was_killed_goes_on_to_the_weights_of_one_that_was_not(tmp_path, breaks_in):
    whole, broken, resumed = Line(), Line(), Line()
    history = fit(whole, PointSet())
    with pytest.raises(KeyboardInterrupt):
        fit(broken, PointSet(breaks_in=breaks_in), checkpoints=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"epoch-{breaks_in}"]
    torch.manual_seed(99)
    dataset = PointSet()
    assert fit(resumed, dataset, checkpoints=tmp_path) == history
    assert {epoch for epoch, _ in dataset.seen} == set(range(breaks_in, 3))
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_a_finished_run_is_loaded_not_repeated(tmp_path):
    model, again, dataset = Line(), Line(), PointSet()
    history = fit(model, PointSet(), checkpoints=tmp_path)
    assert fit(again, dataset, checkpoints=tmp_path) == history
    assert dataset.seen == []
    assert torch.equal(model.layers[0].weight, again.layers[0].weight)


def test_a_half_written_checkpoint_is_ignored(tmp_path):
    partial = tmp_path / "epoch-1.partial"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    assert len(fit(Line(), PointSet(), checkpoints=tmp_path)) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-3"]


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.bin", "random_states_0.pkl", "progress.json"]
)
@pytest.mark.parametrize("fault", ["cut", "gone"])
def test_a_damaged_checkpoint_is_named(tmp_path, name, fault):
    fit(Line(), PointSet(), checkpoints=tmp_path)
    path = tmp_path / "epoch-3" / name
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        path.unlink()
    with pytest.raises(ValueError, match=f"{name}.*remove .*epoch-3 to train"):
        fit(Line(), PointSet(), checkpoints=tmp_path)


def test_a_checkpoint_of_other_data_or_another_model_is_refused(tmp_path):
    fit(Line(), PointSet(), checkpoints=tmp_path)
    with pytest.raises(ValueError, match="run on 16 clips, this data set has 17"):
        fit(Line(), PointSet(size=17), checkpoints=tmp_path)
    other = Line()
    other.layers[0] = nn.Linear(3, 8, bias=False)
    with pytest.raises(ValueError, match="epoch-3 is of another model"):
        fit(other, PointSet(), checkpoints=tmp_path)


def test_a_loss_that_is_not_finite_names_the_step_and_the_losses():
    class Exploding(Line):
        calls = 0

        def forward(self, batch):
            losses = super().forward(batch)
            self.calls += 1
            return losses if self.calls < 6 else replace(losses, size=losses.size + math.nan)

    with pytest.raises(FloatingPointError, match=r"step 5: \{'fit': .*, 'size': nan\}"):
        fit(Exploding(), PointSet())


def test_nothing_to_train_on_is_said():
    with pytest.raises(ValueError, match="no key frames"):
        fit(Line(), PointSet(size=0))


def test_a_data_set_smaller_than_a_batch_is_trained_on():
    dataset = PointSet(size=3)
    assert len(fit(Line(), dataset, replace(OPTIM, batch_size=8))) == 3
    assert len(dataset.seen) == 9


@pytest.mark.parametrize("device", ["tpu-9", "mps" if torch.cuda.is_available() else "cuda"])
def test_a_device_that_is_not_there_is_named(device):
    with pytest.raises(ValueError, match=f"device '{device}' is not there"):
        make_accelerator(device)


def test_evaluation_runs_every_video_once_and_orders_the_results():
    calls = []

    def run(numbers):
        calls.append(tuple(numbers))
        return [10 * number for number in numbers]

    groups = [[3, 1], [0], [2, 4]]
    results = evaluate(run, groups, accelerator=make_accelerator("cpu"), progress=False)
    assert results == {number: 10 * number for number in range(5)}
    assert list(results) == list(range(5))
    assert calls == [(3, 1), (0,), (2, 4)]


def test_a_run_that_loses_a_video_is_noticed():
    with pytest.raises(ValueError, match="zip"):
        evaluate(lambda _: [1], [[0, 1]], accelerator=make_accelerator("cpu"), progress=False)


def _train_and_evaluate_together(folder):
    """Run in each of two processes; leave what each saw."""
    AcceleratorState._reset_state(reset_partial_state=True)  # of the process it was forked from
    model, dataset, accelerator = Line(), PointSet(), make_accelerator("cpu")
    fit(model, dataset, replace(OPTIM, batch_size=2), checkpoints=folder / "checkpoints")
    results = evaluate(
        lambda numbers: [(number, accelerator.process_index) for number in numbers],
        [[i] for i in range(5)],
        accelerator=accelerator,
        progress=False,
    )
    seen = {
        "items": dataset.seen,
        "results": results,
        "weight": model.layers[0].weight.detach().flatten().tolist(),
    }
    (folder / f"{accelerator.process_index}.json").write_text(json.dumps(seen))


@pytest.mark.slow
def test_two_processes_share_items_and_videos_and_end_with_the_same_weights(tmp_path):
    debug_launcher(_train_and_evaluate_together, args=(tmp_path,), num_processes=2)
    first, second = (json.loads((tmp_path / f"{i}.json").read_text()) for i in range(2))
    assert first["weight"] == second["weight"]
    assert first["results"] == second["results"]
    assert first["results"] == {str(i): [i, i % 2] for i in range(5)}
    for epoch in range(3):
        halves = [{i for e, i in process["items"] if e == epoch} for process in (first, second)]
        assert len(halves[0]) == len(halves[1]) == 8
        assert halves[0] | halves[1] == set(range(16))
