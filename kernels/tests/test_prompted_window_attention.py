from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stpn_kernels import prompted_window_attention
from stpn_kernels.prompted_window_attention.layout import window_layout
from stpn_kernels.prompted_window_attention.op import _weights, prompted_window_attention_op
from stpn_kernels.prompted_window_attention.reference import prompted_window_attention_reference

# height, width, window_size, shift, num_prompts
LAYOUTS = {
    "divisible": (8, 12, 4, 0, 3),
    "divisible, shifted": (8, 12, 4, 2, 3),
    "padded": (5, 7, 3, 0, 2),
    "padded, shifted": (5, 7, 3, 1, 2),
    "inner windows padded": (8, 8, 7, 2, 2),
    "one window": (4, 4, 4, 2, 1),
    "smaller than a window": (2, 3, 4, 1, 2),
    "no prompts": (5, 7, 3, 1, 0),
    "window of one": (2, 3, 1, 0, 1),
}


def make_inputs(
    layout: tuple[int, ...], images: int = 2, heads: int = 2, width: int = 3, dtype=torch.float64
) -> tuple[list[Tensor], dict[str, int]]:
    H, W, w, shift, P = layout
    generator = torch.Generator().manual_seed(H * 1000 + W * 100 + w * 10 + shift)
    shapes = [(images, P + H * W, 3, heads, width), (3, heads, width), ((2 * w - 1) ** 2, heads)]
    inputs = [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]
    names = ("height", "width", "window_size", "shift", "num_prompts")
    return inputs, dict(zip(names, layout, strict=True))


def define(
    qkv: Tensor,
    qkv_bias: Tensor,
    table: Tensor,
    height: int,
    width: int,
    window_size: int,
    shift: int,
    num_prompts: int,
) -> Tensor:
    """The definition, one attention row at a time: walks the windows of the padded, rolled map."""
    B, _, _, h, d = qkv.shape
    w, P = window_size, num_prompts
    Hp, Wp = math.ceil(height / w) * w, math.ceil(width / w) * w
    out = torch.zeros(B, P + height * width, h, d, dtype=qkv.dtype)
    windows = list(itertools.product(range(0, Hp, w), range(0, Wp, w)))

    def region(position: int, size: int) -> int:
        return 0 if position < size - w else 1 if position < size - shift else 2

    for image, head, (top, left) in itertools.product(range(B), range(h), windows):
        members: list[tuple[int | None, int, int]] = [(p, -1, -1) for p in range(P)]
        for y, x in itertools.product(range(top, top + w), range(left, left + w)):
            sy, sx = (y + shift) % Hp, (x + shift) % Wp
            inside = sy < height and sx < width
            members.append((P + sy * width + sx if inside else None, y, x))

        def row(member: tuple[int | None, int, int], part: int, image=image, head=head) -> Tensor:
            source = member[0]
            return qkv_bias[part, head] if source is None else qkv[image, source, part, head]

        for query in members:
            if query[0] is None:
                continue
            scores = []
            for key in members:
                score = (row(query, 0) @ row(key, 1)) / math.sqrt(d)
                if query[1] >= 0 and key[1] >= 0:  # both are positions of the map
                    dy, dx = query[1] - key[1] + w - 1, query[2] - key[2] + w - 1
                    score = score + table[dy * (2 * w - 1) + dx, head]
                    same = region(query[1], Hp) == region(key[1], Hp)
                    same &= region(query[2], Wp) == region(key[2], Wp)
                    if shift > 0 and not same:
                        score = score - 100
                scores.append(score)
            weights = torch.stack(scores).softmax(0)
            value = sum(a * row(key, 2) for a, key in zip(weights, members, strict=True))
            share = len(windows) if query[0] < P else 1
            out[image, query[0], head] += value / share
    return out.flatten(2)


