"""The generated data set: deteriorated video with boxes, masks and tracks, from a seed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from stpn_data.deteriorated.annotations import Annotations
from stpn_data.deteriorated.cache import ClipStore, default_cache_dir
from stpn_data.deteriorated.options import SPLITS, RenderOptions, Split
from stpn_data.videos import FrameObjects, Video


class DeterioratedVideo:
    """Offer generated clips as a `VideoDataset`; nothing is downloaded.

    Clips are rendered once and kept in a cache folder, whose name in `cache_dir` follows from
    the options, the seed and the version of the renderer. Clip `i` of a split is the same
    whatever `num_videos` is, and no clip is in two splits. Every frame is a key frame.

    Args:
        cache_dir: where rendered clips are kept (38 kB a frame at the default size); None for
            `$XDG_CACHE_HOME/stpn` or `~/.cache/stpn`.
        split: "train", "val" or "test".
        num_videos: number of clips.
        options: what the clips show.
        seed: seed of all splits.
        num_workers: processes to render in; None for one per available core, 0 for this process.
            As with every use of `multiprocessing`, a script needs ``if __name__ == "__main__"``
            where processes are not forked.
        progress: show a progress bar while rendering.

    Raises:
        ValueError: an argument out of its range.
    """

    store_type: ClassVar[type[ClipStore]] = ClipStore

    def __init__(
        self,
        cache_dir: Path | str | None = None,
        *,
        split: Split = "train",
        num_videos: int = 1500,
        options: RenderOptions | None = None,
        seed: int = 0,
        num_workers: int | None = None,
        progress: bool = True,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
        if num_videos < 1 or seed < 0:
            raise ValueError(
                f"need num_videos >= 1 and seed >= 0, got num_videos={num_videos}, seed={seed}"
            )
        self.options = RenderOptions() if options is None else options
        self.classes: tuple[str, ...] = self.options.classes
        height, width = self.options.size
        every_frame = tuple(range(self.options.num_frames))
        self.videos: Sequence[Video] = [
            Video(f"{split}-{i:06d}", len(every_frame), height, width, every_frame)
            for i in range(num_videos)
        ]
        root = default_cache_dir() if cache_dir is None else Path(cache_dir)
        self.store = self.store_type(root, self.options, seed, split)
        workers = available_cores() if num_workers is None else num_workers
        self.store.render_missing(num_videos, num_workers=workers, progress=progress)
        self._annotations: dict[int, Annotations] = {}

    def frame(self, video: int, index: int) -> NDArray[np.uint8]:
        """Read a frame, (H, W, 3) RGB uint8.

        Raises:
            IndexError: no such video or frame.
        """
        self._annotated(video, index)  # verifies the file
        return self.store.frame(video, index)

    def objects(self, video: int, index: int) -> FrameObjects:
        """Return the objects that are seen in a frame, with masks.

        Objects hide each other in masks and boxes; the mesh of the deterioration "occlusion"
        hides nothing there. An object with less than a quarter of its area in view is left out.

        Raises:
            IndexError: no such video or frame.
        """
        return self._annotated(video, index).objects(index)

    def conditions(self, video: int, index: int) -> frozenset[str]:
        """Name what is special about a frame.

        "clean", or "deteriorated" and the kind; "slow", "medium" or "fast" by the mean motion IoU
        of its objects, if it has any; "same_class" or "mixed_class" after the objects of the clip.

        Raises:
            IndexError: no such video or frame.
        """
        return self._annotated(video, index).conditions(index)

    def _annotated(self, video: int, index: int) -> Annotations:
        if not (0 <= video < len(self.videos) and 0 <= index < self.options.num_frames):
            raise IndexError(
                f"no frame {index} of video {video}: there are {len(self.videos)} videos "
                f"of {self.options.num_frames} frames"
            )
        if video not in self._annotations:
            self._annotations[video] = self.store.annotations(video)
        return self._annotations[video]


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
