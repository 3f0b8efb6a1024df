from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stpn_kernels import prompted_window_attention
from stpn_kernels.prompted_window_attention import triton_op, why_not
from stpn_kernels.prompted_window_attention.configurations import Configuration
from stpn_kernels.prompted_window_attention.triton_op import (
    prompted_window_attention_triton_backward_op,
    prompted_window_attention_triton_op,
)
from stpn_kernels.testing import TRITON_DEVICE, TRITON_DTYPES, poisoned, randn, relative_errors


@dataclass(frozen=True)
class Layout:
    height: int
    width: int
    window_size: int = 7
    shift: int = 0
    num_prompts: int = 7
    images: int = 1
    heads: int = 2
    head_width: int = 32

    @property
    def sizes(self) -> dict[str, int]:
        names = ("height", "width", "window_size", "shift", "num_prompts")
        return {name: getattr(self, name) for name in names}


LAYOUTS = {
    "no padding": Layout(7, 14),
    "no padding, shifted": Layout(14, 14, shift=3),
    "padded": Layout(5, 9),
    "padded, shifted": Layout(10, 8, shift=3),
    "smaller than a window": Layout(3, 2, shift=3),
    "no prompts": Layout(8, 8, shift=3, num_prompts=0),
    "nine prompts": Layout(8, 8, shift=3, num_prompts=9),
    "a full tile": Layout(8, 8, shift=3, num_prompts=15),
    "two images": Layout(8, 8, shift=3, images=2),
    "one head of 16": Layout(8, 8, shift=3, heads=1, head_width=16),
    "three heads of 64": Layout(8, 8, shift=3, num_prompts=1, heads=3, head_width=64),
    "small windows": Layout(5, 6, window_size=3, shift=1, num_prompts=2),
    "windows of one": Layout(2, 3, window_size=1, num_prompts=1),
}


def inputs_of(layout: Layout, dtype: torch.dtype) -> list[Tensor]:
    """Return qkv, its bias, the bias table, and a gradient of the output."""
    generator = torch.Generator().manual_seed(layout.height * 100 + layout.width)
    B, h, d = layout.images, layout.heads, layout.head_width
    X = layout.num_prompts + layout.height * layout.width
    parameter = torch.float32  # stays so under autocast
    return [
        poisoned(randn((B, X, 3, h, d), generator, dtype)),
        poisoned(randn((3, h, d), generator, parameter)),
        poisoned(randn(((2 * layout.window_size - 1) ** 2, h), generator, parameter)),
        poisoned(randn((B, X, h * d), generator, dtype)),
    ]


def run(
    layout: Layout, inputs: list[Tensor], backend: str, need_prompts: bool = True
) -> list[Tensor]:
    """Return output and gradients."""
    *leaves, grad_out = inputs
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    out = prompted_window_attention(
        *leaves, **layout.sizes, need_prompts=need_prompts, backend=backend
    )
    return [out.detach(), *torch.autograd.grad(out, leaves, grad_out)]


def eager(layout: Layout, inputs: list[Tensor], need_prompts: bool) -> list[Tensor]:
    """Return output and gradients of PyTorch's own code in the dtype of the inputs.

    The definition without the reference's float32 arithmetic: what a user would have written.
    """
    from stpn_kernels.prompted_window_attention import reference

    dtype = inputs[0].dtype
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "compute_dtype", lambda _: dtype)
        *leaves, grad_out = inputs
        leaves = [leaf.detach().requires_grad_() for leaf in leaves]
        out = reference.prompted_window_attention_reference(
            *leaves, **layout.sizes, need_prompts=need_prompts
        )
        return [out.detach(), *torch.autograd.grad(out, leaves, grad_out)]


def assert_as_exact_as_eager(layout: Layout, dtype: torch.dtype, need_prompts: bool = True) -> None:
    """Against float64, output and gradients err at most twice as much as PyTorch's eager code."""
    inputs = inputs_of(layout, dtype)
    exact = run(layout, [t.double() for t in inputs], "reference", need_prompts)
    allowed = relative_errors(eager(layout, inputs, need_prompts), exact)
    made = relative_errors(run(layout, inputs, "triton", need_prompts), exact)
    for name, error, limit in zip(("out", "qkv", "bias", "table"), made, allowed, strict=True):
        assert error <= 2 * limit + 1e-6, f"{name}: {error:.1e}, eager {limit:.1e}"