@settings(deadline=None, max_examples=15)
@given(
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    window_and_shift=st.integers(1, 4).flatmap(
        lambda w: st.tuples(st.just(w), st.integers(0, w - 1))
    ),
    num_prompts=st.integers(0, 3),
    images=st.integers(1, 2),
    heads=st.integers(1, 2),
)
def test_operator_and_reference_follow_the_definition(
    height, width, window_and_shift, num_prompts, images, heads
):
    layout = (height, width, *window_and_shift, num_prompts)
    inputs, kwargs = make_inputs(layout, images, heads, width=2)
    expected = define(*inputs, **kwargs)
    torch.testing.assert_close(prompted_window_attention(*inputs, **kwargs), expected)
    torch.testing.assert_close(prompted_window_attention_reference(*inputs, **kwargs), expected)


def test_hand_computed_value_with_padding_and_prompt():
    # One token and one prompt, all queries and keys 0: every weight is softmax of the position
    # bias. A 2x2 window of a 1x1 map has three padded positions whose value is the bias 8.
    qkv = torch.zeros(1, 2, 3, 1, 1, dtype=torch.float64)
    qkv[0, 0, 2], qkv[0, 1, 2] = 1.0, 5.0
    qkv_bias = torch.tensor([0.0, 0.0, 8.0], dtype=torch.float64).view(3, 1, 1)
    table = torch.zeros(9, 1, dtype=torch.float64)
    table[4] = math.log(4.0)  # the token's bias with itself (offset 0, 0)
    out = prompted_window_attention(
        qkv, qkv_bias, table, height=1, width=1, window_size=2, shift=0, num_prompts=1
    )
    # The prompt is (1 + 5 + 3 * 8) / 5 = 6, the token (1 + 4 * 5 + 3 * 8) / 8 = 5.625.
    torch.testing.assert_close(out.flatten(), torch.tensor([6.0, 5.625], dtype=torch.float64))


def test_prompt_output_is_the_mean_over_windows():
    # Two windows of one token each, zero scores: rows (1 + 3) / 2 and (1 + 7) / 2, mean 3.
    qkv = torch.zeros(1, 3, 3, 1, 1)
    qkv[0, :, 2, 0, 0] = torch.tensor([1.0, 3.0, 7.0])
    out = prompted_window_attention(
        qkv,
        torch.zeros(3, 1, 1),
        torch.zeros(1, 1),
        height=1,
        width=2,
        window_size=1,
        shift=0,
        num_prompts=1,
    )
    torch.testing.assert_close(out.flatten(), torch.tensor([3.0, 2.0, 4.0]))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_batch_of_two_equals_two_batches_of_one(layout):
    inputs, kwargs = make_inputs(layout)
    qkv, *rest = inputs
    both = prompted_window_attention(qkv, *rest, **kwargs)
    single = [prompted_window_attention(image[None], *rest, **kwargs) for image in qkv]
    torch.testing.assert_close(both, torch.cat(single))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("need_prompts", [True, False])
def test_every_gradient_equals_that_of_the_reference(layout, need_prompts):
    inputs, kwargs = make_inputs(layout)
    for tensor in inputs:
        tensor.requires_grad_()
    out = prompted_window_attention(*inputs, **kwargs, need_prompts=need_prompts)
    expected = prompted_window_attention_reference(*inputs, **kwargs, need_prompts=need_prompts)
    weights = torch.randn_like(out)
    torch.testing.assert_close(out, expected)
    actual = torch.autograd.grad(out, inputs, weights)
    torch.testing.assert_close(actual, torch.autograd.grad(expected, inputs, weights))


@pytest.mark.parametrize("name", ["padded, shifted", "smaller than a window", "no prompts"])
def test_gradcheck_of_every_input(name):
    inputs, kwargs = make_inputs(LAYOUTS[name], images=2, heads=1, width=2)
    for tensor in inputs:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *tensors: prompted_window_attention(*tensors, **kwargs), inputs, fast_mode=True
    )


