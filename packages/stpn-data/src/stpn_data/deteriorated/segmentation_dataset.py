"""Generated clips for video instance segmentation, from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpn_data.deteriorated.annotations import Annotations
from stpn_data.deteriorated.cache import ClipStore
from stpn_data.deteriorated.dataset import DeterioratedVideo
from stpn_data.deteriorated.options import Split
from stpn_data.deteriorated.random import Stream
from stpn_data.deteriorated.render import RenderedClip, render_scene
from stpn_data.deteriorated.segmentation_options import SegmentationOptions
from stpn_data.deteriorated.segmentation_scene import (
    draw_segmentation_scene,
    draw_segmentation_schedule,
)


def render_segmentation_clip(
    options: SegmentationOptions, seed: int, split: Split, index: int
) -> RenderedClip:
    """Render one clip, which depends on these arguments only; as `render_clip` says.

    Args:
        options: what to draw.
        seed: seed of the data set, not negative.
        split: split of the data set.
        index: number of the clip within the split.
    """
    scene = draw_segmentation_scene(options, Stream(seed, split, index, "scene"))
    stream = Stream(seed, split, index, "schedule")
    schedule = draw_segmentation_schedule(options, scene.speed_rank, stream)
    return render_scene(scene, schedule, options, seed, split, index)


@dataclass(frozen=True)
class SegmentationStore(ClipStore):
    """Keep the clips of `DeterioratedSegmentation`."""

    options: SegmentationOptions

    data_name = "deteriorated-segmentation"

    def _rendered(self, index: int) -> tuple[NDArray[np.uint8], Annotations]:
        clip = render_segmentation_clip(self.options, self.seed, self.split, index)
        return clip.frames, clip.annotations


class DeterioratedSegmentation(DeterioratedVideo):
    """Offer generated clips in which objects cross, vanish and reappear.

    A `VideoDataset` like `DeterioratedVideo`, from the same renderer: with masks, the same cache,
    splits and conditions. What differs is in `SegmentationOptions`. Masks are modal between
    objects; the mesh of the deterioration "occlusion" hides nothing in them. An object with fewer
    than `min_area` pixels in view is left out of that frame, and so may be in the whole clip.

    Args:
        cache_dir: where rendered clips are kept (28 kB a frame at the default size); None for
            `$XDG_CACHE_HOME/stpn` or `~/.cache/stpn`.
        split: "train", "val" or "test".
        num_videos: number of clips.
        options: what the clips show.
        seed: seed of all splits.
        num_workers: processes to render in; None for one per available core, 0 for this process.
        progress: show a progress bar while rendering.

    Raises:
        ValueError: an argument out of its range.
    """

    store_type = SegmentationStore

    def __init__(
        self,
        cache_dir: Path | str | None = None,
        *,
        split: Split = "train",
        num_videos: int = 1400,
        options: SegmentationOptions | None = None,
        seed: int = 0,
        num_workers: int | None = None,
        progress: bool = True,
    ) -> None:
        super().__init__(
            cache_dir,
            split=split,
            num_videos=num_videos,
            options=SegmentationOptions() if options is None else options,
            seed=seed,
            num_workers=num_workers,
            progress=progress,
        )
