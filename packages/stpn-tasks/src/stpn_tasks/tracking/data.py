"""Tracking data sets by what a command line says."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from stpn_data import DeterioratedTracking, GOT10k, OwnSequences
from stpn_data.own_sequences import BOX_FILE
from stpn_data.sequences import TrackingDataset
from stpn_data.videos import DataError

Split = Literal["train", "val", "test"]
GENERATED = "generated"
LIST = "list.txt"
"""What a split of GOT-10k has beside its sequences."""
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
        DataError: something of the data cannot be used; or it looks like GOT-10k, and the list of
            the split is missing.
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
    if (path / split / LIST).is_file():
        return GOT10k(path, split)
    _check_not_got10k(path, split)
    return OwnSequences.from_folder(path)


def _check_not_got10k(root: Path, split: Split) -> None:
    """Refuse GOT-10k without a list, of which own sequences would only say that there are none."""
    if (root / BOX_FILE).is_file():  # an own sequence
        return
    has_own = any(root.glob(f"*/{BOX_FILE}"))
    if not has_own and any(_is_split(root / name) for name in get_args(Split)):
        raise DataError(f"{root / split / LIST}: the list of this split of GOT-10k is missing")
    if [one.name for one in root.iterdir() if one.stem == "list"] == [LIST]:  # no boxes of a video
        raise DataError(
            f"{root / split / LIST} is missing: give the folder that contains GOT-10k's folders "
            f"train, val and test; {root} looks like one of them (if these are your own "
            f"sequences, remove {LIST})"
        )


def _is_split(folder: Path) -> bool:
    return (folder / LIST).is_file() or any(folder.glob(f"*/{BOX_FILE}"))
