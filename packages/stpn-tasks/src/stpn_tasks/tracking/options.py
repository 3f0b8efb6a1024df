"""Settings of the online tracker, and those of the released trackers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from stpn_data.sampling import CausalSampler

# What of an earlier frame supports a later one: see `TrackerOptions`.
SupportCrop: TypeAlias = Literal["searched", "target"]


@dataclass(frozen=True)
class TrackerOptions:
    """Say how a tracker cuts its crops, renews its templates and takes support frames.

    Attributes:
        template_size: rows and columns of the crops of templates.
        template_factor: side of these crops in the frame, by the mean side of the target.
        search_size: rows and columns of the search crop.
        search_factor: side of the search crop in the frame; 5 in training, 4.55 in MixFormer's
            tests on GOT-10k.
        online_size: online templates that are kept; the first is a copy of the initial template.
        update_interval: frames after which an online template is added, or the oldest replaced;
            None never does: the initial template alone.
        update_score: a frame becomes an online template only with a score above it (0 .. 1).
        score_decay: factor of the best score since the last update, at every frame: below 1, later
            frames are preferred.
        lost_score: below it, the target counts as lost; ours, a box is given all the same.
        clip_margin: pixels that a box keeps inside the frame, and its least side.
        support: support frames of a network that predicts prompts; no source tells K and S for
            tracking, these are the paper's of detection.
        support_crop: what of a support frame is encoded: "searched", the crop that was searched in
            there, around the box of the frame before; or "target", half of its side and size,
            around the box that was found in it. That one shows which of several objects the target
            is, and costs a quarter.

    Raises:
        ValueError: a size, factor, interval or margin that is not positive, a score outside
            0 .. 1, or another support crop.
    """

    template_size: int = 128
    template_factor: float = 2.0
    search_size: int = 320
    search_factor: float = 4.55
    online_size: int = 2
    update_interval: int | None = 10
    update_score: float = 0.5
    score_decay: float = 0.98
    lost_score: float = 0.5
    clip_margin: int = 10
    support: CausalSampler = field(default_factory=CausalSampler)
    support_crop: SupportCrop = "searched"

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("template_size", "search_size", "online_size", "update_interval"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("template_factor", "search_factor", "score_decay", "clip_margin"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("update_score", "lost_score"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in 0 .. 1, got {getattr(self, name)}")
        if self.support_crop not in get_args(SupportCrop):
            raise ValueError(
                f"support_crop must be one of {get_args(SupportCrop)}, got {self.support_crop!r}"
            )

    @property
    def support_size(self) -> int:
        """Rows and columns of a support crop."""
        return support_part(self.search_size, self.search_factor, self.support_crop)[0]

    @property
    def support_factor(self) -> float:
        """Side of a support crop in the frame, by the mean side of the target."""
        return support_part(self.search_size, self.search_factor, self.support_crop)[1]


def support_part(size: int, factor: float, crop: SupportCrop) -> tuple[int, float]:
    """Return size and factor of a support crop, by those of the search crop.

    Both have the same scale, so that objects look the same in them.
    """
    return (size // 2, factor / 2) if crop == "target" else (size, factor)


def mixformer_22k() -> TrackerOptions:
    """Return MixFormer-22k's for GOT-10k: its test script with `online/baseline.yaml`.

    Weights pretrained on ImageNet-22k and trained on GOT-10k alone. The defaults.
    """
    return TrackerOptions(online_size=2, update_interval=10, score_decay=0.98, search_factor=4.55)


def mixformer_1k() -> TrackerOptions:
    """Return MixFormer-1k's for GOT-10k: its test script with `online/baseline_1k.yaml`."""
    return TrackerOptions(online_size=3, update_interval=10, score_decay=1.0, search_factor=4.55)


def mixformer_got() -> TrackerOptions:
    """Return those of `online/baseline_got.yaml`.

    No script says which decay and factor belong to it; those for GOT-10k are taken.
    """
    return TrackerOptions(online_size=3, update_interval=25, score_decay=0.98, search_factor=4.55)


def mixformer_large() -> TrackerOptions:
    """Return those of MixFormer-L, `online/baseline_large.yaml`.

    No script says which decay and factor belong to it on GOT-10k; those of the base are taken.
    """
    return TrackerOptions(online_size=2, update_interval=200, score_decay=0.98, search_factor=4.55)


def mmtracking_mixformer() -> TrackerOptions:
    """Return those of MixFormer in mmtracking for GOT-10k."""
    return TrackerOptions(online_size=2, update_interval=25, score_decay=0.98, search_factor=4.55)


def mixformer_unlisted() -> TrackerOptions:
    """Return what MixFormer falls back to for data sets its settings do not name.

    The split val of GOT-10k is one of them: whoever runs the released code on it gets these, not
    those of the test split. Decay and search factor are then the code's own.
    """
    return TrackerOptions(online_size=3, update_interval=200, score_decay=1.0, search_factor=5.0)
