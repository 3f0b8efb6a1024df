"""Work side by side in a few processes, with one progress bar each."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import torch
from tqdm import tqdm

Result = TypeVar("Result")

_line = 0


def line() -> int:
    """Return the line of the terminal that this process may draw its bar in."""
    return _line


def side_by_side(tasks: Sequence[Callable[[], Result]], workers: int) -> list[Result]:
    """Run tasks and return their results in order.

    Processes share the threads; a single task or worker runs here, with all of them. If a task
    fails, those that run are waited for and those that have not begun are dropped.

    Args:
        tasks: what can be pickled, such as a ``functools.partial`` of a module's function.
        workers: processes.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        return [task() for task in tasks]
    context = multiprocessing.get_context("spawn")
    lines = context.Queue()
    for number in range(workers):
        lines.put(number)
    threads = max(1, torch.get_num_threads() // workers)
    start = (threads, context.RLock(), lines)
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=start) as pool:
        futures = [pool.submit(task) for task in tasks]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _begin(threads: int, lock: Any, lines: Any) -> None:
    global _line
    torch.set_num_threads(threads)
    tqdm.set_lock(lock)
    _line = lines.get()
