import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from stpn_tasks.engine import (
    _limit_gradients,
    evaluate,
    learning_rate_factor,
    make_accelerator,
    parameter_groups,
    train,
)
from stpn_tasks.recipes import OptimRecipe


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


def test_norms_and_position_tables_do_not_decay_and_frozen_parameters_are_left_out(tiny):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1 = nn.LayerNorm(2)
            self.linear = nn.Linear(2, 2)
            self.relative_position_bias_table = nn.Parameter(torch.zeros(9, 1))
            self.queries = nn.Parameter(torch.zeros(3, 2))
            self.frozen = nn.Parameter(torch.zeros(7), requires_grad=False)

    block = Block()
    groups = parameter_groups(block, replace(tiny.OPTIM, weight_decay=0.05))
    decayed, kept = sorted(groups, key=lambda group: -group["weight_decay"])
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.05, 0.0)
    assert decayed["factor"] == kept["factor"] == 1.0
    assert {id(p) for p in decayed["params"]} == {
        id(p) for p in (block.queries, block.linear.weight, block.linear.bias)
    }
    assert {id(p) for p in kept["params"]} == {
        id(p) for p in (block.norm1.weight, block.norm1.bias, block.relative_position_bias_table)
    }


def test_the_backbone_has_a_rate_of_its_own(tiny):
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    groups = parameter_groups(model, replace(tiny.OPTIM, backbone_factor=0.1))
    factors = {id(p): group["factor"] for group in groups for p in group["params"]}
    assert factors[id(model["backbone"].weight)] == 0.1
    assert factors[id(model["head"].bias)] == 1.0


def test_training_learns_and_returns_the_losses_of_every_epoch(tiny):
    history = tiny.fit(tiny.Line(), tiny.PointSet(), replace(tiny.OPTIM, epochs=20))
    assert len(history) == 20
    assert history[0].keys() == {"fit", "size"}
    assert history[-1]["fit"] < 0.3 * history[0]["fit"]


def test_every_epoch_sees_every_item_once_with_the_draws_of_that_epoch(tiny):
    dataset = tiny.PointSet()
    tiny.fit(tiny.Line(), dataset)
    for epoch in range(3):
        assert sorted(i for e, i in dataset.seen if e == epoch) == list(range(16))


def test_training_is_a_function_of_the_seed(tiny):
    models = [tiny.Line() for _ in range(3)]
    for model, seed, noise in zip(models, (0, 0, 1), (7, 8, 7), strict=True):
        torch.manual_seed(noise)  # what went before does not matter
        tiny.fit(model, tiny.PointSet(), seed=seed)
    weights = [model.layers[0].weight for model in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_loss_that_is_not_finite_names_the_step_and_the_losses(tiny):
    class Exploding(tiny.Line):
        calls = 0

        def forward(self, batch):
            losses = super().forward(batch)
            self.calls += 1
            return losses if self.calls < 6 else replace(losses, size=losses.size + math.nan)

    with pytest.raises(FloatingPointError, match=r"step 5: \{'fit': .*, 'size': nan\}"):
        tiny.fit(Exploding(), tiny.PointSet())


class Backfiring(torch.autograd.Function):
    """Leaves a loss as it is, and makes its gradient another."""

    @staticmethod
    def forward(ctx, loss, gradient):
        ctx.gradient = gradient
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.gradient, None


def backfiring(tiny, gradient):
    """A model whose sixth step has this gradient."""

    class Model(tiny.Line):
        calls = 0

        def forward(self, batch):
            losses = super().forward(batch)
            self.calls += 1
            factor = gradient if self.calls == 6 else 1.0
            return replace(losses, fit=Backfiring.apply(losses.fit, factor))

    return Model()


@pytest.mark.parametrize("gradient", [math.nan, math.inf])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_gradient_that_is_not_finite_does_not_reach_the_weights(
    tiny, tmp_path, gradient, clip_norm
):
    model, optim = backfiring(tiny, gradient), replace(tiny.OPTIM, clip_norm=clip_norm)
    with pytest.raises(FloatingPointError, match=r"gradient is not finite at step 5, .*\{'fit': "):
        tiny.fit(model, tiny.PointSet(), optim, tmp_path)
    assert all(weight.isfinite().all() for weight in model.parameters())
    last = [losses["fit"] for losses in tiny.fit(tiny.Line(), tiny.PointSet(), optim, tmp_path)]
    assert len(last) == optim.epochs
    assert all(map(math.isfinite, last))


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_scaler_leaves_out_the_step_of_a_gradient_that_is_not_finite(tiny, clip_norm):
    accelerator = make_accelerator("cpu")
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    model, optim = backfiring(tiny, math.inf), replace(tiny.OPTIM, clip_norm=clip_norm)
    train(
        model,
        tiny.PointSet(),
        tiny.collate_points,
        optim,
        accelerator=accelerator,
        seed=0,
        progress=False,
    )
    assert accelerator.scaler.get_scale() == 2.0
    assert all(weight.isfinite().all() for weight in model.parameters())


def test_a_norm_that_is_not_clipped_to_changes_no_gradient():
    model, accelerator = nn.Linear(3, 2), make_accelerator("cpu")
    model(torch.randn(4, 3)).square().sum().backward()
    before = model.weight.grad.clone()
    assert _limit_gradients(model, None, accelerator)
    assert torch.equal(model.weight.grad, before)
    model.zero_grad(set_to_none=False)
    assert _limit_gradients(model, None, accelerator)
    assert not model.weight.grad.any()


def test_nothing_to_train_on_is_said(tiny):
    with pytest.raises(ValueError, match="no key frames"):
        tiny.fit(tiny.Line(), tiny.PointSet(size=0))


def test_a_data_set_smaller_than_a_batch_is_trained_on(tiny):
    dataset = tiny.PointSet(size=3)
    assert len(tiny.fit(tiny.Line(), dataset, replace(tiny.OPTIM, batch_size=8))) == 3
    assert len(dataset.seen) == 24  # each step goes round until it is full


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
