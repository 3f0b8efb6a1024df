"""Work side by side in a few processes, with one progress bar each."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
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
    first: Sequence[Task[None]], then: Sequence[Sequence[Task[Result]]], workers: int
) -> list[list[Result]]:
    """Run tasks, each with followers that need it done, and return what the followers returned.

    Processes share the threads; what is alone runs here, with all of them. If a task fails,
    those that run are waited for, and no other one begins.

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
        return _run(pool, first, then, workers)


def _run(
    pool: ProcessPoolExecutor,
    first: Sequence[Task[None]],
    then: Sequence[Sequence[Task[Result]]],
    workers: int,
) -> list[list[Result]]:
    """Hand out one task per worker at a time: a pool would take more, and not give them back."""
    found: list[dict[int, Result]] = [{} for _ in then]
    waiting: deque[tuple[int, int | None]] = deque((i, None) for i in range(len(first)))
    if not first:
        waiting.extend((i, j) for i, tasks in enumerate(then) for j in range(len(tasks)))
    running: dict[Future[Any], tuple[int, int | None]] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            i, j = waiting.popleft()
            running[pool.submit(first[i] if j is None else then[i][j])] = (i, j)
        for done in wait(running, return_when=FIRST_COMPLETED).done:
            i, j = running.pop(done)
            result = done.result()  # raises what the task raised
            if j is None:
                waiting.extend((i, follower) for follower in range(len(then[i])))
            else:
                found[i][j] = result
    return [[of_one[j] for j in sorted(of_one)] for of_one in found]


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
