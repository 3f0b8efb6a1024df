"""The least that a call can cost, and the least time that a device can take for it.

The costs of the operators stand beside them: ``<operator>/cost.py``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What no implementation of a call can do without.

    Attributes:
        bytes: what has to be read from memory and written to it: every input and output once.
        flops: floating-point operations, a multiplication and an addition counted as two.
    """

    bytes: int
    flops: int

    def __add__(self, other: Cost) -> Cost:
        """Return the cost of both calls."""
        return Cost(self.bytes + other.bytes, self.flops + other.flops)


@dataclass(frozen=True)
class Device:
    """How fast a device moves bytes and multiplies matrices.

    Attributes:
        name: of the device.
        bytes_per_second: of a large copy, bytes read and bytes written both counted.
        flops_per_second: of a large matrix product in the dtype of the calls.
    """

    name: str
    bytes_per_second: float
    flops_per_second: float

    def floor_seconds(self, cost: Cost) -> float:
        """Return the time below which no call of this cost gets: of memory, or of arithmetic.

        What lies in a cache already is not read from memory, so a call may get below it there.
        """
        return max(cost.bytes / self.bytes_per_second, cost.flops / self.flops_per_second)


# For predictions where there is no GPU to be measured; bfloat16.
H200 = Device("NVIDIA H200", bytes_per_second=4.3e12, flops_per_second=790e12)