def test_padding_gives_the_qkv_bias_a_key_and_value_gradient_only():
    inputs, kwargs = make_inputs(LAYOUTS["padded"])
    qkv_bias = inputs[1].requires_grad_()
    prompted_window_attention(*inputs, **kwargs).square().sum().backward()
    assert qkv_bias.grad is not None
    assert (qkv_bias.grad[0] == 0).all()
    assert (qkv_bias.grad[1:] != 0).all()


def test_many_chunks_equal_one(monkeypatch):
    from stpn_kernels.prompted_window_attention import op

    inputs, kwargs = make_inputs((20, 23, 3, 1, 2))
    for tensor in inputs:
        tensor.requires_grad_()

    def run() -> list[Tensor]:
        out = prompted_window_attention(*inputs, **kwargs)
        return [out, *torch.autograd.grad(out.square().sum(), inputs)]

    monkeypatch.setattr(op, "CPU_CHUNK", 1)
    chunked = run()
    monkeypatch.setattr(op, "CPU_CHUNK", 10**6)
    torch.testing.assert_close(chunked, run())


def test_the_shift_mask_stays_when_the_map_is_one_window():
    inputs, kwargs = make_inputs(LAYOUTS["one window"])
    shifted = prompted_window_attention(*inputs, **kwargs)
    plain = prompted_window_attention(*inputs, **{**kwargs, "shift": 0})
    assert (shifted - plain).abs().max() > 0.1


@pytest.mark.parametrize("spread", [1.0, 30.0, 300.0])
def test_masked_pairs_lose_100_and_no_more(spread):
    # Where scores differ by more than 100, a masked pair outweighs the others, as in the reference.
    inputs, kwargs = make_inputs(LAYOUTS["padded, shifted"])
    inputs[0] = inputs[0] * spread**0.5
    for tensor in inputs:
        tensor.requires_grad_(True)
    actual = prompted_window_attention(*inputs, **kwargs)
    expected = prompted_window_attention_reference(*inputs, **kwargs)
    grad = torch.randn_like(actual)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(
        torch.autograd.grad(actual, inputs, grad), torch.autograd.grad(expected, inputs, grad)
    )


def test_weights_of_masked_pairs_are_no_denormal_numbers():
    # Denormal weights would make the products with the values fifty times as slow.
    q, k = torch.randn(2, 6, 11, 8).unbind(0)
    chunk = window_layout(5, 7, 3, 1, 2, 2, 8, q.device).chunks[-1]
    mask = torch.zeros(6, 11, 11)
    mask[:, ::2, 1::2] = -100.0
    weights = _weights(q, k, [mask] * 4, chunk)
    assert chunk.edge > 0
    assert torch.equal(weights == 0, mask < 0)


def test_unneeded_prompts_are_zero_and_tokens_unchanged():
    inputs, kwargs = make_inputs(LAYOUTS["padded, shifted"])
    full = prompted_window_attention(*inputs, **kwargs)
    tokens_only = prompted_window_attention(*inputs, **kwargs, need_prompts=False)
    P = kwargs["num_prompts"]
    assert (tokens_only[:, :P] == 0).all()
    assert torch.equal(tokens_only[:, P:], full[:, P:])


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)]
)
@pytest.mark.parametrize("float32_parameters", [True, False])
def test_lower_precision_is_close_and_keeps_dtypes(dtype, tolerance, float32_parameters):
    inputs, kwargs = make_inputs(LAYOUTS["padded, shifted"], dtype=dtype)
    if float32_parameters:
        inputs[1:] = [tensor.float() for tensor in inputs[1:]]
    exact = [tensor.double().requires_grad_() for tensor in inputs]
    for tensor in inputs:
        tensor.requires_grad_()
    out = prompted_window_attention(*inputs, **kwargs)
    expected = prompted_window_attention_reference(*exact, **kwargs)
    assert out.dtype == dtype
    weights = torch.randn_like(out)
    grads = torch.autograd.grad(out, inputs, weights)
    expected_grads = torch.autograd.grad(expected, exact, weights.double())
    for actual, wanted in zip([out, *grads], [expected, *expected_grads], strict=True):
        error = (actual.double() - wanted).norm() / wanted.norm()
        assert error < tolerance
    assert [grad.dtype for grad in grads] == [tensor.dtype for tensor in inputs]


