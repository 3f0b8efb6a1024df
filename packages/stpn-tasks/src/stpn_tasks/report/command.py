"""What ``stpn report`` does: one page from the results of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stpn_tasks.report.analyses import load_analyses
from stpn_tasks.report.build import PICTURES, write_sections
from stpn_tasks.report.gallery import load_sections
from stpn_tasks.report.page import Section
from stpn_tasks.results import Model, Results, load_results

RESULTS = "results.json"


def report_folders(paths: Sequence[Path], output: Path) -> Path:
    """Write one report from the results of one or more runs.

    Runs of models with the same name are put together as seeds of that model. Pictures are those
    that an earlier report, or ``stpn analyze``, kept in the first folder that has some.

    Args:
        paths: files of results, or folders with a ``results.json``.
        output: the html file to write.

    Returns:
        The html file.

    Raises:
        ValueError: if there is no path, a file cannot be read, two files hold the same seed of the
            same model, or their test sets differ; names the file.
    """
    if not paths:
        raise ValueError("name at least one file or folder with results to report")
    files = [path / RESULTS if path.is_dir() else path for path in paths]
    found = {file: load_results(file) for file in files}
    if len(found) < len(files):
        repeated = next(file for file in files if files.count(file) > 1)
        raise ValueError(f"{repeated} is named more than once")
    kept = (_kept_sections(file.parent) for file in files)
    write_sections(output, merge_results(found), next(filter(None, kept), []))
    return output


def merge_results(found: Mapping[Path, Results]) -> Results:
    """Put the runs of several files together.

    Args:
        found: results by their file; title, labels and sentences are those of the first file
            that has the model.

    Raises:
        ValueError: as `report_folders`.
    """
    (first_file, first), *_ = found.items()
    models: dict[str, Model] = {}
    origin: dict[tuple[str, int], Path] = {}
    for file, results in found.items():
        if set(results.test_sets) != set(first.test_sets):
            raise ValueError(
                f"{file} has the test sets {list(results.test_sets)}, "
                f"{first_file} has {list(first.test_sets)}"
            )
        for model in results.models:
            for run in model.runs:
                other = origin.setdefault((model.name, run.seed), file)
                if other is not file:
                    raise ValueError(
                        f"{file} has seed {run.seed} of the model {model.name!r}, as has {other}"
                    )
            known = models.get(model.name)
            runs = model.runs if known is None else known.runs + model.runs
            in_order = tuple(sorted(runs, key=lambda run: run.seed))
            models[model.name] = replace(known or model, runs=in_order)
    return Results(first.title, _merge_about(found), tuple(models.values()))


def _kept_sections(folder: Path) -> list[Section]:
    """Return the rendered pictures and analyses that a folder keeps."""
    pictures = folder / PICTURES
    sections = load_sections(pictures) if pictures.is_file() else []
    return sections + load_analyses(folder)


def _merge_about(found: Mapping[Path, Results]) -> dict[str, Any]:
    """Keep what all files agree on; of what they do not, say what each file has."""
    keys = dict.fromkeys(key for results in found.values() for key in results.about)
    merged: dict[str, Any] = {}
    for key in keys:
        values = {str(file): results.about.get(key) for file, results in found.items()}
        same = all(value == next(iter(values.values())) for value in values.values())
        merged[key] = next(iter(values.values())) if same else values
    return merged
