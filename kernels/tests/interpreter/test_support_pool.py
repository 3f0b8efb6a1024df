from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stpn_kernels import backend, support_pool
from stpn_kernels.support_pool import reference, triton_op, why_not
from stpn_kernels.support_pool.configurations import Configuration
from stpn_kernels.support_pool.triton_op import (
    support_pool_triton_backward_op,
    support_pool_triton_op,
)
from stpn_kernels.testing import (
    TRITON_DEVICE,
    TRITON_DTYPES,
    poisoned,
    poisoned_ring,
    randn,
    relative_errors,
)

SHAPES = {  # B, K, N, C
    "the mixer's": (1, 14, 5, 768),
    "one frame": (1, 1, 5, 96),
    "two images": (2, 3, 7, 96),
    "a tile and a part of one": (2, 2, 37, 128),
    "odd width": (2, 3, 7, 33),
    "widest": (1, 2, 3, 4096),
}


def inputs_of(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Return support embeddings, weight and bias (float32, as under autocast), output gradient."""
    generator = torch.Generator().manual_seed(sum(shape))
    B, _, N, C = shape
    return [
        poisoned_ring(randn(shape, generator, dtype)),
        poisoned(randn((C,), generator)),
        poisoned(randn((C,), generator)),
        poisoned(randn((B, N, C), generator, dtype)),
    ]


def run(inputs: list[Tensor], choice: str = "triton", operator=support_pool) -> list[Tensor]:
    """Return output and gradients."""
    *leaves, grad_out = inputs
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    out = operator(*leaves, backend=choice)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad_out)]


def eager(inputs: list[Tensor]) -> list[Tensor]:
    """Return output and gradients of PyTorch's own code in the dtype of the inputs."""
    dtype = inputs[0].dtype
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "compute_dtype", lambda _: dtype)
        return run(inputs, operator=lambda *x, backend: reference.support_pool_reference(*x))


@pytest.mark.parametrize("dtype", TRITON_DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_output_and_gradients_err_no_more_than_eager_code(name, dtype):
    inputs = inputs_of(SHAPES[name], dtype)
    exact = run([tensor.double() for tensor in inputs], "reference")
    made, allowed = relative_errors(run(inputs), exact), relative_errors(eager(inputs), exact)
    for what, error, limit in zip(("out", "support", "weight", "bias"), made, allowed, strict=True):
        assert error <= 2 * limit + 1e-6, f"{what}: {error:.1e}, eager {limit:.1e}"


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.integers(1, 70)),
    dtype=st.sampled_from(TRITON_DTYPES),
)
def test_random_shapes_give_what_the_reference_gives(shape, dtype):
    inputs = inputs_of(shape, dtype)
    exact = run([tensor.double() for tensor in inputs], "reference")
    tolerance = 1e-4 if dtype == torch.float32 else 1e-2 if dtype == torch.float16 else 5e-2
    for actual, wanted in zip(run(inputs), exact, strict=True):
        # Of few channels most of the gradient cancels: no relative error there.
        assert (actual.double() - wanted).norm() <= tolerance * wanted.norm().clamp(min=1.0)


def test_two_images_equal_each_alone():
    support, weight, bias, grad_out = inputs_of(SHAPES["two images"])
    together = run([support, weight, bias, grad_out])
    alone = [run([support[b : b + 1], weight, bias, grad_out[b : b + 1]]) for b in range(2)]
    for index in (0, 1):  # output, gradient of the support embeddings
        assert torch.equal(together[index], torch.cat([part[index] for part in alone]))
    for index in (2, 3):  # gradients of what images share
        torch.testing.assert_close(together[index], sum(part[index] for part in alone))


def test_a_ring_buffer_is_read_where_it_lies(monkeypatch):
    inputs = inputs_of(SHAPES["two images"])
    expected = run([tensor.clone() for tensor in inputs])

    def contiguous(tensor: Tensor) -> Tensor:
        assert tensor.is_contiguous(), f"copies {tuple(tensor.shape)}"
        return tensor

    monkeypatch.setattr(Tensor, "contiguous", contiguous)
    for actual, wanted in zip(run(inputs), expected, strict=True):
        assert torch.equal(actual, wanted)


@pytest.mark.parametrize("axes", [(0, 1, 3, 2), (3, 2, 1, 0), (2, 0, 1, 3)])
def test_any_order_in_memory_gives_the_same(axes):
    # The first is that of the mixer's pooled maps: channels before tokens.
    inputs = inputs_of(SHAPES["odd width"])
    back = [axes.index(axis) for axis in range(4)]
    permuted = inputs[0].permute(axes).contiguous().permute(back)
    for actual, wanted in zip(run([permuted, *inputs[1:]]), run(inputs), strict=True):
        assert torch.equal(actual, wanted)


