from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stpn_kernels import support_attend, support_pool
from stpn_kernels.support_attend.op import support_attend_op
from stpn_kernels.support_attend.reference import support_attend_reference
from stpn_kernels.support_pool.op import support_pool_op
from stpn_kernels.support_pool.reference import support_pool_reference


def randn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def make_pool(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [randn(2, 3, 4, 5, dtype=dtype), randn(5, dtype=dtype), randn(5, dtype=dtype)]


def make_attend(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [randn(2, 3, 5, dtype=dtype), randn(2, 4, 6, 5, dtype=dtype)]


OPERATORS = {
    "support_pool": (support_pool, support_pool_reference, make_pool),
    "support_attend": (support_attend, support_attend_reference, make_attend),
}
operators = pytest.mark.parametrize(
    ("operator", "reference", "make"), OPERATORS.values(), ids=OPERATORS
)


def test_pool_hand_computed_value():
    # Mean over the two frames is (0, 2, 4): mean 2, variance 8/3.
    support = torch.tensor([[[[-1.0, 0.0, 5.0]], [[1.0, 4.0, 3.0]]]])
    weight, bias = torch.tensor([1.0, 1.0, 2.0]), torch.tensor([0.0, 0.5, 1.0])
    z = 2 / math.sqrt(8 / 3 + 1e-5)
    expected = torch.tensor([[[-z, 0.5, 2 * z + 1]]])
    torch.testing.assert_close(support_pool(support, weight, bias), expected)


def test_attend_hand_computed_value():
    # Scores log 1, log 2, log 3, log 4 over two frames of two tokens; the second query is uniform.
    tokens = torch.tensor([[[[math.log(1.0), 1.0], [math.log(2.0), 2.0]]] * 2])
    tokens[0, 1] = torch.tensor([[math.log(3.0), 3.0], [math.log(4.0), 4.0]])
    queries = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    out = support_attend(queries, tokens)
    torch.testing.assert_close(out[0, 0, :, 1], torch.tensor([(1 + 4 + 9 + 16) / 10, 2.5]))


def test_attend_follows_the_definition_image_by_image():
    queries, tokens = make_attend()
    out = support_attend(queries, tokens)
    for b in range(2):
        keys = tokens[b].reshape(-1, 5)
        for p in range(2):
            for h in range(3):
                weights = torch.stack([queries[p, h] @ key for key in keys]).softmax(0)
                expected = sum(a * key for a, key in zip(weights, keys, strict=True))
                torch.testing.assert_close(out[b, p, h], expected)


def test_attend_equals_multi_head_attention_with_its_projections():
    D, heads, P = 8, 2, 3
    attention = torch.nn.MultiheadAttention(D, heads, batch_first=True, dtype=torch.float64)
    query, tokens = randn(P, D), randn(2, 4, 6, D)
    expected, _ = attention(query.expand(2, -1, -1), tokens.flatten(1, 2), tokens.flatten(1, 2))
    w_q, w_k, w_v = attention.in_proj_weight.detach().view(3, heads, D // heads, D)
    b_q, _, b_v = attention.in_proj_bias.detach().view(3, heads, D // heads)
    q = torch.einsum("hed,pd->phe", w_q, query) + b_q
    queries = torch.einsum("phe,hed->phd", q, w_k) * (D // heads) ** -0.5
    values = torch.einsum("bphd,hed->bphe", support_attend(queries, tokens), w_v) + b_v
    torch.testing.assert_close(attention.out_proj(values.flatten(2)), expected)


@operators
def test_batch_of_two_equals_two_batches_of_one(operator, reference, make):
    inputs = make()
    position = 0 if operator is support_pool else 1
    single = []
    for image in inputs[position]:
        args = [*inputs]
        args[position] = image[None]
        single.append(operator(*args))
    torch.testing.assert_close(operator(*inputs), torch.cat(single))


@operators
def test_gradcheck_of_every_input(operator, reference, make):
    inputs = [tensor.requires_grad_() for tensor in make()]
    assert torch.autograd.gradcheck(operator, inputs)
    torch.testing.assert_close(operator(*inputs), reference(*inputs))


@operators
def test_inputs_without_gradient_get_none(operator, reference, make):
    for chosen in range(len(make())):
        inputs = make()
        inputs[chosen].requires_grad_()
        operator(*inputs).square().sum().backward()
        grads = [tensor.grad for tensor in inputs]
        assert [grad is not None for grad in grads] == [i == chosen for i in range(len(inputs))]
        (expected,) = torch.autograd.grad(reference(*inputs).square().sum(), inputs[chosen])
        torch.testing.assert_close(grads[chosen], expected)


@operators
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)]
)
def test_lower_precision_is_close_and_keeps_dtypes(operator, reference, make, dtype, tolerance):
    inputs = [tensor.requires_grad_() for tensor in make(dtype)]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    out, expected = operator(*inputs), reference(*exact)
    weights = torch.randn_like(out)
    grads = torch.autograd.grad(out, inputs, weights)
    expected_grads = torch.autograd.grad(expected, exact, weights.double())
    assert {out.dtype, *(grad.dtype for grad in grads)} == {dtype}
    for actual, wanted in zip([out, *grads], [expected, *expected_grads], strict=True):
        assert (actual.double() - wanted).norm() / wanted.norm() < tolerance


@operators
def test_autocast_does_not_change_the_result(operator, reference, make):
    inputs = make(torch.float32)
    expected = operator(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(operator(*inputs), expected)


@pytest.mark.parametrize("frames", [slice(1, 4), slice(None, None, 2), [4, 0, 1]])
def test_views_of_a_ring_buffer(frames):
    ring = randn(2, 5, 4, 5).requires_grad_()
    view, copy = ring[:, frames], ring[:, frames].clone()
    queries, weight, bias = randn(2, 3, 5), randn(5), randn(5)
    pairs = (
        (support_attend(queries, view), support_attend(queries, copy)),
        (support_pool(view, weight, bias), support_pool(copy, weight, bias)),
    )
    for actual, expected in pairs:
        torch.testing.assert_close(actual, expected)
        (actual_grad,) = torch.autograd.grad(actual.square().sum(), ring, retain_graph=True)
        (expected_grad,) = torch.autograd.grad(expected.square().sum(), ring, retain_graph=True)
        torch.testing.assert_close(actual_grad, expected_grad)


def test_opcheck():
    pool = [tensor.requires_grad_() for tensor in make_pool(torch.float32)]
    attend = [tensor.requires_grad_() for tensor in make_attend(torch.float32)]
    torch.library.opcheck(support_pool_op, (*pool, 1e-5))
    torch.library.opcheck(support_attend_op, tuple(attend))


def test_opcheck_of_the_backwards():
    pool, attend = make_pool(torch.float32), make_attend(torch.float32)
    grad = torch.randn_like(support_pool(*pool))
    torch.library.opcheck(torch.ops.stpn.support_pool_backward, (grad, *pool, 1e-5))
    grad = torch.randn_like(support_attend(*attend))
    for need_tokens in (True, False):
        torch.library.opcheck(torch.ops.stpn.support_attend_backward, (grad, *attend, need_tokens))


def test_attend_flops_count_the_products():
    from torch.utils.flop_counter import FlopCounterMode

    queries, tokens = make_attend()
    product = 2 * 2 * (2 * 3) * (4 * 6) * 5
    for need_tokens, backward in ((False, 3), (True, 5)):
        with FlopCounterMode(display=False) as counter:
            support_attend(
                queries.requires_grad_(), tokens.requires_grad_(need_tokens)
            ).sum().backward()
        assert counter.get_total_flops() == (2 + backward) * product


@pytest.mark.compile
@pytest.mark.parametrize("dynamic", [False, True])
@operators
def test_compiles_whole_with_its_backward(operator, reference, make, dynamic):
    compiled = torch.compile(operator, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    inputs = [tensor.requires_grad_() for tensor in make(torch.float32)]
    actual, expected = compiled(*inputs), reference(*inputs)
    torch.testing.assert_close(actual, expected)
    weights = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(actual, inputs, weights),
        torch.autograd.grad(expected, inputs, weights),
    )


@pytest.mark.parametrize(
    ("position", "value", "name"),
    [
        (0, torch.zeros(2, 4, 5), "support"),
        (0, torch.zeros(2, 0, 4, 5), "support"),
        (0, torch.zeros(2, 3, 4, 5, dtype=torch.uint8), "support"),
        (1, torch.zeros(4), "weight"),
        (1, torch.zeros(5, dtype=torch.float64), "weight"),
        (2, torch.zeros(1, 5), "bias"),
        (2, torch.zeros(5, device="meta"), "bias"),
    ],
)
def test_pool_errors_name_the_argument(position, value, name):
    inputs = make_pool(torch.float32)
    inputs[position] = value
    with pytest.raises((ValueError, TypeError), match=rf"\b{name}\b"):
        support_pool(*inputs)


@pytest.mark.parametrize(
    ("position", "value", "name"),
    [
        (0, torch.zeros(6, 5), "queries"),
        (0, torch.zeros(2, 3, 4), "queries"),
        (0, torch.zeros(2, 3, 5, dtype=torch.float64), "queries"),
        (1, torch.zeros(2, 24, 5), "tokens"),
        (1, torch.zeros(2, 0, 6, 5), "tokens"),
        (1, torch.zeros(2, 4, 0, 5), "tokens"),
        (1, torch.zeros(2, 4, 6, 5, dtype=torch.int32), "tokens"),
    ],
)
def test_attend_errors_name_the_argument(position, value, name):
    inputs = make_attend(torch.float32)
    inputs[position] = value
    with pytest.raises((ValueError, TypeError), match=rf"\b{name}\b"):
        support_attend(*inputs)


def test_import_needs_no_triton():
    import subprocess
    import sys

    code = "import sys; sys.modules['triton'] = None; import stpn_kernels"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
