"""How the Triton kernels of `prompted_window_attention` are launched.

The windows of an image are shared out so that every multiprocessor gets some programs, and no more:
each program reads the position bias once and writes one partial sum, whatever its share.
"""

from dataclasses import dataclass
from typing import Any

import torch

from stpn_kernels.backend import num_multiprocessors


@dataclass(frozen=True)
class Configuration:
    """Of one kernel.

    Attributes:
        num_warps: warps of a program.
        num_stages: how many windows' loads are in flight.
        programs_per_multiprocessor: programs to make, so long as there are windows for them.
    """

    num_warps: int
    num_stages: int
    programs_per_multiprocessor: int

    @property
    def options(self) -> dict[str, Any]:
        """What to launch a kernel with."""
        return {
            "num_warps": self.num_warps,
            "num_stages": self.num_stages,
            "enable_fp_fusion": True,  # Triton 3.10 switches it off
        }


# Both by what compiling for sm_80 and sm_90 says of registers and spills (`compile_table`), and by
# the cost model; not yet tuned on a GPU.
def forward_configuration(dtype: torch.dtype, head_width: int) -> Configuration:
    """Return how to launch the forward: two windows in flight where registers suffice."""
    if dtype.itemsize == 2 and head_width <= 32:
        return Configuration(num_warps=4, num_stages=2, programs_per_multiprocessor=6)
    return Configuration(num_warps=8, num_stages=1, programs_per_multiprocessor=2)


def backward_configuration(dtype: torch.dtype, head_width: int) -> Configuration:
    """Return how to launch the backward, which takes all registers whatever its tile."""
    return Configuration(num_warps=8, num_stages=1, programs_per_multiprocessor=2)


def windows_per_program(
    configuration: Configuration,
    num_images: int,
    num_heads: int,
    num_windows: int,
    device: torch.device,
) -> int:
    """Return how many windows of an image and head one program walks."""
    programs = configuration.programs_per_multiprocessor * num_multiprocessors(device)
    groups = max(1, min(num_windows, programs // (num_images * num_heads)))
    return -(-num_windows // groups)
