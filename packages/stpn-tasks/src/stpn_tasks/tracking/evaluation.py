"""Evaluate results of tracking that lie in the toolkit's folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stpn_data.sequences import TrackingDataset
from stpn_tasks.metrics.got10k import (
    TrackingReport,
    TrackingSuccess,
    TrackTruth,
    frames_per_second,
    got10k_success,
)
from stpn_tasks.tables import write_json
from stpn_tasks.tracking.results_layout import BENCHMARK, read_results, results_folder
from stpn_tasks.tracking.success_plot import write_success_plot


@dataclass(frozen=True)
class TrackingEvaluation:
    """Hold what the results of a tracker are worth.

    Attributes:
        report: AO, SR and success curve, overall and by sequence.
        times: seconds of every frame, by sequence, all repetitions; NaN where none was taken.
    """

    report: TrackingReport
    times: Mapping[str, np.ndarray]

    @property
    def frames_per_second(self) -> float:
        """The toolkit's speed over all frames; NaN without times."""
        return frames_per_second(np.concatenate(list(self.times.values())))

    def to_json(self) -> dict[str, Any]:
        """Return the numbers under the names of the toolkit's report, and `sr75`, in 0 .. 1.

        What there is no number for, such as the overlap of a sequence that is never visible, is
        null.
        """
        return {
            "overall": _numbers(self.report.overall, self.frames_per_second),
            "seq_wise": {
                name: _numbers(success, frames_per_second(self.times[name]))
                for name, success in self.report.by_sequence.items()
            },
        }


def evaluate_results(dataset: TrackingDataset, root: Path, name: str) -> TrackingEvaluation:
    """Evaluate the results of a tracker on all sequences of a data set.

    Args:
        dataset: with the boxes of all frames that count.
        root: folder of results, below which GOT-10k/NAME lies.
        name: of the tracker.

    Raises:
        DataError: results of a sequence are missing or do not fit it; the file is named.
        ValueError: no frame counts, as in GOT-10k's split test, whose labels are not published.
    """
    if not any(one.counted[1:].any() for one in dataset.sequences):
        raise ValueError(
            "no frame of these sequences counts: labels after the first frame are not there (of "
            "GOT-10k's split test they are not published; its server evaluates a zip of results)"
        )
    runs = {
        one.name: read_results(root, name, one.name, one.num_frames) for one in dataset.sequences
    }
    truths = {
        one.name: TrackTruth(one.boxes_xywh, one.counted, one.size) for one in dataset.sequences
    }
    report = got10k_success(
        truths, {sequence: [run.boxes_xywh for run in found] for sequence, found in runs.items()}
    )
    times = {
        sequence: np.concatenate([run.times for run in found]) for sequence, found in runs.items()
    }
    return TrackingEvaluation(report, times)


def write_evaluation(
    reports: Path,
    name: str,
    evaluation: TrackingEvaluation,
    title: str = BENCHMARK,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Write GOT-10k/NAME/performance.json and success_plot.png where the toolkit writes its own.

    Args:
        reports: folder of reports.
        name: of the tracker.
        evaluation: what is written.
        title: what stands above the plot.
        about: what else stands beside the numbers, such as which data these are of; the toolkit
            passes over it.

    Returns:
        The json.
    """
    path = results_folder(reports, name) / "performance.json"
    write_json(path, {name: {**evaluation.to_json(), **(about or {})}})
    overall = {name: evaluation.report.overall}
    write_success_plot(path.with_name("success_plot.png"), overall, title)
    return path


def _numbers(success: TrackingSuccess, speed: float) -> dict[str, Any]:
    return {
        "ao": _or_none(success.ao),
        "sr": _or_none(success.sr50),
        "sr75": _or_none(success.sr75),
        "speed_fps": _or_none(speed),
        "succ_curve": [_or_none(value) for value in success.curve],
        "num_frames": success.num_frames,
    }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
