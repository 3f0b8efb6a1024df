"""Read state dicts from files of any origin, without running what is in them."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

# Where mmcv, Microsoft and trackers keep the weights, beside epoch, optimiser, configuration.
_WRAPPERS = ("state_dict", "model", "net")
# Where torch names what a pickle wanted to call.
_CODE = re.compile(r"(?:GLOBAL|[Cc]lass|[Ff]unction) ([\w.]+\.\w+)")


def read_state_dict(path: str | Path, *, skip_objects: bool = False) -> dict[str, Tensor]:
    """Read the tensors of a ``.safetensors`` file or a PyTorch checkpoint, without its code.

    Of a PyTorch checkpoint, the entry ``state_dict``, ``model`` or ``net`` is taken if there is
    one.

    Args:
        path: the file.
        skip_objects: read past objects of other programs that lie beside the weights, such as a
            trainer's settings, instead of refusing the file. None of their code is run or even
            imported: an inert object takes the place of each.

    Raises:
        ValueError: if the file is missing, damaged, holds more than tensors and plain values (it
            could run code), or no state dict; the file and the reason are named.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    checkpoint = _unpickle(path, skip_objects)
    for entry in _WRAPPERS:
        if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(entry), Mapping):
            checkpoint = checkpoint[entry]
    if not isinstance(checkpoint, Mapping):
        kind = type(checkpoint).__name__
        raise ValueError(f"{path}: expected a state dict, one tensor per key, got a {kind}")
    for key, value in checkpoint.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            kind = type(value).__name__
            raise ValueError(
                f"{path}: expected a state dict, one tensor per key; {key!r} has a {kind}"
            )
    return dict(checkpoint)


class _Inert:
    """Stands where a file wants an object of another program or a call of a function."""

    def __new__(cls, *args: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _unpickle(path: Path, skip_objects: bool) -> Any:
    with path.open("rb") as file:
        try:
            if skip_objects and is_zipfile(file):
                names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
                with torch.serialization.safe_globals([(_Inert, name) for name in names]):
                    return torch.load(path, map_location="cpu", weights_only=True)
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
        # A damaged file fails wherever the damage lies: zip, pickle, or the making of a tensor.
        except Exception as error:
            # torch's own text runs over many lines and ends in advice to trust the file.
            text = str(error).rpartition("WeightsUnpickler error: ")[2] or type(error).__name__
            reason = text.strip().partition("\n")[0]
            if isinstance(error, (EOFError, OSError)):
                reason = "it ends too early"
            if isinstance(error, pickle.UnpicklingError) and (code := _CODE.search(str(error))):
                raise ValueError(
                    f"{path} is not read: it asks to run {code[1]}, and weights need no code. "
                    "If you trust it, save its state dict alone with the program that wrote it"
                ) from error
            raise ValueError(f"{path} is not a whole PyTorch checkpoint: {reason}") from error
