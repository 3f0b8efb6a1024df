"""Every operator equals its reference, forward and backward, whatever it is given."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stpn_kernels import prompted_window_attention, support_attend, support_pool
from stpn_kernels.prompted_window_attention.reference import prompted_window_attention_reference
from stpn_kernels.support_attend.reference import support_attend_reference
from stpn_kernels.support_pool.reference import support_pool_reference

# Of the size of a result, or of 1 where that is less.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}

dtypes = st.sampled_from(list(TOLERANCES))
layouts = st.sampled_from(["contiguous", "transposed", "sliced", "expanded"])
seeds = st.integers(0, 2**16)


def fill(shape: tuple[int, ...], dtype: torch.dtype, layout: str, seed: int) -> Tensor:
    """Draw a leaf tensor whose elements lie in memory as `layout` says."""
    torch.manual_seed(seed)
    if layout == "transposed":
        drawn = torch.randn(*shape[::-1]).permute(*range(len(shape))[::-1])
    elif layout == "sliced":
        drawn = torch.randn(*(2 * side for side in shape))[tuple(slice(0, None, 2) for _ in shape)]
    elif layout == "expanded":
        drawn = torch.randn(1, *shape[1:]).expand(shape)
    else:
        drawn = torch.randn(shape)
    return drawn.to(dtype).detach().requires_grad_()


def assert_same(operator, reference, inputs: list[Tensor], **options: object) -> Tensor:
    """Compare with the reference in float64, outputs and gradients; return the output."""
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    out, expected = operator(*inputs, **options), reference(*exact, **options)
    weights = torch.randn(expected.shape).to(out.dtype)
    grads = torch.autograd.grad(out, inputs, weights)
    expected_grads = torch.autograd.grad(expected, exact, weights.double())
    assert [grad.dtype for grad in grads] == [tensor.dtype for tensor in inputs]
    for actual, wanted in zip([out, *grads], [expected, *expected_grads], strict=True):
        assert actual.shape == wanted.shape
        error, size = (actual.double() - wanted).norm(), wanted.norm()
        assert error <= TOLERANCES[out.dtype] * max(size, 1.0)
    return out


@settings(deadline=None, max_examples=200)
@given(
    images=st.integers(0, 3),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    window=st.integers(1, 8).flatmap(lambda w: st.tuples(st.just(w), st.integers(0, w - 1))),
    num_prompts=st.integers(0, 15),
    heads=st.integers(1, 4),
    head_dim=st.integers(1, 9),
    dtype=dtypes,
    layout=layouts,
    need_prompts=st.booleans(),
    seed=seeds,
)
def test_prompted_window_attention_of_any_shape(
    images, height, width, window, num_prompts, heads, head_dim, dtype, layout, need_prompts, seed
):
    window_size, shift = window
    shapes = (
        (images, num_prompts + height * width, 3, heads, head_dim),
        (3, heads, head_dim),
        ((2 * window_size - 1) ** 2, heads),
    )
    out = assert_same(
        prompted_window_attention,
        prompted_window_attention_reference,
        [fill(shape, dtype, layout, seed + i) for i, shape in enumerate(shapes)],
        height=height,
        width=width,
        window_size=window_size,
        shift=shift,
        num_prompts=num_prompts,
        need_prompts=need_prompts,
    )
    if not need_prompts:
        assert (out[:, :num_prompts] == 0).all()


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(*map(st.integers, (0, 1, 0, 1), (3, 5, 9, 17))),
    dtype=dtypes,
    layout=layouts,
    eps=st.sampled_from([1e-5, 1e-2]),
    seed=seeds,
)
def test_support_pool_of_any_shape(shape, dtype, layout, eps, seed):
    shapes = (shape, shape[3:], shape[3:])
    inputs = [fill(s, dtype, layout, seed + i) for i, s in enumerate(shapes)]
    assert_same(support_pool, support_pool_reference, inputs, eps=eps)


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(*map(st.integers, (0, 1, 1, 1), (3, 5, 9, 17))),
    num_queries=st.integers(0, 15),
    heads=st.integers(1, 4),
    dtype=dtypes,
    layout=layouts,
    seed=seeds,
)
def test_support_attend_of_any_shape(shape, num_queries, heads, dtype, layout, seed):
    queries = fill((num_queries, heads, shape[3]), dtype, layout, seed)
    inputs = [queries, fill(shape, dtype, layout, seed + 1)]
    assert_same(support_attend, support_attend_reference, inputs)
