"""The page ``report.html``: what was run, what it gave, and what it looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stpn_tasks.detection.evaluation import DetectionEvaluation
from stpn_tasks.report.analyses import remove_analyses
from stpn_tasks.report.gallery import picture_sections, save_sections
from stpn_tasks.report.numbers import lead, number_sections
from stpn_tasks.report.page import Section, write_page
from stpn_tasks.report.pictures import Pictures
from stpn_tasks.results import Model, Results, Run

PICTURES = "report-pictures.json"


def write_report(path: Path, results: Results, pictures: Pictures | None = None) -> None:
    """Write the report of an experiment as one html file that needs nothing else.

    The rendered pictures are kept in ``report-pictures.json`` beside it, where `report_folders`
    finds them. Without pictures, such a file is removed: it would be of another experiment. So is
    what ``stpn analyze`` kept there.

    Args:
        path: the html file.
        results: what was measured, of one model at least.
        pictures: what to draw frames from.

    Raises:
        KeyError: if pictures are of a model that the results lack.
        ValueError: if the results have no model.
    """
    sections = [] if pictures is None else picture_sections(results, pictures)
    write_sections(path, results, sections)
    kept = path.with_name(PICTURES)
    if sections:
        save_sections(kept, sections)
    else:
        kept.unlink(missing_ok=True)
    remove_analyses(path.parent)


def write_sections(path: Path, results: Results, sections: Sequence[Section]) -> None:
    """Write a report whose pictures are rendered already.

    Raises:
        ValueError: if the results have no model.
    """
    if not results.models:
        raise ValueError(f"there is no model to write {path} about")
    write_page(path, results.title, lead(results), [*number_sections(results), *sections])


def evaluation_results(
    evaluations: Mapping[str, DetectionEvaluation],
    *,
    title: str,
    about: Mapping[str, Any],
    descriptions: Mapping[str, str],
    seed: int,
) -> Results:
    """Return the numbers of one model's evaluation, or of a baseline's and a model's.

    Args:
        evaluations: of one model or two on the same data, by a short name; the second one is
            compared with the first.
        title: of the page.
        about: command, commit, hardware, time.
        descriptions: one sentence about each model, by its name.
        seed: of the last model, under which both stand: a gain is taken seed by seed.
    """
    models = tuple(
        Model(
            name,
            name,
            descriptions[name],
            (Run(seed, {"test": evaluation.precision}, vid={"test": evaluation.vid}),),
        )
        for name, evaluation in evaluations.items()
    )
    return Results(title, about, models)
