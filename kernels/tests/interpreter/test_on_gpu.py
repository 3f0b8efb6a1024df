"""What only a GPU can show: races, CUDA graphs, generated code, memory errors."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from stpn_kernels import prompted_window_attention

pytestmark = pytest.mark.gpu

# Stage 1 of Swin-T at 600 x 1000, two images: padded, shifted, windows shared out over all
# multiprocessors.
SIZES = {"height": 150, "width": 250, "window_size": 7, "shift": 3, "num_prompts": 7}


def leaves_of(dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
    generator = torch.Generator("cuda").manual_seed(0)
    rows = SIZES["num_prompts"] + SIZES["height"] * SIZES["width"]
    shapes = ((2, rows, 3, 3, 32), (3, 3, 32), (169, 3))
    dtypes = (dtype, torch.float32, torch.float32)
    return [
        torch.randn(shape, generator=generator, device="cuda").to(dtype).requires_grad_()
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]


def attend(*leaves: Tensor) -> Tensor:
    return prompted_window_attention(*leaves, **SIZES, backend="triton")


def output_and_gradients(leaves: list[Tensor], function=attend) -> list[Tensor]:
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out.float().square().sum(), leaves)]


def test_hundred_repeats_are_bitwise_equal():
    leaves = leaves_of()
    first = output_and_gradients(leaves)
    for _ in range(100):
        again = output_and_gradients(leaves)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_half_precision_at_full_size_errs_as_little_as_the_reference():
    leaves = leaves_of()
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = output_and_gradients(
        exact, lambda *x: prompted_window_attention(*x, **SIZES, backend="reference")
    )
    for made, wanted in zip(output_and_gradients(leaves), expected, strict=True):
        assert (made.double() - wanted).norm() < 1e-2 * wanted.norm()


@pytest.mark.compile
def test_generated_code_gives_the_same():
    leaves = leaves_of()
    compiled = torch.compile(attend, fullgraph=True)
    for made, wanted in zip(
        output_and_gradients(leaves, compiled), output_and_gradients(leaves), strict=True
    ):
        torch.testing.assert_close(made, wanted)


def test_cuda_graph_replays_on_new_numbers():
    static = [leaf.detach() for leaf in leaves_of()]
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream), torch.no_grad():
        attend(*static)  # compiles
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), torch.no_grad():
        out = attend(*static)
    for scale in (1.0, -0.5):
        for tensor in static:
            tensor.mul_(scale)
        graph.replay()
        assert torch.equal(out, attend(*static))


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_sanitizer_finds_nothing(tool):
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer of the CUDA toolkit is not on the path")
    script = (
        "import torch\n"
        "from stpn_kernels import prompted_window_attention as attend\n"
        "for shift, prompts in ((0, 7), (3, 7), (3, 0)):\n"
        "    qkv = torch.randn(2, prompts + 90, 3, 2, 32, device='cuda', requires_grad=True)\n"
        "    bias = torch.randn(3, 2, 32, device='cuda', requires_grad=True)\n"
        "    table = torch.randn(169, 2, device='cuda', requires_grad=True)\n"
        "    attend(qkv, bias, table, height=9, width=10, window_size=7, shift=shift,\n"
        "           num_prompts=prompts, backend='triton').sum().backward()\n"
    )
    command = [sanitizer, "--tool", tool, "--error-exitcode", "1", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
