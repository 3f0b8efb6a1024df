from dataclasses import asdict, dataclass

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from stpn_kernels import prompted_window_attention, support_attend
from stpn_kernels.cost import H200, Cost, Device
from stpn_kernels.prompted_window_attention import cost as window_attention
from stpn_kernels.support_attend import cost as attend
from stpn_kernels.support_pool import cost as pool


@dataclass(frozen=True)
class Window:
    """A call of `prompted_window_attention`; by default stage 1 of Swin-T at 600x1000, bfloat16."""

    images: int = 1
    height: int = 150
    width: int = 250
    window_size: int = 7
    num_prompts: int = 7
    heads: int = 3
    head_width: int = 32
    element_size: int = 2


def flops(forward, inputs):
    """Count what torch is told of a forward and of its backward."""
    with FlopCounterMode(display=False) as counter:
        out = forward(*inputs)
    ahead = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(out.sum(), inputs)
    return ahead, counter.get_total_flops()


@pytest.mark.parametrize(
    ("stage", "megabytes", "microseconds"), [(1, 28.8, 6.7), (2, 14.4, 3.4), (3, 7.4, 1.7)]
)
def test_window_attention_of_swin_tiny_is_bound_by_memory(stage, megabytes, microseconds):
    height, width = [(150, 250), (75, 125), (38, 63)][stage - 1]
    cost = window_attention.forward_cost(
        **asdict(Window(height=height, width=width, heads=3 * 2 ** (stage - 1)))
    )
    assert cost.bytes / 1e6 == pytest.approx(megabytes, abs=0.05)
    assert H200.floor_seconds(cost) * 1e6 == pytest.approx(microseconds, abs=0.05)
    assert H200.floor_seconds(cost) == cost.bytes / 4.3e12


def test_window_attention_by_hand():
    # 22 x 36 windows of 56 rows; 7 + 150 * 250 rows of 96 channels, 3 in and 1 out.
    forward = window_attention.forward_cost(**asdict(Window()))
    assert forward.flops == 2 * 2 * 22 * 36 * 56 * 56 * 96
    assert forward.bytes == 2 * (4 * 37507 * 96 + 3 * 96 + 169 * 3)
    backward = window_attention.backward_cost(**asdict(Window()))
    assert backward.flops * 2 == forward.flops * 5
    assert backward.bytes / forward.bytes == pytest.approx(7 / 4, rel=1e-3)


def test_window_attention_counts_what_torch_is_told():
    size = Window(images=2, height=9, width=15, num_prompts=3, heads=2, head_width=4)
    inputs = [
        torch.randn(2, 3 + 9 * 15, 3, 2, 4, requires_grad=True),
        torch.randn(3, 2, 4, requires_grad=True),
        torch.randn(169, 2, requires_grad=True),
    ]

    def forward(*inputs):
        return prompted_window_attention(
            *inputs, height=9, width=15, window_size=7, shift=3, num_prompts=3
        )

    expected = flops(forward, inputs)
    assert window_attention.forward_cost(**asdict(size)).flops == expected[0]
    assert window_attention.backward_cost(**asdict(size)).flops == expected[1]


def test_support_pool_reads_its_frames_once():
    size = {"clips": 1, "support_frames": 14, "tokens": 19 * 32, "channels": 768}
    cost = pool.forward_cost(**size, element_size=2)
    read, written = 14 * 608 * 768 * 2, 608 * 768 * 2
    assert read / 1e6 == pytest.approx(13.1, abs=0.05)
    assert cost.bytes == read + written + 2 * 768 * 2
    assert H200.floor_seconds(cost) == cost.bytes / 4.3e12
    assert pool.backward_cost(**size, element_size=2).bytes == cost.bytes + written + 2 * 768 * 2


def test_support_attend_counts_what_torch_is_told():
    size = {"clips": 2, "support_frames": 3, "tokens": 5, "channels": 8, "num_prompts": 4}
    inputs = [torch.randn(4, 2, 8, requires_grad=True), torch.randn(2, 3, 5, 8, requires_grad=True)]
    forward = attend.forward_cost(**size, heads=2, element_size=4)
    backward = attend.backward_cost(**size, heads=2, element_size=4)
    assert (forward.flops, backward.flops) == flops(support_attend, inputs)
    assert forward.bytes == 4 * (2 * 3 * 5 * 8 + 4 * 2 * 8 + 2 * 4 * 2 * 8)
    assert backward.bytes == 4 * (2 * 2 * 3 * 5 * 8 + 2 * 4 * 2 * 8 + 2 * 4 * 2 * 8)


def test_the_floor_is_the_slower_of_memory_and_arithmetic():
    device = Device("by hand", bytes_per_second=10.0, flops_per_second=100.0)
    assert device.floor_seconds(Cost(20, 100)) == 2.0
    assert device.floor_seconds(Cost(20, 100) + Cost(0, 300)) == 4.0
