"""Which items each step of a training sees, and who takes which of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


def epoch_order(num_items: int, epoch_size: int, seed: int, epoch: int) -> list[int]:
    """Return the order of an epoch: whole permutations, one after the other, cut at its size.

    Args:
        num_items: size of the data set.
        epoch_size: items drawn per epoch; more than there are go round again.
        seed: of the order.
        epoch: whose order it is.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order: list[int] = []
    while len(order) < epoch_size:
        order += torch.randperm(num_items, generator=generator).tolist()
    return order[:epoch_size]


class StepSampler(Sampler[list[int]]):
    """The micro-batches that one process takes of the steps of an epoch.

    The items of a step are the same however it is shared out: process p of P takes the micro-batch
    a·P + p of each step, a = 0 .. accumulate - 1. What does not fill a step is left out.

    Args:
        num_items: size of the data set.
        epoch_size: items drawn per epoch; at least one step is.
        batch_size: items of a step, over all processes.
        seed: of the order.
        process: number of this process.
        num_processes: P.
        accumulate: micro-batches that a process takes of a step.

    Raises:
        ValueError: if a step cannot be shared out equally.
    """

    def __init__(
        self,
        num_items: int,
        epoch_size: int,
        batch_size: int,
        seed: int,
        *,
        process: int = 0,
        num_processes: int = 1,
        accumulate: int = 1,
    ) -> None:
        if accumulate < 1:
            raise ValueError(f"accumulate must be at least 1, got {accumulate}")
        if batch_size % (num_processes * accumulate):
            raise ValueError(
                f"optim.batch_size {batch_size}, the clips of a step, cannot be shared out equally "
                f"over {num_processes} processes with {accumulate} micro-batches each"
            )
        self.num_items = num_items
        self.batch_size = batch_size
        self.seed = seed
        self.process = process
        self.num_processes = num_processes
        self.accumulate = accumulate
        self.steps = max(epoch_size // batch_size, 1)
        self.epoch = self.first = 0

    def start(self, epoch: int, step: int) -> None:
        """Choose the epoch that comes next, and the step in it to begin at."""
        self.epoch, self.first = epoch, step

    def __len__(self) -> int:
        """Return the number of micro-batches that come next."""
        return (self.steps - self.first) * self.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the indices of each micro-batch."""
        size = self.batch_size // (self.num_processes * self.accumulate)
        epoch_size = self.steps * self.batch_size
        order = epoch_order(self.num_items, epoch_size, self.seed, self.epoch)
        for step in range(self.first, self.steps):
            for turn in range(self.accumulate):
                part = turn * self.num_processes + self.process
                start = step * self.batch_size + part * size
                yield order[start : start + size]
