"""Work side by side in a few processes, with one progress bar each."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

import torch
from tqdm import tqdm

Result = TypeVar("Result")
Task = Callable[[], Result]

_line = 0


def line() -> int:
    """Return the line of the terminal that this process may draw its bar in."""
    return _line


def in_two_stages(
    first: Sequence[Task[object]], then: Sequence[Sequence[Task[Result]]], workers: int
) -> list[list[Result]]:
    """Run tasks, each with followers that need it done, and return what the followers returned.

    Processes share the threads; what is alone runs here, with all of them. If a task fails,
    those that run are waited for, and those that have not begun are dropped.

    Args:
        first: what can be pickled, such as a ``functools.partial`` of a module's function.
        then: the followers of each of them.
        workers: processes.
    """
    if workers == 1 or len(first) == 1:
        for task in first:
            task()
        first = ()
    if workers == 1 or (not first and sum(map(len, then)) == 1):
        return [[task() for task in tasks] for tasks in then]
    with _pool(workers) as pool:
        followers: dict[int, list[Future[Result]]] = {}
        try:
            leaders = {pool.submit(task): index for index, task in enumerate(first)}
            for index in _in_order_of_completion(leaders) if first else range(len(then)):
                followers[index] = [pool.submit(task) for task in then[index]]
            return [[one.result() for one in followers[index]] for index in range(len(then))]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _in_order_of_completion(numbers: Mapping[Future[object], int]) -> Iterator[int]:
    for done in as_completed(numbers):
        done.result()  # raises what the task raised
        yield numbers[done]


def _pool(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    lines = context.Queue()
    for number in range(workers):
        lines.put(number)
    threads = max(1, torch.get_num_threads() // workers)
    start = (threads, context.RLock(), lines)
    return ProcessPoolExecutor(workers, context, initializer=_begin, initargs=start)


def _begin(threads: int, lock: Any, lines: Any) -> None:
    global _line
    torch.set_num_threads(threads)
    tqdm.set_lock(lock)
    _line = lines.get()
