"""The comparison on generated video, and reports of results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from stpn_tasks.comparison.options import ComparisonOptions

Factor = Literal["stride", "num-support", "num-prompts", "predictor", "depth", "clips", "detector"]

Task = Literal["detection", "tracking", "segmentation"]


def demo(
    options: Annotated[ComparisonOptions, tyro.conf.arg(name="")],
    task: Positional[Task] = "detection",
) -> None:
    """Show what prompts from neighbouring frames do for deteriorated video, with all controls.

    Renders video, trains a network without prompts, trains it on as it is, for as long as STPN
    takes, with STPN, and with support frames of another video (in detection with static prompts
    too); tests all on unseen clips and prints tables. Detection writes results.json and
    report.html, the others TASK-results.json, tracking pictures too. Nothing is downloaded.

    Args:
        options: sizes, seeds and folder.
        task: what is shown.
    """
    if task == "tracking":
        from stpn_tasks.tracking.comparison.demo import run_tracking_demo

        run_tracking_demo(options)
    elif task == "segmentation":
        from stpn_tasks.segmentation.comparison.demo import run_segmentation_demo

        run_segmentation_demo(options)
    else:
        from stpn_tasks.demo import run_demo

        run_demo(options)


def sweep(
    factors: Positional[tuple[Factor, ...]] = (),
    options: Annotated[ComparisonOptions, tyro.conf.arg(name="")] = ComparisonOptions(  # noqa: B008
        output=Path("sweep-output")
    ),
) -> None:
    """Vary one factor of the small recipe after the other: tables and plots.

    A sweep that stopped goes on when the same command is given again; with the demo's output
    folder it begins from the demo's detectors. Writes sweep.md, and a json and a plot of each
    factor.

    Args:
        factors: what to vary; everything if none is named.
        options: sizes, seeds and folder.
    """
    from stpn_tasks.comparison.factors import FACTORS
    from stpn_tasks.sweep import run_sweep

    print(f"tables and plots: {run_sweep(options, factors or tuple(FACTORS))}")


def report(
    results: Positional[tuple[Path, ...]],
    output: Path = Path("report.html"),
) -> None:
    """Write one report of several results, say of several seeds: tables, curves, pictures.

    Args:
        results: results.json files, or folders that hold one, of ``stpn demo`` or ``stpn eval``.
        output: the page to write; it needs no other file.
    """
    from stpn_tasks.report.command import report_folders

    print(f"report: {report_folders(results, output)}")
