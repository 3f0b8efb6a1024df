import pytest
from hypothesis import given
from hypothesis import strategies as st

from stpn_tasks.order import StepSampler, epoch_order


@given(st.integers(1, 20), st.integers(1, 50), st.integers(0, 5), st.integers(0, 5))
def test_the_order_is_a_function_of_seed_and_epoch(num_items, epoch_size, seed, epoch):
    drawn = epoch_order(num_items, epoch_size, seed, epoch)
    assert drawn == epoch_order(num_items, epoch_size, seed, epoch)
    assert len(drawn) == epoch_size
    for start in range(0, epoch_size - num_items + 1, num_items):
        assert sorted(drawn[start : start + num_items]) == list(range(num_items))
    rest = drawn[epoch_size - epoch_size % num_items :]
    assert len(set(rest)) == len(rest)


def test_epochs_and_seeds_differ_in_order():
    first = epoch_order(50, 50, seed=0, epoch=0)
    assert epoch_order(50, 50, seed=0, epoch=1) != first != epoch_order(50, 50, seed=1, epoch=0)


def steps_of(sampler):
    """Return the items of each step that a sampler yields, micro-batches put together."""
    batches, parts = list(sampler), sampler.accumulate
    assert len(batches) == len(sampler)
    return [sum(batches[i : i + parts], []) for i in range(0, len(batches), parts)]


@given(
    st.integers(1, 20),
    st.integers(1, 60),
    st.sampled_from([(1, 1), (2, 1), (1, 3), (2, 2)]),
    st.data(),
)
def test_the_items_of_a_step_are_the_same_however_it_is_shared_out(
    num_items, epoch_size, shares, data
):
    num_processes, accumulate = shares
    batch_size = num_processes * accumulate * data.draw(st.integers(1, 3))
    sampler = StepSampler(num_items, epoch_size, batch_size, 3)
    first = data.draw(st.integers(0, sampler.steps - 1))
    sampler.start(2, first)
    together = steps_of(sampler)
    assert len(together) == max(epoch_size // batch_size, 1) - first
    order = epoch_order(num_items, sampler.steps * batch_size, 3, 2)
    assert sum(together, []) == order[first * batch_size :]
    of_processes = []
    for process in range(num_processes):
        share = StepSampler(
            num_items,
            epoch_size,
            batch_size,
            3,
            process=process,
            num_processes=num_processes,
            accumulate=accumulate,
        )
        share.start(2, first)
        assert len({len(batch) for batch in share}) == 1
        of_processes.append(steps_of(share))
    for step, parts in enumerate(zip(*of_processes, strict=True)):
        assert sorted(sum(parts, [])) == sorted(together[step])


def test_a_step_that_cannot_be_shared_out_equally_is_refused():
    with pytest.raises(ValueError, match="batch_size 8, .* over 3 processes with 1 micro-batches"):
        StepSampler(100, 100, 8, 0, num_processes=3)
    with pytest.raises(ValueError, match="batch_size 8, .* over 2 processes with 8 micro-batches"):
        StepSampler(100, 100, 8, 0, num_processes=2, accumulate=8)
    with pytest.raises(ValueError, match="accumulate must be at least 1, got 0"):
        StepSampler(100, 100, 8, 0, accumulate=0)
