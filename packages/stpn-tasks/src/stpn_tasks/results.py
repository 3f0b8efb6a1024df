"""Measured numbers of several models, test sets and seeds: what tables and reports are made of."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stpn_tasks.metrics import AveragePrecision, VidPrecision
from stpn_tasks.tables import precision_json, vid_json, write_json

# Average precision of one test set: of "all" frames and of the frames of each condition.
ByCondition = Mapping[str, AveragePrecision]

# AP50 by the rules of ImageNet VID of one test set: of "all" objects and of each motion group.
ByMotion = Mapping[str, VidPrecision]

# Conditions whose precision-recall curves are kept in files.
CURVES = ("all", "deteriorated", "clean")


@dataclass(frozen=True)
class Run:
    """What one model of one seed gave.

    Attributes:
        seed: of data, weights and order.
        precision: COCO average precision by condition, by test set.
        steps: of fine-tuning, where the model was fine-tuned.
        cpu_seconds: of fine-tuning, all threads together.
        vid: AP50 by the rules of ImageNet VID by motion group, by test set, where it was measured.
    """

    seed: int
    precision: Mapping[str, ByCondition]
    steps: int | None = None
    cpu_seconds: float | None = None
    vid: Mapping[str, ByMotion] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """One row of a comparison.

    Attributes:
        name: short, for files and options.
        label: for people.
        about: one sentence: what it is.
        runs: of every seed.
        in_figures: whether figures show it; tables always do.
    """

    name: str
    label: str
    about: str
    runs: tuple[Run, ...]
    in_figures: bool = True

    @property
    def cpu_seconds(self) -> float | None:
        """Mean processor time of fine-tuning; ``None`` where it is not known of any run."""
        seconds = [run.cpu_seconds for run in self.runs if run.cpu_seconds is not None]
        return statistics.fmean(seconds) if seconds else None


@dataclass(frozen=True)
class Statistic:
    """The mean over seeds, their sample standard deviation (NaN for one seed), and their number.

    Both are in percent; NaN where no seed has the number.
    """

    mean: float
    spread: float
    num_seeds: int

    def __str__(self) -> str:
        """Return "53.0 ± 1.2", or "53.0" of one seed."""
        if math.isnan(self.mean):
            return "–"
        mean = f"{self.mean:.1f}"
        return mean if math.isnan(self.spread) else f"{mean} ± {self.spread:.1f}"


@dataclass(frozen=True)
class Results:
    """Everything that one experiment measured.

    Attributes:
        title: of the experiment.
        about: how it came about, for people and in their order: command, commit, hardware, time.
        models: the rows; the first one is what the others are compared with.
    """

    title: str
    about: Mapping[str, Any]
    models: tuple[Model, ...]

    def model(self, name: str) -> Model:
        """Return a model by its name.

        Raises:
            KeyError: if there is none; names those there are.
        """
        for model in self.models:
            if model.name == name:
                return model
        raise KeyError(f"no model {name!r} among {[model.name for model in self.models]}")

    @property
    def test_sets(self) -> tuple[str, ...]:
        """Names of the test sets, in order."""
        names = [name for model in self.models for run in model.runs for name in run.precision]
        return tuple(dict.fromkeys(names))


def statistic(model: Model, test_set: str, condition: str, metric: str = "ap50") -> Statistic:
    """Return mean and spread of a model's average precision over its seeds, in percent.

    Args:
        model: with its runs.
        test_set: which one.
        condition: "all" or one that frames name.
        metric: a field of ``AveragePrecision``.
    """
    return summary(_values(model, test_set, condition, metric).values())


def gain(
    model: Model, over: Model, test_set: str, condition: str, metric: str = "ap50"
) -> Statistic:
    """Return mean and spread of the difference of two models, seed by seed, in points."""
    mine, theirs = (_values(m, test_set, condition, metric) for m in (model, over))
    return summary(mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys()))


def vid_statistic(
    model: Model, test_set: str, group: str, class_name: str | None = None
) -> Statistic:
    """Return mean and spread of a model's AP50 by ImageNet VID's rules over its seeds, in percent.

    Args:
        model: with its runs.
        test_set: which one.
        group: "all" or a motion group.
        class_name: of one class instead of the mean over classes.
    """
    found = (run.vid.get(test_set, {}).get(group) for run in model.runs)
    values = (
        one.ap50 if class_name is None else one.by_class.get(class_name, math.nan)
        for one in found
        if one is not None
    )
    return summary(100 * value for value in values if not math.isnan(value))


def _values(model: Model, test_set: str, condition: str, metric: str) -> dict[int, float]:
    found = {
        run.seed: 100 * getattr(run.precision[test_set][condition], metric)
        for run in model.runs
        if condition in run.precision.get(test_set, {})
    }
    return {seed: value for seed, value in found.items() if not math.isnan(value)}


def summary(values: Iterable[float]) -> Statistic:
    """Return mean and spread of the numbers of several seeds."""
    numbers = list(values)
    mean = statistics.fmean(numbers) if numbers else math.nan
    spread = statistics.stdev(numbers) if len(numbers) > 1 else math.nan
    return Statistic(mean, spread, len(numbers))


def run_json(run: Run) -> dict[str, Any]:
    """Return a run as json can hold it: percent, null without an object.

    Of the curves those of `CURVES` are kept, which are what is drawn.
    """
    precision = {name: precision_json(values) for name, values in run.precision.items()}
    for by_condition in precision.values():
        for condition, numbers in by_condition.items():
            if condition not in CURVES:
                del numbers["curve50"]
    return {
        "seed": run.seed,
        "steps": run.steps,
        "cpu_seconds": run.cpu_seconds,
        "precision": precision,
        "vid": {name: vid_json(values) for name, values in run.vid.items()},
    }


def run_from_json(values: Mapping[str, Any]) -> Run:
    """Return the run that ``run_json`` wrote."""
    precision = {
        name: {condition: _precision(numbers) for condition, numbers in by_condition.items()}
        for name, by_condition in values["precision"].items()
    }
    vid = {
        name: {group: _vid_precision(numbers) for group, numbers in by_motion.items()}
        for name, by_motion in values.get("vid", {}).items()  # older files have none
    }
    return Run(values["seed"], precision, values["steps"], values["cpu_seconds"], vid)


def _precision(numbers: Mapping[str, Any]) -> AveragePrecision:
    curve = tuple(value / 100 for value in numbers.get("curve50", ()))
    single = {
        one.name: _fraction(numbers[one.name])
        for one in dataclasses.fields(AveragePrecision)
        if one.name != "curve50"
    }
    return AveragePrecision(**single, curve50=curve)


def _vid_precision(numbers: Mapping[str, Any]) -> VidPrecision:
    return VidPrecision(
        _fraction(numbers["ap50"]),
        {name: _fraction(value) for name, value in numbers["by_class"].items()},
        dict(numbers["num_objects"]),
        numbers["empty_weight"],
    )


def _fraction(percent: float | None) -> float:
    return math.nan if percent is None else percent / 100


def save_results(path: Path, results: Results) -> None:
    """Write results as json, atomically."""
    models = [
        {
            "name": model.name,
            "label": model.label,
            "about": model.about,
            "in_figures": model.in_figures,
            "runs": [run_json(run) for run in model.runs],
        }
        for model in results.models
    ]
    write_json(path, {"title": results.title, "about": dict(results.about), "models": models})


def load_results(path: Path) -> Results:
    """Read results that ``save_results`` wrote.

    Raises:
        ValueError: if the file is missing, is not json, or lacks a field; names both.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        models = tuple(
            Model(
                model["name"],
                model["label"],
                model["about"],
                tuple(run_from_json(run) for run in model["runs"]),
                model["in_figures"],
            )
            for model in values["models"]
        )
        return Results(values["title"], values["about"], models)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not json: {error}") from error
    except KeyError as error:
        raise ValueError(f"{path} is not a file of results: it lacks {error}") from error
    except (AttributeError, OverflowError, TypeError) as error:
        raise ValueError(f"{path} is not a file of results: {error}") from error
