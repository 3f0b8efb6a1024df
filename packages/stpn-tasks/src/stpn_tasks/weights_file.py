"""Weights of a model in one ``.safetensors``, with what it was made by as metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from stpn_tasks.files import atomic_path


def save_weights(path: Path, model: nn.Module, metadata: Mapping[str, str]) -> None:
    """Write the weights of a model atomically."""
    tensors = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    with atomic_path(path) as partial:
        save_file(tensors, partial, dict(metadata))
        _sort_metadata(partial)


def _sort_metadata(path: Path) -> None:
    """Give the metadata the same order in every process, so that equal models are equal files.

    The header of a safetensors file is compact json after its length in 8 bytes.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        file.write(text.ljust(size))


def check_is_file(path: Path) -> None:
    """Raise ValueError if there is no file of weights; a check before data is rendered or read."""
    if not path.is_file():
        raise ValueError(f"{path} is not a file")


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file.

    Raises:
        ValueError: if the file is missing or damaged; names it.
    """
    check_is_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error


def class_names(text: str, path: Path) -> tuple[str, ...]:
    """Read the names of classes from the metadata of a file.

    Raises:
        ValueError: if they are no list of names; names the file.
    """
    try:
        classes = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the classes in {path} are not JSON: {error}") from error
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"the classes in {path} are no list of names")
    return tuple(classes)


def fit_weights(
    model: nn.Module, tensors: dict[str, Tensor], path: Path, may_lack: tuple[str, ...] = ()
) -> list[str]:
    """Load tensors after checking that all of them fit; return the keys that the file lacks.

    Args:
        model: takes the weights.
        tensors: from the file.
        path: of the file, for error messages.
        may_lack: beginnings of the names of weights that may begin anew.

    Raises:
        ValueError: if a tensor is unknown, misshapen or missing; nothing is loaded then.
    """
    own = model.state_dict()
    unknown = sorted(tensors.keys() - own.keys())
    shapes = [
        f"{key} is {tuple(tensors[key].shape)}, want {tuple(own[key].shape)}"
        for key in sorted(tensors.keys() & own.keys())
        if tensors[key].shape != own[key].shape
    ]
    missing = sorted(own.keys() - tensors.keys())
    lacking = [key for key in missing if not key.startswith(may_lack)]
    for what, keys in (("unknown", unknown), ("misshapen", shapes), ("missing", lacking)):
        if keys:
            raise ValueError(f"{path} is of another model; {what} weights: {_some(keys)}")
    model.load_state_dict(tensors, strict=False)
    return missing


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
