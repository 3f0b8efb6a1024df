"""The checkpoints of a training: written whole or not at all, verified before they are read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from safetensors import SafetensorError

# In the folder of a checkpoint: how far the run is, and what the other files must be.
_PROGRESS = "progress.json"
# How torch, safetensors and the system report that a file cannot be written.
_FAILURES = (OSError, RuntimeError, SafetensorError)


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        step: optimiser steps done.
        losses: mean losses of every whole epoch.
        sums: losses of the epoch that is not whole, summed over its steps.
    """

    step: int = 0
    losses: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)

    def after(self, values: Mapping[str, float], steps: int) -> Progress:
        """Return how far the run is one step later.

        Args:
            values: losses of the step.
            steps: of an epoch.
        """
        sums = {name: self.sums.get(name, 0.0) + value for name, value in values.items()}
        if (self.step + 1) % steps:
            return Progress(self.step + 1, self.losses, sums)
        means = {name: total / steps for name, total in sums.items()}
        return Progress(self.step + 1, [*self.losses, means])


class Checkpoints:
    """The folder with the last two whole checkpoints of a run, ``step-N`` after N steps.

    All processes of a run call the same methods at the same time, and all of them raise what one
    of them finds.

    Args:
        folder: which holds nothing else; made if need be.
        run: what must be the same where training goes on, as json can hold it.
        accelerator: holds the state to write and to load.

    Raises:
        OSError: if nothing can be written in the folder; names it.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any], accelerator: Accelerator) -> None:
        check_writable(folder, accelerator)
        self.folder = folder
        here = {"processes": accelerator.num_processes, "precision": accelerator.mixed_precision}
        self.run = {**run, **here}
        self.accelerator = accelerator
        self.last: Path | None = None

    def resume(self) -> Progress:
        """Load the last whole checkpoint, if there is one, and tell how far it is.

        Raises:
            ValueError: if there are only damaged ones, or it is of another run or model; names
                the files or what differs.
        """
        found: tuple[Path, Progress, list[str]] | None = _on_main(self.accelerator, self._find)
        if found is None:
            return Progress()
        path, progress, damages = found
        for damage in damages:
            self.accelerator.print(f"{damage}: using {path} instead")
        try:
            self.accelerator.load_state(str(path))
        except (RuntimeError, ValueError) as error:  # how torch reports keys, shapes and groups
            raise ValueError(f"{path} is of another model: {error}") from error
        self.accelerator.print(f"goes on from {path}")
        self.last = path
        return progress

    def save(self, progress: Progress) -> None:
        """Write a checkpoint, then remove all but it and the one before.

        Raises:
            OSError: if it cannot be written; names the folder, the reason and the last whole
                checkpoint, which stays.
        """
        final = self.folder / f"step-{progress.step}"
        partial = final.with_suffix(".partial")
        is_main = self.accelerator.is_main_process
        problem = (
            self._attempt(self._clear if is_main else _nothing)
            or self._attempt(lambda: self.accelerator.save_state(str(partial)))
            or self._attempt(
                (lambda: self._finish(partial, final, progress)) if is_main else _nothing
            )
        )
        if problem is not None:
            if is_main:
                shutil.rmtree(partial, ignore_errors=True)
            kept = "there is no earlier one" if self.last is None else f"{self.last} is whole"
            raise OSError(f"cannot write the checkpoint {final}: {problem}; {kept}")
        self.last = final

    def _attempt(self, write: Callable[[], object]) -> str | None:
        return _attempt(self.accelerator, self.folder, write)

    def _clear(self) -> None:
        """Remove what a killed run left half written or half removed."""
        for rest in (*self.folder.glob("step-*.partial"), *self.folder.glob("step-*.removed")):
            shutil.rmtree(rest)

    def _finish(self, partial: Path, final: Path, progress: Progress) -> None:
        digests = {path.name: _digest(path) for path in sorted(partial.iterdir())}
        record = {"run": self.run, **asdict(progress), "sha256": digests}
        text = json.dumps({**record, "checksum": _checksum(record)}, indent=2)
        (partial / _PROGRESS).write_text(text + "\n", encoding="utf-8")
        if final.exists():  # a damaged one, or it would have been gone on from
            _remove(final)
        os.replace(partial, final)
        whole = {final, self.last}
        for other in _steps(self.folder):
            if other not in whole:
                _remove(other)

    def _find(self) -> tuple[Path, Progress, list[str]] | None:
        """Return the last whole checkpoint, its progress, and the damages of later ones."""
        damages: list[str] = []
        for path in _steps(self.folder):
            try:
                record = _verified(path)
            except ValueError as error:
                damages.append(str(error))
                continue
            self._compare(path, record["run"])
            names = Progress.__dataclass_fields__
            return path, Progress(**{name: record[name] for name in names}), damages
        if damages:
            raise ValueError(
                f"no checkpoint in {self.folder} is whole: {'; '.join(damages)}; remove the folder "
                "to train from the beginning"
            )
        if older := sorted(path.name for path in self.folder.glob("epoch-*")):
            raise ValueError(
                f"{self.folder} holds checkpoints of an older version ({', '.join(older)}), which "
                "cannot be gone on from: remove the folder to train from the beginning"
            )
        return None

    def _compare(self, path: Path, there: dict[str, Any]) -> None:
        here = json.loads(json.dumps(self.run))  # as it comes back from the file
        names = sorted(name for name in here.keys() | there.keys() if _differs(name, here, there))
        if names:
            values = ", ".join(f"{name} {there.get(name)} not {here.get(name)}" for name in names)
            raise ValueError(
                f"{path} is of another run ({values}): choose another folder, or the same values"
            )


def has_checkpoint(folder: Path) -> bool:
    """Return whether a folder, or one in it, holds a checkpoint to go on from."""
    return any(_steps(path.parent) for path in folder.glob("**/step-*"))


def check_writable(folder: Path, accelerator: Accelerator) -> None:
    """Raise OSError, on every process, unless each of them can write in a folder.

    The folder is made if need be.
    """

    problem = _attempt(accelerator, folder, lambda: _write_bytes(folder, 1))
    if problem is not None:
        raise OSError(f"cannot write in {folder}: {problem}")


def _write_bytes(folder: Path, number: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(number))


def _nothing() -> None:
    pass


def _attempt(accelerator: Accelerator, folder: Path, write: Callable[[], object]) -> str | None:
    """Let every process write; return why the first one that could not did not."""
    problem: str | None = None
    try:
        write()
    except _FAILURES as error:
        problem = _reason(error, folder)
    problems: list[str | None] = [problem]
    if accelerator.num_processes > 1:
        problems = gather_object(problems)
    return next((one for one in problems if one is not None), None)


def _reason(error: Exception, folder: Path) -> str:
    if not isinstance(error, OSError):  # torch does not say why: ask the system
        try:
            _write_bytes(folder, 2**20)
        except OSError as reason:
            error = reason
    return getattr(error, "strerror", None) or str(error)


def _on_main(accelerator: Accelerator, read: Callable[[], Any]) -> Any:
    """Return, or raise, on every process what the main one read."""
    result: Any = None
    if accelerator.is_main_process:
        try:
            result = read()
        except ValueError as error:
            result = error
    shared = [result]
    if accelerator.num_processes > 1:
        broadcast_object_list(shared)
    if isinstance(shared[0], ValueError):
        raise shared[0]
    return shared[0]


def _steps(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, the latest first."""
    steps = {path: path.name.removeprefix("step-") for path in folder.glob("step-*")}
    numbered = [path for path, number in steps.items() if number.isdecimal()]
    return sorted(numbered, key=lambda path: int(steps[path]), reverse=True)


def _remove(checkpoint: Path) -> None:
    """Remove a checkpoint so that nobody takes a half of it for one."""
    removed = checkpoint.with_suffix(".removed")
    os.replace(checkpoint, removed)
    shutil.rmtree(removed)


def _verified(checkpoint: Path) -> dict[str, Any]:
    """Read how far a checkpoint is, after a check that its files are as they were written."""
    path = checkpoint / _PROGRESS
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        checksum = record.pop("checksum")
        digests = record["sha256"]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is missing or damaged") from error
    if checksum != _checksum(record):
        raise ValueError(f"{path} is missing or damaged")
    for name, digest in digests.items():
        if not (checkpoint / name).is_file() or _digest(checkpoint / name) != digest:
            raise ValueError(f"{checkpoint / name} is missing or damaged")
    return record


def _differs(name: str, here: dict[str, Any], there: dict[str, Any]) -> bool:
    return name not in here or name not in there or here[name] != there[name]


def _checksum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
