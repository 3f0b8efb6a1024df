"""Tables for people and json for programs."""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from stpn_tasks.files import write_text
from stpn_tasks.metrics import AveragePrecision, VidPrecision
from stpn_tasks.metrics.vid import MOTION_GROUPS

# A list of numbers in indented json, which is better read in one line.
_NUMBERS = re.compile(r"\[[\s\d.,eE+-]+\]")


# What a table shows of the COCO protocol, by the fields of `AveragePrecision`.
COCO_COLUMNS = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "APs",
    "ap_medium": "APm",
    "ap_large": "APl",
}


def precision_table(
    models: Mapping[str, Mapping[str, AveragePrecision]], splits: Sequence[str]
) -> Table:
    """Return a table of the six COCO numbers in percent: a row per split and model.

    Args:
        models: average precision by split, by model.
        splits: which splits to show, in order; one that a model lacks shows dashes.
    """
    table = Table()
    for name in ("frames", "model"):
        table.add_column(name, no_wrap=True)
    for name in COCO_COLUMNS.values():
        table.add_column(name, justify="right")
    for split in splits:
        for model, precision in models.items():
            values = precision.get(split)
            cells = [
                _percent(math.nan if values is None else getattr(values, name))
                for name in COCO_COLUMNS
            ]
            table.add_row(split, model, *cells)
    return table


def vid_table(models: Mapping[str, Mapping[str, VidPrecision]]) -> Table:
    """Return a table of the AP50 of ImageNet VID in percent: a row per motion group and model.

    Args:
        models: AP50 by motion group, by model.
    """
    table = Table()
    for name in ("objects", "motion IoU", "model"):
        table.add_column(name, no_wrap=True)
    for name in ("number", "AP50"):
        table.add_column(name, justify="right")
    for group, (low, high) in MOTION_GROUPS.items():
        for model, by_motion in models.items():
            if group in by_motion:
                number = sum(by_motion[group].num_objects.values())
                cells = (f"{number:,}", _percent(by_motion[group].ap50))
                table.add_row(group, f"{low} to {high}", model, *cells)
    return table


def print_table(table: Table) -> None:
    """Print a table, as wide as it needs where the output is no terminal."""
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)


def precision_json(precision: Mapping[str, AveragePrecision]) -> dict[str, dict[str, Any]]:
    """Return average precision by split as json can hold it: percent, null without an object."""
    return {
        split: {
            name: [round(100 * point, 2) for point in value]
            if name == "curve50"
            else _rounded(value)
            for name, value in dataclasses.asdict(values).items()
        }
        for split, values in precision.items()
    }


def vid_json(precision: Mapping[str, VidPrecision]) -> dict[str, dict[str, Any]]:
    """Return AP50 by motion group as json can hold it: percent, null without an object."""
    return {
        group: {
            "ap50": _rounded(one.ap50),
            "by_class": {name: _rounded(value) for name, value in one.by_class.items()},
            "num_objects": dict(one.num_objects),
            "empty_weight": one.empty_weight,
        }
        for group, one in precision.items()
    }


def environment(device: torch.device | str) -> dict[str, Any]:
    """Tell on what a number was measured: commit, hardware, versions.

    Args:
        device: where the network ran.
    """
    kind = torch.device(device).type
    return {
        "commit": _commit(),
        "device": torch.cuda.get_device_name(device) if kind == "cuda" else kind,
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a json file atomically.

    Raises:
        ValueError: if a number is not finite, which json cannot hold.
    """
    text = json.dumps(values, indent=2, default=str, allow_nan=False)
    write_text(path, _NUMBERS.sub(lambda match: " ".join(match[0].split()), text) + "\n")


def write_training(
    output: Path,
    losses: object,
    start: float,
    *,
    resumed: bool,
    device: torch.device | str,
) -> None:
    """Write ``training.json`` of a run that is at its end: losses, minutes, environment.

    A finished run that is started again has nothing to do: its file stays. Of one that went on
    from a checkpoint, ``resumed`` says so, and the minutes are those since.

    Args:
        output: folder of the run.
        losses: of every epoch, or these by stage.
        start: value of `time.perf_counter` when this start began.
        resumed: there was a checkpoint then.
        device: where the network ran.
    """
    path = output / "training.json"
    if resumed and path.exists():
        return
    minutes = round((time.perf_counter() - start) / 60, 2)
    about = {"minutes": minutes, "resumed": resumed, "environment": environment(device)}
    write_json(path, {"losses": losses, **about})


def read_json(path: Path) -> Any:
    """Read a json file.

    Raises:
        ValueError: if it is missing or damaged; names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as json: {error}") from error


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(100 * value, 3)


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def _processor() -> str:
    has = torch.cpu.get_capabilities()
    name = has.get("cpu_name") or platform.processor() or platform.machine()
    return f"{name}, {has['num_physical_cores']} cores" if "num_physical_cores" in has else name


def _commit() -> str | None:
    """Return the commit of the checkout that this file is in; ``None`` when installed.

    It ends in ``-dirty`` when files differ from it. Installed into an environment within another
    project's checkout, this file is none of that project's.
    """
    file = Path(__file__)
    try:
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        return _git(file.parent, "describe", "--always", "--dirty", "--exclude", "*")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
