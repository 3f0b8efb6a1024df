"""Read the checkpoints that detectron2 writes and publishes, without running what is in them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stpn_backbones import read_state_dict

# All that a pickle of arrays has to call. numpy 2 calls numpy.core numpy._core.
_ALLOWED = {
    "numpy": {"ndarray", "dtype"},
    "numpy._core.multiarray": {"_reconstruct"},
    "numpy._core.numeric": {"_frombuffer"},
    "_codecs": {"encode"},
    "collections": {"OrderedDict"},
}


def read_detectron2(path: str | Path) -> dict[str, Tensor]:
    """Read the weights of a model zoo's ``.pkl`` or of a trainer's ``.pth``.

    A ``.pkl`` is a pickle of numpy arrays below ``model``; of it only what makes arrays is called.
    Other files go to `stpn_backbones.read_state_dict`, which passes over optimiser and scheduler.

    Raises:
        ValueError: if the file is missing, damaged, asks to run other code, or holds no weights;
            the file and the reason are named.
    """
    path = Path(path)
    if path.suffix != ".pkl":
        return read_state_dict(path, skip_objects=True)
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    with path.open("rb") as file:
        try:
            content = _ArraysOnly(file, encoding="latin1").load()
        except PermissionError as error:
            raise ValueError(
                f"{path} is not read: it asks to run {error}, and weights need no code"
            ) from error
        # A damaged pickle fails wherever the damage lies.
        except Exception as error:
            raise ValueError(f"{path} is not a whole pickle: {error}") from error
    weights = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping):
        raise ValueError(f"{path}: expected an entry 'model', one array per key")
    return {str(key): _to_tensor(value, f"{path}: {key}") for key, value in weights.items()}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.")
        if name not in _ALLOWED.get(module, ()):
            raise PermissionError(f"{module}.{name}")
        return super().find_class(module, name)


def _to_tensor(value: Any, name: str) -> Tensor:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise ValueError(f"{name} is expected to be an array of numbers, got {kind}")
    return torch.tensor(value)
