"""Tracking data sets by what a command line says."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from stpn_data import DeterioratedTracking, GOT10k, OwnSequences
from stpn_data.sequences import TrackingDataset

Split = Literal["train", "val", "test"]
GENERATED = "generated"
# Sequences rendered where nothing else is asked for.
GENERATED_SEQUENCES = {"train": 1500, "val": 96, "test": 96}


def open_sequences(
    data: str, split: Split, *, num_sequences: int | None = None, seed: int = 0
) -> TrackingDataset:
    """Open annotated sequences.

    Args:
        data: "generated" for rendered sequences; the folder of GOT-10k; or a folder of your own
            sequences, frames or videos with a file of boxes each.
        split: which part; of your own sequences all are taken.
        num_sequences: generated sequences.
        seed: of generated sequences.

    Raises:
        ValueError: if ``data`` is none of these.
    """
    if data == GENERATED:
        number = GENERATED_SEQUENCES[split] if num_sequences is None else num_sequences
        return DeterioratedTracking(split=split, num_sequences=number, seed=seed)
    if num_sequences is not None:
        raise ValueError(f"num_sequences is for generated sequences, not for {data}")
    path = Path(data)
    if not path.is_dir():
        raise ValueError(f"{data} is neither {GENERATED!r} nor a folder")
    if (path / split / "list.txt").is_file():
        return GOT10k(path, split)
    return OwnSequences.from_folder(path)
