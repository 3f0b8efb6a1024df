"""The wish of a scheduler that a process ends, noticed between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

# What a shell sees of a process that SIGTERM ended.
EXIT_CODE = 128 + signal.SIGTERM


class Terminated(Exception):  # noqa: N818
    """Training ended early because the process was sent SIGTERM; tells where it goes on."""


class TerminationWish:
    """Notice SIGTERM instead of dying of it, as long as the context lasts.

    Outside the main thread, where Python sets no handlers, SIGTERM does what it did.

    Args:
        heeded: whether to do so at all.

    Attributes:
        came: whether the signal came.
    """

    def __init__(self, *, heeded: bool = True) -> None:
        self.came = False
        self._heeded = heeded and threading.current_thread() is threading.main_thread()
        self._before: Any = None

    def __enter__(self) -> TerminationWish:
        """Take over the signal."""
        if self._heeded:
            self._before = signal.signal(signal.SIGTERM, self._notice)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signal back."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self.came = True


def ignore_in_worker(worker: int) -> None:
    """Let a process that loads items outlive a SIGTERM to all processes of a job.

    Otherwise its end would break off the step that the training finishes first. It ends with the
    training process.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
