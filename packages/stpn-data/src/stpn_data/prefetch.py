"""Read ahead in a thread: frames decode while the network works on those before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
_END = object()


def prefetch(items: Iterable[T], ahead: int = 2) -> Iterator[T]:
    """Yield the items in order; the next ones are made in a thread meanwhile.

    What the iterable raises is raised here, after the items before it. A consumer that stops
    early, or is closed, stops the thread.

    Args:
        items: what to read; it is iterated in the thread.
        ahead: items made before they are asked for.

    Raises:
        ValueError: `ahead` below 1.
    """
    if ahead < 1:
        raise ValueError(f"ahead must be at least 1, got {ahead}")
    return _read_ahead(iter(items), ahead)


def _read_ahead(iterator: Iterator[T], ahead: int) -> Iterator[T]:
    thread = ThreadPoolExecutor(max_workers=1)
    try:
        coming = deque(thread.submit(next, iterator, _END) for _ in range(ahead))
        while (item := coming.popleft().result()) is not _END:
            coming.append(thread.submit(next, iterator, _END))
            yield item  # type: ignore[misc]
    finally:
        thread.shutdown(cancel_futures=True)
