"""What ``stpn analyze`` leaves beside results: numbers, and sections that join the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stpn_tasks.report.gallery import load_sections
from stpn_tasks.report.page import Section
from stpn_tasks.tables import write_json

_FILES = "analysis-*.json"


def save_analysis(
    folder: Path,
    name: str,
    about: Mapping[str, Any],
    numbers: Mapping[str, Any],
    sections: Sequence[Section],
) -> Path:
    """Write ``analysis-NAME.json``: numbers for programs, and rendered sections for the report.

    Args:
        folder: where results are, or may come to be.
        name: of the analysis; an earlier one of that name is replaced.
        about: command, weights, hardware.
        numbers: finite ones; null where there is nothing to measure.
        sections: with their pictures inside.

    Returns:
        The file.
    """
    path = folder / _FILES.replace("*", name)
    values = {"about": about, "numbers": numbers, "sections": [asdict(one) for one in sections]}
    write_json(path, values)
    return path


def numbers_json(numbers: Any) -> dict[str, Any]:
    """Return the numbers of a dataclass as json can hold them: null for what is not defined."""
    return {
        name: None if math.isnan(value) else round(value, 5)
        for name, value in asdict(numbers).items()
    }


def load_analyses(folder: Path) -> list[Section]:
    """Return the sections of all analyses that a folder keeps, by the alphabet of their names.

    Raises:
        ValueError: if a file cannot be used; names it.
    """
    files = sorted(folder.glob(_FILES), key=lambda path: path.stem)
    return [section for path in files for section in load_sections(path)]


def remove_analyses(folder: Path) -> None:
    """Remove the analyses that a folder keeps, as those of another experiment."""
    for path in folder.glob(_FILES):
        path.unlink()