@pytest.mark.parametrize("dtype", TRITON_DTYPES)
@pytest.mark.parametrize("name", LAYOUTS)
def test_output_and_gradients_err_no_more_than_eager_code(name, dtype):
    assert_as_exact_as_eager(LAYOUTS[name], dtype)


@pytest.mark.parametrize("name", ["padded, shifted", "small windows"])
def test_prompts_that_nobody_needs_are_zero_and_give_no_gradient(name):
    layout = LAYOUTS[name]
    assert_as_exact_as_eager(layout, torch.float32, need_prompts=False)
    out, *_ = run(layout, inputs_of(layout, torch.float32), "triton", need_prompts=False)
    assert torch.count_nonzero(out[:, : layout.num_prompts]) == 0


@settings(deadline=None, max_examples=25)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    window_and_shift=st.integers(1, 7).flatmap(
        lambda w: st.tuples(st.just(w), st.integers(0, w - 1))
    ),
    num_prompts=st.integers(0, 15),
    images=st.integers(1, 2),
    heads=st.integers(1, 2),
    head_width=st.sampled_from([16, 32]),
)
def test_random_shapes_give_what_the_reference_gives(
    size, window_and_shift, num_prompts, images, heads, head_width
):
    window_size, shift = window_and_shift
    size = tuple(min(side, 3 * window_size) for side in size)  # the interpreter is slow
    layout = Layout(*size, window_size, shift, num_prompts, images, heads, head_width)
    inputs = inputs_of(layout, torch.float32)
    exact = run(layout, [t.double() for t in inputs], "reference")
    # Twice eager's error would be luck here: some gradients are one number, mostly cancelled.
    assert max(relative_errors(run(layout, inputs, "triton"), exact)) < 3e-5


def test_two_images_equal_each_alone():
    layout = LAYOUTS["two images"]
    inputs = inputs_of(layout, torch.float32)
    together = run(layout, inputs, "triton")
    alone = [
        run(replace(layout, images=1), [qkv[None], *inputs[1:3], grad[None]], "triton")
        for qkv, grad in zip(inputs[0], inputs[3], strict=True)
    ]
    for index in (0, 1):  # output, gradient of qkv
        torch.testing.assert_close(
            together[index], torch.cat([part[index] for part in alone]), rtol=1e-5, atol=1e-6
        )
    for index in (2, 3):  # gradients of what images share
        torch.testing.assert_close(
            together[index], sum(part[index] for part in alone), rtol=1e-5, atol=1e-5
        )


def test_shares_of_any_size_give_the_same(monkeypatch):
    # One program per window, or one for all of them, or an uneven last one.
    layout = Layout(14, 20, shift=3)
    inputs = inputs_of(layout, torch.float32)
    expected = run(layout, inputs, "reference")
    for programs in (0, 2, 4, 100):
        share = Configuration(4, 1, programs)
        for direction in ("forward", "backward"):
            monkeypatch.setattr(triton_op, f"{direction}_configuration", lambda *_, s=share: s)
        for actual, wanted in zip(run(layout, inputs, "triton"), expected, strict=True):
            torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5)