def test_autocast_does_not_lower_the_inner_products():
    inputs, kwargs = make_inputs(LAYOUTS["padded, shifted"], dtype=torch.float32)
    expected = prompted_window_attention(*inputs, **kwargs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = prompted_window_attention(*inputs, **kwargs)
    assert torch.equal(actual, expected)


def test_inputs_may_be_strided_and_the_batch_empty():
    inputs, kwargs = make_inputs(LAYOUTS["padded, shifted"])
    expected = prompted_window_attention(*inputs, **kwargs)
    qkv = inputs[0].permute(4, 2, 1, 0, 3).contiguous().permute(3, 2, 1, 4, 0)
    qkv.requires_grad_()
    bias_table = inputs[2].T.contiguous().T
    out = prompted_window_attention(qkv, inputs[1], bias_table, **kwargs)
    torch.testing.assert_close(out, expected)
    out.sum().backward()  # the gradient of a sum has strides of zero
    empty = inputs[0][:0].requires_grad_()
    out = prompted_window_attention(empty, *inputs[1:], **kwargs)
    out.sum().backward()
    assert out.shape[0] == 0
    assert empty.grad is not None


def test_layouts_cached_in_inference_mode_serve_training():
    inputs, kwargs = make_inputs((9, 11, 5, 2, 1))
    with torch.inference_mode():
        expected = prompted_window_attention(*inputs, **kwargs)
    out = prompted_window_attention(inputs[0].requires_grad_(), *inputs[1:], **kwargs)
    out.sum().backward()
    torch.testing.assert_close(out, expected.clone())


def test_opcheck():
    for layout, need_prompts in itertools.product(
        ("padded, shifted", "divisible", "no prompts"), (True, False)
    ):
        inputs, kwargs = make_inputs(LAYOUTS[layout], dtype=torch.float32)
        for tensor in inputs:
            tensor.requires_grad_()
        args = (*inputs, *kwargs.values(), need_prompts)
        torch.library.opcheck(prompted_window_attention_op, args)


def test_opcheck_of_the_backward():
    inputs, kwargs = make_inputs(LAYOUTS["padded, shifted"], dtype=torch.float32)
    grad_out = torch.randn_like(prompted_window_attention(*inputs, **kwargs))
    torch.library.opcheck(
        torch.ops.stpn.prompted_window_attention_backward,
        (grad_out, *inputs, *kwargs.values(), True),
    )


def test_flops_count_two_products_forward_and_five_backward():
    from torch.utils.flop_counter import FlopCounterMode

    inputs, kwargs = make_inputs(LAYOUTS["padded, shifted"], images=2, heads=2, width=3)
    product = 2 * (2 * 6 * 2) * 3 * (2 + 9) ** 2  # multiply-adds; images, windows, heads; d; N
    with FlopCounterMode(display=False) as counter:
        out = prompted_window_attention(inputs[0].requires_grad_(), *inputs[1:], **kwargs)
        assert counter.get_total_flops() == 2 * product
        out.sum().backward()
    assert counter.get_total_flops() == 7 * product


class MapAttention(torch.nn.Module):
    """Joins prompts and a map of any size, as the prompted Swin does."""

    def forward(self, prompts: Tensor, grid: Tensor, qkv_bias: Tensor, table: Tensor) -> Tensor:
        qkv = torch.cat([prompts, grid.flatten(1, 2)], dim=1)
        return prompted_window_attention(
            qkv,
            qkv_bias,
            table,
            height=grid.shape[1],
            width=grid.shape[2],
            window_size=3,
            shift=1,
            num_prompts=prompts.shape[1],
        )


def make_maps(B: int, H: int, W: int) -> tuple[Tensor, ...]:
    shapes = ((B, 2, 3, 2, 4), (B, H, W, 3, 2, 4), (3, 2, 4), (25, 2))
    return tuple(torch.randn(shape) for shape in shapes)


@pytest.mark.compile
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_whole_with_its_backward(dynamic):
    model = MapAttention()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for B, H, W in ((2, 5, 7), (3, 6, 4)):
        maps = [tensor.requires_grad_() for tensor in make_maps(B, H, W)]
        expected, actual = model(*maps), compiled(*maps)
        torch.testing.assert_close(actual, expected)
        weights = torch.randn_like(expected)
        torch.testing.assert_close(
            torch.autograd.grad(actual, maps, weights),
            torch.autograd.grad(expected, maps, weights),
        )


@pytest.mark.compile
def test_exports_with_dynamic_batch_and_map_size():
    B, H, W = (torch.export.Dim(name, min=1, max=64) for name in ("B", "H", "W"))
    shapes = ({0: B}, {0: B, 1: H, 2: W}, None, None)
    program = torch.export.export(MapAttention(), make_maps(2, 5, 7), dynamic_shapes=shapes)
    for size in ((3, 9, 4), (1, 3, 3), (2, 1, 8)):
        maps = make_maps(*size)
        torch.testing.assert_close(program.module()(*maps), MapAttention()(*maps))


def _change(inputs: list[Tensor], kwargs: dict[str, int], name: str, value: object) -> None:
    if name in kwargs:
        kwargs[name] = value  # type: ignore[assignment]
    else:
        inputs[("qkv", "qkv_bias", "bias_table").index(name)] = value  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("qkv", torch.zeros(2, 37, 18)),
        ("qkv", torch.zeros(2, 37, 2, 2, 3)),
        ("qkv", torch.zeros(2, 37, 3, 2, 3, dtype=torch.int64)),
        ("qkv", torch.zeros(2, 36, 3, 2, 3)),
        ("qkv_bias", torch.zeros(18)),
        ("qkv_bias", torch.zeros(3, 2, 4)),
        ("qkv_bias", torch.zeros(3, 2, 3, dtype=torch.float64)),
        ("qkv_bias", torch.zeros(3, 2, 3, device="meta")),
        ("bias_table", torch.zeros(25)),
        ("bias_table", torch.zeros(24, 2)),
        ("bias_table", torch.zeros(25, 3)),
        ("bias_table", torch.zeros(25, 2, dtype=torch.float16)),
        ("height", 0),
        ("width", -7),
        ("window_size", 0),
        ("shift", 3),
        ("shift", -1),
        ("num_prompts", -1),
    ],
)
def test_errors_name_the_argument(name, value):
    inputs, kwargs = make_inputs(LAYOUTS["padded, shifted"], dtype=torch.float32)
    _change(inputs, kwargs, name, value)
    with pytest.raises((ValueError, TypeError), match=rf"\b{name}\b"):
        prompted_window_attention(*inputs, **kwargs)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("height", 6, r"qkv must hold .* = 2 \+ 6 \* 7 rows, got 37"),
        ("shift", 3, r"shift must be in \[0, window_size\) = \[0, 3\), got 3"),
        ("window_size", 4, r"bias_table must have shape .* = \(49, 2\), got \(25, 2\)"),
        ("num_prompts", -1, "num_prompts must be at least 0, got -1"),
    ],
)
def test_errors_say_what_was_wanted_and_what_came(name, value, message):
    inputs, kwargs = make_inputs(LAYOUTS["padded, shifted"], dtype=torch.float32)
    _change(inputs, kwargs, name, value)
    with pytest.raises(ValueError, match=message):
        prompted_window_attention(*inputs, **kwargs)
