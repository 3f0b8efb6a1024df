"""Seeds of a comparison: each with its folder, its data and weights, on common hardware."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch
from accelerate import Accelerator

from stpn_tasks.comparison.claim import claim_comparison
from stpn_tasks.comparison.options import ComparisonOptions
from stpn_tasks.engine import fast_precision, make_accelerator

ScaleT = TypeVar("ScaleT")
SeedT = TypeVar("SeedT", bound="Seed[Any]")


@dataclass(frozen=True)
class Seed(Generic[ScaleT]):
    """One seed's folder and hardware.

    Attributes:
        folder: of the seed.
        seed: of data, weights and order.
        scale: how much to render and train.
        device: where the network runs.
        mixed_precision: its arithmetic.
        cache: folder for rendered data; the user's cache folder if not given.
    """

    folder: Path
    seed: int
    scale: ScaleT
    device: str
    mixed_precision: Literal["no", "bf16"]
    cache: Path | None

    def accelerator(self) -> Accelerator:
        """Return accelerate's view of the device."""
        return make_accelerator(self.device, self.mixed_precision)

    def weights(self, training: str) -> Path:
        """Return where the weights of a training lie."""
        return self.folder / training / "model.safetensors"

    def refuse_orphans(self, training: str, *, before: Sequence[str] = ()) -> None:
        """Refuse weights that were trained from others which are no longer there.

        Args:
            training: what all later ones begin with.
            before: what that one begins with itself.

        Raises:
            ValueError: if the weights of this training are gone and later ones are not; names them.
        """
        found = {path.parent.name for path in self.folder.glob("*/model.safetensors")}
        orphans = sorted(found - {training, *before})
        if orphans and training not in found:
            raise ValueError(
                f"{self.weights(training)} is gone, but what was trained from it is there: remove "
                f"the folders {', '.join(orphans)} in {self.folder} too, or choose another output "
                "folder"
            )


def open_seeds(
    options: ComparisonOptions,
    kind: Callable[..., SeedT],
    scale: Any,
    data: Mapping[str, Any],
    prefix: str = "",
) -> tuple[SeedT, ...]:
    """Return the seeds of a comparison, after a check that the folder is not another one's.

    Args:
        options: seeds, hardware, folder.
        kind: what a seed is.
        scale: a dataclass: how much to render and train.
        data: what else makes numbers comparable, as json can hold it: renderer and its options.
        prefix: of file and folder names, where several comparisons share a folder.

    Raises:
        ValueError: if the folder holds a comparison of another size, precision or on other data.
    """
    device = choose_device(options.device)
    chosen = options.mixed_precision
    precision = fast_precision(device) if chosen == "auto" else chosen
    protocol = {"scale": dataclasses.asdict(scale), "mixed_precision": precision, **data}
    claim_comparison(options.output / f"{prefix}protocol.json", protocol)
    return tuple(
        kind(options.output / f"{prefix}seed-{seed}", seed, scale, device, precision, options.cache)
        for seed in options.seeds
    )


def choose_device(device: str | None) -> str:
    """Return the device asked for, or the best there is."""
    return device or ("cuda" if torch.cuda.is_available() else "cpu")
