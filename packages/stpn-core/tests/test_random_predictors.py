"""Predictors take any shape, and the ring buffer of a stream as it lies in memory."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stpn_core import (
    AttentionPredictor,
    AveragePredictor,
    MixerPredictor,
    SupportMemory,
    TransformerPredictor,
)

PREDICTORS = [TransformerPredictor, MixerPredictor, AttentionPredictor, AveragePredictor]
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 1e-1}


def build(predictor, num_prompts, deep, seed):
    torch.manual_seed(seed)
    return predictor(24, (16, 32) if deep else (16,), num_prompts).double()


def gradients(model, support, grid, weights):
    """Return the gradients of the trained parameters, of the clips' weighted prompts."""
    prompts = model(support, grid)
    loss = sum((p * w).sum() for p, w in zip(prompts, weights, strict=True))
    return torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])


@pytest.mark.parametrize("predictor", PREDICTORS)
@settings(max_examples=20, deadline=None)
@given(
    num_clips=st.integers(0, 3),
    num_support=st.integers(1, 5),
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    num_prompts=st.integers(1, 15),
    deep=st.booleans(),
    dtype=st.sampled_from(list(TOLERANCES)),
    seed=st.integers(0, 99),
)
def test_prompts_of_any_shape_and_precision(
    predictor, num_clips, num_support, grid, num_prompts, deep, dtype, seed
):
    assume(predictor is not AveragePredictor or grid[0] * grid[1] >= num_prompts)
    model = build(predictor, num_prompts, deep, seed)
    support = torch.randn(num_clips, num_support, grid[0] * grid[1], 24).to(dtype)
    if predictor is AveragePredictor:  # its ranks must not change with the precision
        support = support.round(decimals=1) + torch.arange(support.shape[2]).to(dtype)[:, None]
    expected = model(support.double(), grid)
    prompts = model.to(dtype)(support, grid)
    assert [tuple(p.shape) for p in prompts] == [
        (num_clips, num_prompts, dim) for dim in model.projection.prompt_dims
    ]
    for actual, wanted in zip(prompts, expected, strict=True):
        assert actual.dtype == dtype
        assert (actual.double() - wanted).norm() <= TOLERANCES[dtype] * max(wanted.norm(), 1.0)


@pytest.mark.parametrize("predictor", PREDICTORS)
@settings(max_examples=10, deadline=None)
@given(
    num_support=st.integers(1, 4),
    grid=st.tuples(st.integers(2, 6), st.integers(2, 6)),
    deep=st.booleans(),
    seed=st.integers(0, 99),
)
def test_gradients_do_not_depend_on_frame_order_or_on_the_batch(
    predictor, num_support, grid, deep, seed
):
    model = build(predictor, 3, deep, seed)
    support = torch.randn(2, num_support, grid[0] * grid[1], 24, dtype=torch.double)
    weights = [torch.randn_like(p) for p in model(support, grid)]
    both = gradients(model, support, grid, weights)
    shuffled = gradients(model, support[:, torch.randperm(num_support)], grid, weights)
    single = [
        gradients(model, support[i : i + 1], grid, [w[i : i + 1] for w in weights])
        for i in range(2)
    ]
    for whole, other, *parts in zip(both, shuffled, *single, strict=True):
        torch.testing.assert_close(other, whole)
        torch.testing.assert_close(sum(parts), whole)


@pytest.mark.parametrize("predictor", PREDICTORS)
@settings(max_examples=20, deadline=None)
@given(
    capacity=st.integers(1, 6),
    pushed=st.integers(1, 14),
    num_clips=st.integers(1, 2),
    data=st.data(),
)
def test_prompts_from_the_memory_equal_those_from_the_frames(
    predictor, capacity, pushed, num_clips, data
):
    model = build(predictor, 3, deep=False, seed=pushed)
    video = torch.randn(num_clips, pushed, 12, 24, dtype=torch.double)
    embeddings = [model.embed(video[:, t], (3, 4)).detach() for t in range(pushed)]
    memory = SupportMemory.like(embeddings[0], capacity)
    for frame, embedding in enumerate(embeddings):
        memory.push(frame, embedding)
    held = st.sampled_from(range(max(pushed - capacity, 0), pushed))
    frames = data.draw(st.lists(held, min_size=1, max_size=capacity + 2))
    (actual,) = model.predict(memory.gather(frames))
    (expected,) = model.predict(torch.stack([embeddings[t] for t in frames], 1))
    torch.testing.assert_close(actual, expected)
