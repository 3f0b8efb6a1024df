"""How the Triton kernels of `support_pool` are launched."""

from dataclasses import dataclass
from typing import Any

import torch

from stpn_kernels.backend import num_multiprocessors

LARGEST_WIDTH = 4096  # channels; more would spill the registers of a tile of one token


@dataclass(frozen=True)
class Configuration:
    """Of one kernel.

    Attributes:
        num_warps: warps of a program.
        tile_size: numbers in a tile, unless that leaves multiprocessors without a program.
        programs_per_multiprocessor: programs that a multiprocessor should have.
    """

    num_warps: int
    tile_size: int
    programs_per_multiprocessor: int

    @property
    def options(self) -> dict[str, Any]:
        """What to launch a kernel with."""
        return {"num_warps": self.num_warps, "enable_fp_fusion": True}  # Triton 3.10: off


# By what compiling for sm_80 and sm_90 says of registers and spills; not yet tuned on a GPU.
FORWARD = Configuration(num_warps=4, tile_size=4096, programs_per_multiprocessor=2)
BACKWARD = Configuration(num_warps=8, tile_size=4096, programs_per_multiprocessor=2)


def block_width(width: int) -> int:
    """Return the width of a tile, which must be a power of two."""
    return 1 << (width - 1).bit_length()


def tokens_per_tile(
    configuration: Configuration, num_images: int, num_tokens: int, width: int, device: torch.device
) -> int:
    """Return how many tokens a tile holds: fewer where there are few, to have enough programs."""
    rows = max(1, configuration.tile_size // block_width(width))
    while rows > 1 and num_images * -(-num_tokens // rows) < wanted_programs(configuration, device):
        rows //= 2
    return rows


def wanted_programs(configuration: Configuration, device: torch.device) -> int:
    """Return how many programs fill a device."""
    return configuration.programs_per_multiprocessor * num_multiprocessors(device)