def test_repeats_are_bitwise_equal():
    layout = LAYOUTS["padded, shifted"]
    inputs = inputs_of(layout, torch.float16)
    first, second = (run(layout, inputs, "triton") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_sequence_that_is_not_contiguous_gives_the_same():
    layout = LAYOUTS["padded"]
    inputs = inputs_of(layout, torch.float32)
    strided = [t.expand(2, *t.shape).movedim(0, -1).contiguous()[..., 0] for t in inputs]
    assert not strided[0].is_contiguous()
    for actual, wanted in zip(
        run(layout, strided, "triton"), run(layout, inputs, "triton"), strict=True
    ):
        assert torch.equal(actual, wanted)


def test_an_empty_batch_gives_empty_results():
    layout = replace(LAYOUTS["padded"], images=0)
    out, d_qkv, d_bias, d_table = run(layout, inputs_of(layout, torch.float32), "triton")
    assert out.shape[0] == d_qkv.shape[0] == 0
    assert torch.count_nonzero(d_bias) == torch.count_nonzero(d_table) == 0


def test_opcheck():
    layout = LAYOUTS["small windows"]
    *leaves, grad_out = inputs_of(layout, torch.float32)
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    rest = (*layout.sizes.values(), True)
    torch.library.opcheck(prompted_window_attention_triton_op, (*leaves, *rest))
    detached = [leaf.detach() for leaf in leaves]
    torch.library.opcheck(
        prompted_window_attention_triton_backward_op, (grad_out.clone(), *detached, *rest)
    )


@pytest.mark.compile
def test_traces_whole_with_gradients():
    layout = LAYOUTS["small windows"]
    inputs = inputs_of(layout, torch.float32)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def attend(*leaves: Tensor) -> Tensor:
        return prompted_window_attention(*leaves, **layout.sizes, backend="triton")

    *leaves, grad_out = inputs
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    out = attend(*leaves)
    actual = [out.detach(), *torch.autograd.grad(out, leaves, grad_out)]
    for a, b in zip(actual, run(layout, inputs, "triton"), strict=True):
        assert torch.equal(a, b)


def test_autocast_does_not_reach_inside():
    layout = LAYOUTS["small windows"]
    *leaves, _ = inputs_of(layout, torch.float16)
    with torch.autocast(TRITON_DEVICE, dtype=torch.bfloat16):
        out = prompted_window_attention(*leaves, **layout.sizes, backend="triton")
    assert out.dtype == torch.float16
    assert torch.equal(out, prompted_window_attention(*leaves, **layout.sizes, backend="triton"))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"head_width": 24}, "head width 24"),
        ({"num_prompts": 16}, "65 rows"),
        ({"window_size": 12}, "12 x 12 tokens"),
    ],
)
def test_what_triton_cannot_run_is_said_in_words_and_left_to_the_reference(change, word):
    layout = replace(Layout(5, 6), **change)
    inputs = inputs_of(layout, torch.float32)
    reasons = why_not(inputs[0], window_size=layout.window_size, num_prompts=layout.num_prompts)
    assert any(word in reason for reason in reasons)
    with pytest.raises(ValueError, match=word):
        run(layout, inputs, "triton")
    for a, b in zip(run(layout, inputs, "auto"), run(layout, inputs, "reference"), strict=True):
        assert torch.equal(a, b)


def test_float64_is_left_to_the_reference():
    layout = LAYOUTS["padded"]
    inputs = [tensor.double() for tensor in inputs_of(layout, torch.float32)]
    with pytest.raises(ValueError, match=r"torch.float64 is computed by the reference only"):
        run(layout, inputs, "triton")


class Attention(nn.Module):
    """A projection before the attention, as in a backbone, with parameters to train."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.shape = (3, layout.heads, layout.head_width)
        self.options = {
            name: layout.sizes[name] for name in ("window_size", "shift", "num_prompts")
        }
        self.qkv = nn.Linear(8, math.prod(self.shape), device=TRITON_DEVICE)
        table_rows = (2 * layout.window_size - 1) ** 2
        self.table = nn.Parameter(torch.randn(table_rows, layout.heads, device=TRITON_DEVICE))

    def forward(self, prompts: Tensor, maps: Tensor) -> Tensor:
        height, width = maps.shape[1:3]
        qkv = self.qkv(torch.cat([prompts, maps.flatten(1, 2)], dim=1)).unflatten(2, self.shape)
        return prompted_window_attention(
            qkv,
            self.qkv.bias.view(self.shape),
            self.table,
            height=height,
            width=width,
            **self.options,
            backend="triton",
        )


def prompts_and_maps(layout: Layout, images: int, height: int, width: int) -> list[Tensor]:
    torch.manual_seed(height)
    shapes = ((images, layout.num_prompts, 8), (images, height, width, 8))
    return [torch.randn(shape, device=TRITON_DEVICE) for shape in shapes]


@pytest.mark.compile
def test_exports_with_any_batch_and_size():
    layout = LAYOUTS["small windows"]
    model = Attention(layout)
    auto = torch.export.Dim.AUTO
    program = torch.export.export(
        model,
        tuple(prompts_and_maps(layout, 2, 5, 6)),
        dynamic_shapes=({0: auto}, {0: auto, 1: auto, 2: auto}),
    )
    for size in ((3, 4, 7), (5, 8, 3)):
        inputs = prompts_and_maps(layout, *size)
        torch.testing.assert_close(program.module()(*inputs), model(*inputs))


def test_trains_under_ddp_in_deterministic_mode(tmp_path):
    layout = LAYOUTS["small windows"]
    inputs = prompts_and_maps(layout, 2, 5, 6)
    alone, wrapped = Attention(layout), Attention(layout)
    alone(*inputs).square().sum().backward()
    store = f"file://{tmp_path / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    torch.use_deterministic_algorithms(True)
    try:
        DistributedDataParallel(wrapped)(*inputs).square().sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
        torch.distributed.destroy_process_group()
    for a, b in zip(alone.parameters(), wrapped.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
