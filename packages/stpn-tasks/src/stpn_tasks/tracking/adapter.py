"""Our tracker for the toolkit of GOT-10k, whose experiments run it on any of its benchmarks.

The only module that imports the toolkit: ``pip install got10k six`` (it needs six and does not say
so).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from got10k.trackers import Tracker
from numpy.typing import NDArray

from stpn_tasks.tracking.tracker import OnlineTracker


class ToolkitTracker(Tracker):  # type: ignore[misc]  # the toolkit has no types
    """Give a tracker the methods that the toolkit calls.

        ExperimentGOT10k("GOT-10k", subset="val").run(ToolkitTracker(tracker, "STPN"))

    It is deterministic: the toolkit runs it once on a sequence.

    Args:
        tracker: what tracks.
        name: of the folder of its results.
    """

    def __init__(self, tracker: OnlineTracker, name: str) -> None:
        super().__init__(name=name, is_deterministic=True)
        self.tracker = tracker

    def init(self, image: Any, box: NDArray[np.float64]) -> None:
        """Begin with a PIL image and the target's x, y, width, height in it."""
        self.tracker.init(_pixels(image), box.tolist())

    def update(self, image: Any) -> NDArray[np.float64]:
        """Return x, y, width, height of the target in the next PIL image."""
        return np.array(self.tracker.track(_pixels(image)).box_xywh)


def _pixels(image: Any) -> NDArray[np.uint8]:
    return np.asarray(image.convert("RGB"), np.uint8)