def test_the_gradient_is_written_for_one_frame_only():
    _, d_support, _, _ = run(inputs_of(SHAPES["two images"]))
    assert d_support.stride(1) == 0


@pytest.mark.parametrize("tile_size", [1, 512, 1 << 14])
@pytest.mark.parametrize("programs", [1, 2, 100])
def test_shares_of_any_size_give_the_same(tile_size, programs, monkeypatch):
    inputs = inputs_of(SHAPES["two images"])
    expected = run(inputs, "reference")
    for name in ("FORWARD", "BACKWARD"):
        monkeypatch.setattr(triton_op, name, Configuration(4, tile_size, programs))
    for actual, wanted in zip(run(inputs), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5)


def test_repeats_are_bitwise_equal():
    inputs = inputs_of(SHAPES["a tile and a part of one"], torch.float16)
    first, second = (run(inputs) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_inputs_without_gradient_get_none():
    *leaves, grad_out = inputs_of(SHAPES["one frame"])
    expected = run([*leaves, grad_out])[1:]
    for chosen in range(3):
        chosen_leaves = [t.detach().requires_grad_(i == chosen) for i, t in enumerate(leaves)]
        support_pool(*chosen_leaves, backend="triton").backward(grad_out)
        for index, leaf in enumerate(chosen_leaves):
            assert (leaf.grad is not None) == (index == chosen)
        assert torch.equal(chosen_leaves[chosen].grad, expected[chosen])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's, of tokens not there
@pytest.mark.parametrize("eps", [0.0, 1e-2])
def test_eps_is_added_to_the_variance(eps):
    *leaves, _ = inputs_of(SHAPES["a tile and a part of one"])
    expected = support_pool(*leaves, eps, backend="reference")
    torch.testing.assert_close(support_pool(*leaves, eps, backend="triton"), expected)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_without_eps_tokens_that_are_not_there_give_no_gradient():
    # Their variance is zero, and its reciprocal root infinite.
    *leaves, grad_out = inputs_of(SHAPES["a tile and a part of one"])
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    out = support_pool(*leaves, 0.0, backend="triton")
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(out, leaves, grad_out))


@pytest.mark.parametrize("shape", [(0, 2, 3, 8), (2, 2, 0, 8)])
def test_no_tokens_give_empty_results(shape):
    out, d_support, d_weight, d_bias = run(inputs_of(shape))
    assert out.numel() == d_support.numel() == 0
    assert torch.count_nonzero(d_weight) == torch.count_nonzero(d_bias) == 0


def test_opcheck():
    *leaves, grad_out = (tensor.clone() for tensor in inputs_of((2, 3, 4, 5)))
    torch.library.opcheck(support_pool_triton_backward_op, (grad_out, *leaves, 1e-5))
    torch.library.opcheck(
        support_pool_triton_op, (*(leaf.requires_grad_() for leaf in leaves), 1e-5)
    )


@pytest.mark.compile
@pytest.mark.parametrize("dynamic", [False, True])
def test_traces_whole_with_gradients(dynamic):
    inputs = inputs_of(SHAPES["odd width"])
    traced = torch.compile(support_pool, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for a, b in zip(run(inputs, operator=traced), run(inputs), strict=True):
        assert torch.equal(a, b)


def test_autocast_does_not_reach_inside():
    *leaves, _ = inputs_of(SHAPES["odd width"], torch.float16)
    expected = support_pool(*leaves, backend="triton")
    with torch.autocast(TRITON_DEVICE, dtype=torch.bfloat16):
        assert torch.equal(support_pool(*leaves, backend="triton"), expected)


@pytest.mark.parametrize(
    ("width", "dtype", "words"),
    [
        (4097, torch.float32, "width 4097 is more than a tile of 4096"),
        (8, torch.float64, "torch.float64 is computed"),
    ],
)
def test_what_triton_cannot_run_is_said_in_words_and_left_to_the_reference(width, dtype, words):
    support = torch.zeros(1, 1, 1, width, dtype=dtype, device=TRITON_DEVICE)
    weight = torch.ones(support.shape[-1], dtype=support.dtype, device=TRITON_DEVICE)
    assert any(words in reason for reason in why_not(support))
    with pytest.raises(ValueError, match=words):
        support_pool(support, weight, weight, backend="triton")
    for choice in ("auto", "reference"):
        out = support_pool(support, weight, weight, backend=choice)
        assert torch.equal(out, reference.support_pool_reference(support, weight, weight))


def test_on_the_cpu_only_the_interpreter_runs_it(monkeypatch):
    monkeypatch.setattr(backend, "INTERPRETED", False)
    assert why_not(torch.zeros(1, 1, 1, 8)) == ["the tensors are on cpu, not on a CUDA device"]


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match="'cuda'"):
        support_pool(*inputs_of(SHAPES["one frame"])[:3], backend="cuda")
