"""What is timed: an operator, the ways to compute it, and the check that they agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from stpn_kernels.cost import Cost

Compute = Callable[..., Tensor]  # from shape, *inputs
# How far outputs and gradients may be from the reference in float32, as a part of its norm. Peers
# in bfloat16 round scores and weights to it.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 4e-2}


def _same(shape: Any) -> Any:
    return shape


@dataclass(frozen=True)
class Provider:
    """One way to compute an operator.

    Attributes:
        name: as it stands in the table.
        build: returns a call of no arguments, from a shape and the inputs.
        change: the shape that it is given, from the shape that is timed.
        check_at: the shape at which its numbers are compared with the reference, from its own.
        gpu_only: leave it out on a CPU.
        without_gradient: places of the inputs that it gives no gradient.
        note: what a reader of its times has to know.
    """

    name: str
    build: Callable[[Any, list[Tensor]], Callable[[], Tensor]]
    change: Callable[[Any], Any] = _same
    check_at: Callable[[Any], Any] = _same
    gpu_only: bool = False
    without_gradient: Sequence[int] = ()
    note: str = ""


def provider(name: str, compute: Compute, **options: Any) -> Provider:
    """Return the provider that calls a function of shape and inputs."""
    return Provider(name, lambda shape, inputs: partial(compute, shape, *inputs), **options)


@dataclass(frozen=True)
class Problem:
    """An operator with all that it takes to time it.

    Attributes:
        operator: its name.
        shapes: to time it at.
        inputs: size and standard deviation of each input, from a shape.
        reference: its meaning.
        costs: the least that ``forward``, ``backward`` and ``both`` can cost, from a shape and the
            bytes of a number.
        providers: ways to compute it, ours first.
    """

    operator: str
    shapes: Sequence[Any]
    inputs: Callable[[Any], list[tuple[tuple[int, ...], float]]]
    reference: Compute
    costs: Callable[[Any, int], Mapping[str, Cost]]
    providers: Sequence[Provider]

    def draw(self, shape: Any, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        """Return random inputs, the same for the same shape."""
        generator = torch.Generator(device).manual_seed(0)
        return [
            nn.Parameter((torch.randn(size, generator=generator, device=device) * std).to(dtype))
            for size, std in self.inputs(shape)
        ]


@dataclass(frozen=True)
class Expected:
    """What the reference computes in float32.

    Attributes:
        inputs: what it is computed from, in the dtype that is timed.
        out: output.
        grad: gradient of the output.
        grads: gradients of all inputs.
    """

    inputs: list[Tensor]
    out: Tensor
    grad: Tensor
    grads: Sequence[Tensor]


def expect(problem: Problem, shape: Any, device: torch.device, dtype: torch.dtype) -> Expected:
    """Return what every provider has to compute at a shape."""
    inputs = problem.draw(shape, device, dtype)
    exact = [tensor.detach().float().requires_grad_() for tensor in inputs]
    out = problem.reference(shape, *exact)
    grad = torch.randn_like(out)
    return Expected(inputs, out.detach(), grad, torch.autograd.grad(out, exact, grad))


def check(provider: Provider, shape: Any, expected: Expected) -> None:
    """Raise an error if output or gradients of a provider are not what is expected at a shape."""
    out = provider.build(shape, expected.inputs)()
    asked = [n for n in range(len(expected.inputs)) if n not in provider.without_gradient]
    inputs = [expected.inputs[place] for place in asked]
    grads = torch.autograd.grad(out, inputs, expected.grad.to(out.dtype))
    _assert_close("output", out, expected.out)
    for place, grad in zip(asked, grads, strict=True):
        _assert_close(f"gradient of input {place}", grad, expected.grads[place])


def _assert_close(name: str, actual: Tensor, expected: Tensor) -> None:
    # Where padding is masked away its gradient is zero, or a few denormal numbers.
    norm = expected.norm().clamp(min=1e-30)
    distance = ((actual.float() - expected).norm() / norm).item()
    if not distance <= TOLERANCES[actual.dtype]:
        raise AssertionError(f"{name} differs from the reference by {distance:.1e} of its norm")
