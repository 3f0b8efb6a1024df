from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from stpn_kernels import backend, support_attend
from stpn_kernels.support_attend import configurations, reference, why_not
from stpn_kernels.support_attend.triton_op import (
    support_attend_triton_backward_op,
    support_attend_triton_op,
)
from stpn_kernels.testing import (
    TRITON_DEVICE,
    TRITON_DTYPES,
    poisoned,
    poisoned_ring,
    randn,
    relative_errors,
)


@dataclass(frozen=True)
class Sizes:
    images: int
    frames: int
    tokens: int
    width: int
    prompts: int
    heads: int


SIZES = {
    "one token": Sizes(1, 1, 1, 24, 1, 1),
    "narrow": Sizes(2, 3, 7, 24, 2, 3),
    "one chunk": Sizes(2, 3, 50, 96, 7, 8),
    "one frame, a whole tile": Sizes(1, 1, 64, 96, 2, 8),
    "more queries than a tile": Sizes(1, 2, 35, 40, 9, 8),
    "two chunks": Sizes(1, 3, 30, 200, 3, 3),
    "six chunks": Sizes(1, 1, 20, 768, 1, 3),
}


def inputs_of(sizes: Sizes, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Return queries (float32, as under autocast), tokens, and a gradient of the output."""
    generator = torch.Generator().manual_seed(sizes.tokens + sizes.width)
    B, D, P, h = sizes.images, sizes.width, sizes.prompts, sizes.heads
    return [
        poisoned(randn((P, h, D), generator) * D**-0.5),
        poisoned_ring(randn((B, sizes.frames, sizes.tokens, D), generator, dtype)),
        poisoned(randn((B, P, h, D), generator, dtype)),
    ]


def run(inputs: list[Tensor], choice: str = "triton", operator=support_attend) -> list[Tensor]:
    """Return output and gradients."""
    *leaves, grad_out = inputs
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    out = operator(*leaves, backend=choice)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad_out)]


def eager(inputs: list[Tensor]) -> list[Tensor]:
    """Return output and gradients of PyTorch's own code in the dtype of the tokens."""
    dtype = inputs[1].dtype
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "compute_dtype", lambda _: dtype)
        return run(inputs, operator=lambda *x, backend: reference.support_attend_reference(*x))


def exact(inputs: list[Tensor]) -> list[Tensor]:
    return run([tensor.double() for tensor in inputs], "reference")


@pytest.mark.parametrize("dtype", TRITON_DTYPES)
@pytest.mark.parametrize("name", SIZES)
def test_output_and_gradients_err_no_more_than_eager_code(name, dtype):
    inputs = inputs_of(SIZES[name], dtype)
    wanted = exact(inputs)
    if name == "one token":  # nothing to choose between: the gradient of the queries is rounding
        wanted, actual, peer = (x[::2] for x in (wanted, run(inputs), eager(inputs)))
    else:
        actual, peer = run(inputs), eager(inputs)
    for error, limit in zip(
        relative_errors(actual, wanted), relative_errors(peer, wanted), strict=True
    ):
        assert error <= 2 * limit + 1e-6, f"{error:.1e}, eager {limit:.1e}"


@settings(deadline=None, max_examples=25)
@given(
    sizes=st.builds(
        Sizes,
        images=st.integers(1, 2),
        frames=st.integers(1, 4),
        tokens=st.integers(1, 40),
        width=st.integers(1, 70),
        prompts=st.integers(1, 7),
        heads=st.integers(1, 4),
    ),
    dtype=st.sampled_from(TRITON_DTYPES),
)
def test_random_shapes_give_what_the_reference_gives(sizes, dtype):
    inputs = inputs_of(sizes, dtype)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-2 if dtype == torch.float16 else 5e-2
    for actual, wanted in zip(run(inputs), exact(inputs), strict=True):
        assert (actual.double() - wanted).norm() <= tolerance * wanted.norm().clamp(min=1.0)


def test_two_images_equal_each_alone():
    queries, tokens, grad_out = inputs_of(SIZES["narrow"])
    out, d_queries, d_tokens = run([queries, tokens, grad_out])
    alone = [run([queries, tokens[b : b + 1], grad_out[b : b + 1]]) for b in range(2)]
    torch.testing.assert_close(out, torch.cat([part[0] for part in alone]))
    torch.testing.assert_close(d_queries, alone[0][1] + alone[1][1])
    torch.testing.assert_close(d_tokens, torch.cat([part[2] for part in alone]))


def test_a_ring_buffer_is_read_where_it_lies(monkeypatch):
    inputs = inputs_of(SIZES["narrow"])
    expected = run([tensor.clone() for tensor in inputs])

    def contiguous(tensor: Tensor) -> Tensor:
        assert tensor.is_contiguous(), f"copies {tuple(tensor.shape)}"
        return tensor

    monkeypatch.setattr(Tensor, "contiguous", contiguous)
    for actual, wanted in zip(run(inputs), expected, strict=True):
        assert torch.equal(actual, wanted)


