"""What a user chooses of a comparison, and how much each size of it renders and trains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Scale:
    """How much a comparison renders and trains.

    Attributes:
        train_videos: clips to train on.
        test_videos: unseen clips to test on, of each test set.
        crop_steps: steps of pretraining on crops.
        detector_steps: steps of the single-frame detector, until more of them hardly help.
        finetune_steps: steps of fine-tuning, the same for every row but the next.
        equal_compute: steps of fine-tuning the baseline for about as long as STPN takes, as a
            multiple of ``finetune_steps``; reports tell the measured processor time of both.
    """

    train_videos: int
    test_videos: int
    crop_steps: int
    detector_steps: int
    finetune_steps: int
    equal_compute: float = 1.85


QUICK = Scale(1500, 64, 1000, 1000, 500)
FULL = Scale(3000, 64, 1000, 1500, 700)
SMOKE = Scale(12, 4, 4, 4, 4)


@dataclass(frozen=True)
class ComparisonOptions:
    """What a user chooses of a comparison.

    Attributes:
        output: folder for weights, results and the report; a run stopped there goes on.
        full: train longer, for firmer numbers.
        smoke: only show that everything runs.
        seeds: of video, weights and order; more than one gives means and spreads.
        workers: processes that train side by side, each with an equal share of the threads.
        mixed_precision: arithmetic of the network; "auto" is bf16 where the processor or GPU has
            instructions for it.
        device: "cpu" or "cuda"; chosen if not given.
        cache: folder for rendered video; the user's cache folder if not given.

    Raises:
        ValueError: if no seed is given, or one twice, or both sizes; or there is no worker.
    """

    output: Path = Path("demo-output")
    full: bool = False
    smoke: bool = False
    seeds: tuple[int, ...] = (0,)
    workers: int = 2
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    device: str | None = None
    cache: Path | None = None

    def __post_init__(self) -> None:
        """Check what contradicts itself."""
        if self.full and self.smoke:
            raise ValueError("--full and --smoke are two sizes: choose one")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"--seeds must be different numbers from 0, got {self.seeds}")
        if self.workers < 1:
            raise ValueError(f"--workers must be at least 1, got {self.workers}")

    @property
    def size(self) -> Literal["smoke", "quick", "full"]:
        """Name of the size."""
        return "full" if self.full else "smoke" if self.smoke else "quick"

    @property
    def scale(self) -> Scale:
        """How much to render and train."""
        return {"smoke": SMOKE, "quick": QUICK, "full": FULL}[self.size]
