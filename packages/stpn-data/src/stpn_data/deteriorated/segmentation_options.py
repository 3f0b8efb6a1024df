"""What generated clips for segmentation look like: objects that cross, vanish and come back."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from stpn_data.deteriorated.options import RenderOptions, check_range

# Raised whenever the same options draw other scenes or schedules, so that caches are renewed.
SEGMENTATION_VERSION = 1


@dataclass(frozen=True)
class SegmentationOptions(RenderOptions):
    """Choose what `DeterioratedSegmentation` draws: the fields of `RenderOptions`, and more.

    The objects of a clip cross freely: a nearer one covers a farther one, in pixels and in masks.
    Some vanish and come back with the same identity.

    Attributes:
        deteriorated: share of deteriorated frames that is aimed at, the mean over clips.
        spread: the share of a clip is drawn uniformly from `deteriorated` - `spread` to
            `deteriorated` + `spread`; with `deterioration_follows_speed`, the faster the clip the
            greater. At least one frame of every clip is clean.
        run_frames: fewest and most frames of a deteriorated run. Those of four and more make
            windows of four frames without a clean one (`windows_without_clean_frame`).
        vanishing: probability that an object is not there for some frames; the farthest object of
            a clip always is.
        absence: fewest and most frames that it is not there. They may reach over the first frame
            of the clip (it appears late) or the last one (it does not come back).
        leaving: probability that an object walks out of the frame and in again.
        min_area: an object of which fewer pixels are in view is not annotated in that frame.
    """

    size: tuple[int, int] = (96, 96)
    num_frames: int = 12
    num_objects: tuple[int, int] = (1, 3)
    object_size: tuple[float, float] = (20.0, 36.0)
    deteriorated: float = 0.6
    spread: float = 0.3
    run_frames: tuple[int, int] = (2, 8)
    vanishing: float = 0.35
    absence: tuple[int, int] = (2, 5)
    leaving: float = 0.2
    min_area: int = 30

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: a value out of its range, named with the range.
        """
        super().__post_init__()
        check_range("spread", (self.spread,), 0, min(self.deteriorated, 1 - self.deteriorated))
        check_range("run_frames", self.run_frames, 1, 10_000, ascending=True)
        check_range("absence", self.absence, 1, 10_000, ascending=True)
        check_range("min_area", (self.min_area,), 1, 10_000)
        for field in ("vanishing", "leaving"):
            check_range(field, (getattr(self, field),), 0, 1)

    def fingerprint(self, seed: int) -> str:
        """Return a short name for the clips of these options, a seed and this renderer."""
        text = f"{SEGMENTATION_VERSION} {super().fingerprint(seed)}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]