@pytest.mark.parametrize("axes", [(0, 1, 3, 2), (3, 2, 1, 0), (2, 0, 1, 3)])
def test_any_order_in_memory_gives_the_same(axes):
    queries, tokens, grad_out = inputs_of(SIZES["narrow"])
    back = [axes.index(axis) for axis in range(4)]
    permuted = tokens.permute(axes).contiguous().permute(back)
    expected = run([queries, tokens, grad_out])
    for actual, wanted in zip(run([queries, permuted, grad_out]), expected, strict=True):
        assert torch.equal(actual, wanted)


@pytest.mark.parametrize("programs", [0, 1, 3, 1000])
def test_splits_of_any_number_give_the_same(programs, monkeypatch):
    # From one split for all tokens to as many as there may be, the last of them smaller.
    inputs = inputs_of(Sizes(1, 3, 350, 16, 2, 2))
    wanted = exact(inputs)
    monkeypatch.setattr(configurations, "PROGRAMS_PER_MULTIPROCESSOR", programs)
    assert max(relative_errors(run(inputs), wanted)) < 1e-6


def test_repeats_are_bitwise_equal():
    inputs = inputs_of(SIZES["one chunk"], torch.float16)
    first, second = (run(inputs) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_scores_far_apart_overflow_nothing():
    queries, tokens, grad_out = inputs_of(SIZES["narrow"])
    inputs = [200 * queries, tokens, grad_out]
    assert max(relative_errors(run(inputs), exact(inputs))) < 1e-4


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's, of rows not there
def test_scores_far_below_zero_overflow_nothing():
    # Those of tokens that are not there are zero, and so far above.
    queries, tokens, grad_out = (tensor.clone() for tensor in inputs_of(SIZES["narrow"]))
    tokens[..., 0], queries[..., 0] = 50.0, -8.0
    inputs = [queries, tokens, grad_out]
    assert max(relative_errors(run(inputs), exact(inputs))) < 1e-4


def test_gradients_of_many_tokens_do_not_vanish_in_float16():
    # The weight of a token times its gradient is less than the least float16 here.
    queries, tokens, grad_out = inputs_of(Sizes(1, 4, 512, 16, 1, 2), torch.float16)
    inputs = [queries, tokens, grad_out * 1e-4]
    _, error, _ = relative_errors(run(inputs), exact(inputs))
    assert error < 5e-3


def test_inputs_without_gradient_get_none():
    queries, tokens, grad_out = inputs_of(SIZES["narrow"])
    expected = run([queries, tokens, grad_out])[1:]
    for chosen in range(2):
        leaves = [t.detach().requires_grad_(i == chosen) for i, t in enumerate((queries, tokens))]
        support_attend(*leaves, backend="triton").backward(grad_out)
        assert leaves[1 - chosen].grad is None
        assert torch.equal(leaves[chosen].grad, expected[chosen])


@pytest.mark.parametrize("change", [{"images": 0}, {"prompts": 0}])
def test_no_images_or_queries_give_empty_results(change):
    out, d_queries, d_tokens = run(inputs_of(replace(SIZES["narrow"], **change)))
    assert out.numel() == 0
    assert torch.count_nonzero(d_queries) == torch.count_nonzero(d_tokens) == 0


def test_opcheck():
    queries, tokens, grad_out = (tensor.clone() for tensor in inputs_of(SIZES["narrow"]))
    for need_tokens in (True, False):
        torch.library.opcheck(
            support_attend_triton_backward_op, (grad_out, queries, tokens, need_tokens)
        )
    leaves = (queries.requires_grad_(), tokens.requires_grad_())
    torch.library.opcheck(support_attend_triton_op, leaves)


@pytest.mark.compile
@pytest.mark.parametrize("dynamic", [False, True])
def test_traces_whole_with_gradients(dynamic):
    inputs = inputs_of(SIZES["narrow"])
    traced = torch.compile(support_attend, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for a, b in zip(run(inputs, operator=traced), run(inputs), strict=True):
        assert torch.equal(a, b)


def test_autocast_does_not_reach_inside():
    queries, tokens, _ = inputs_of(SIZES["narrow"], torch.float16)
    expected = support_attend(queries, tokens, backend="triton")
    with torch.autocast(TRITON_DEVICE, dtype=torch.bfloat16):
        assert torch.equal(support_attend(queries, tokens, backend="triton"), expected)


def test_flops_are_counted_as_those_of_the_reference():
    counts = []
    for choice in ("triton", "reference"):
        with FlopCounterMode(display=False) as counter:
            run(inputs_of(SIZES["narrow"]), choice)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_float64_is_said_in_words_and_left_to_the_reference():
    *inputs, _ = (tensor.double() for tensor in inputs_of(SIZES["narrow"]))
    assert why_not(inputs[1]) == ["torch.float64 is computed by the reference only"]
    with pytest.raises(ValueError, match=r"torch.float64 is computed by the reference only"):
        support_attend(*inputs, backend="triton")
    for choice in ("auto", "reference"):
        out = support_attend(*inputs, backend=choice)
        assert torch.equal(out, reference.support_attend_reference(*inputs))


def test_on_the_cpu_only_the_interpreter_runs_it(monkeypatch):
    monkeypatch.setattr(backend, "INTERPRETED", False)
    assert why_not(torch.zeros(1, 1, 1, 8)) == ["the tensors are on cpu, not on a CUDA device"]


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match="'cuda'"):
        support_attend(*inputs_of(SIZES["one token"])[:2], backend="cuda")
