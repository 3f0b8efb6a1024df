"""The sections of a report that hold numbers: tables, and the figures drawn from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from stpn_tasks.metrics.vid import ALL_OBJECTS, MOTION_GROUPS
from stpn_tasks.report.figures import gain_bars, precision_recall
from stpn_tasks.report.page import (
    Column,
    Html,
    Section,
    element,
    join,
    paragraph,
    table,
    terms,
    text,
)
from stpn_tasks.report.words import (
    ABOUT_CONDITIONS,
    ABOUT_NUMBERS,
    ABOUT_TEST_SETS,
    ABOUT_VID,
    MAIN,
    TEST_SETS,
    in_order,
    spoken,
)
from stpn_tasks.results import Model, Results, Statistic, gain, statistic, vid_statistic

# What a cell of a table is, of a model, a condition and a metric.
_Value = Callable[[Model, str, str], Statistic]


def lead(results: Results) -> Html:
    """Return the main number of each test set in a sentence."""
    first, *others = results.models
    last = others[-1] if others else None
    main = next((model for model in others if model.name == "stpn"), last)
    sentences = []
    for test_set in results.test_sets:
        condition = "deteriorated" if "deteriorated" in _conditions(results, test_set) else "all"
        where = f"{condition} frames"
        if len(results.test_sets) > 1:
            where += f" of test set “{spoken(test_set)}”"
        if main is None:
            mine = statistic(first, test_set, condition)
            said = f"{first.label} {mine} ({_seeds(mine)})"
        else:
            gained = gain(main, first, test_set, condition)
            before, after = (statistic(model, test_set, condition) for model in (first, main))
            said = (
                f"{first.label} {before}, {main.label} {after}; "
                f"gain {_signed(gained)} points ({_seeds(gained)})"
            )
        sentences.append(paragraph(text(f"AP50 on {where}: {said}."), class_="lead"))
    return join(*sentences)


def number_sections(results: Results) -> list[Section]:
    """Return what was run, what the numbers mean, and the numbers."""
    first, *others = results.models
    sections = [
        Section("What was run", (terms(_flat(results.about), class_="facts"),)),
        Section("Models", (_models(results), *_test_sets(results), *_training(results))),
        Section("How to read the numbers", (_meanings(_about_numbers(results)),)),
        Section("Average precision", tuple(_main_table(results, s) for s in results.test_sets)),
    ]
    by_condition = [_condition_table(results, s) for s in results.test_sets]
    if any(by_condition):
        meanings = {
            spoken(name): ABOUT_CONDITIONS.get(name, "as the data set names it.")
            for name in _all(results)
        }
        sections.append(Section("By condition", (*filter(None, by_condition), _meanings(meanings))))
    by_motion = [part for s in results.test_sets for part in _vid_tables(results, s)]
    if by_motion:
        about = _meanings(ABOUT_VID)
        sections.append(Section("AP50 of ImageNet VID", (*by_motion, about)))
    curves = tuple(filter(None, (precision_recall(results, s) for s in results.test_sets)))
    if curves:
        sections.append(Section("Precision and recall", curves))
    if others:
        bars = gain_bars(results, _all(results))
        tables = (_gain_table(results, s) for s in results.test_sets)
        sections.append(Section(f"Gain over {first.label}", (*filter(None, [bars]), *tables)))
    return sections


def _about_numbers(results: Results) -> dict[str, str]:
    """Leave out what a single model has no use for."""
    few = len(results.models) < 2
    return {name: about for name, about in ABOUT_NUMBERS.items() if not (few and name == "gain")}


def _models(results: Results) -> Html:
    return terms([(model.label, text(model.about)) for model in results.models])


def _training(results: Results) -> list[Html]:
    """Return what the fine-tuning of each model took, and with which seeds, if that is known."""
    if all(run.steps is None for model in results.models for run in model.runs):
        return []
    rows = []
    for model in results.models:
        steps = sorted({run.steps for run in model.runs if run.steps is not None})
        cells = [
            ", ".join(str(run.seed) for run in model.runs),
            " or ".join(f"{number:,}" for number in steps) or "–",
            "–" if model.cpu_seconds is None else f"{model.cpu_seconds / 60:.1f}",
        ]
        rows.append((model.label, cells))
    caption = "Fine-tuning: steps, and minutes of CPU time (all threads together, mean over seeds)."
    columns = [Column("seeds"), Column("steps"), Column("CPU minutes")]
    return [table(caption, "model", columns, rows)]


def _test_sets(results: Results) -> list[Html]:
    known = {spoken(s): ABOUT_TEST_SETS[s] for s in results.test_sets if s in ABOUT_TEST_SETS}
    if not known:
        return []
    return [element("h3", text("Test sets")), _meanings(known)]


def _main_columns(results: Results, test_set: str) -> tuple[list[Column], list[tuple[str, str]]]:
    """Return the columns of a main table, and the condition and metric of each cell in a row."""
    shown = [name for name in MAIN if name in _conditions(results, test_set)]
    columns = [Column(f"{name} frames", ("AP", "AP50")) for name in shown]
    return columns, [(name, metric) for name in shown for metric in ("ap", "ap50")]


def _main_table(results: Results, test_set: str) -> Html:
    columns, cells = _main_columns(results, test_set)
    caption = _captioned(results, test_set, "COCO average precision in percent")
    return _table(results.models, caption, columns, cells, _absolute(test_set))


def _condition_table(results: Results, test_set: str) -> Html | None:
    names = [name for name in _conditions(results, test_set) if name not in MAIN]
    if not names:
        return None
    columns = [Column(spoken(name), ("AP", "AP50")) for name in names]
    cells = [(name, metric) for name in names for metric in ("ap", "ap50")]
    caption = _captioned(
        results, test_set, "COCO average precision in percent by the condition of the frames"
    )
    return _table(results.models, caption, columns, cells, _absolute(test_set))


def _vid_tables(results: Results, test_set: str) -> list[Html]:
    """Return AP50 by ImageNet VID's rules by motion group, and by class, where it was measured."""
    measured = [run.vid.get(test_set, {}) for model in results.models for run in model.runs]
    groups = [name for name in MOTION_GROUPS if any(name in by_motion for by_motion in measured)]
    if not groups:
        return []
    classes = dict.fromkeys(
        name for one in measured if ALL_OBJECTS in one for name in one[ALL_OBJECTS].by_class
    )
    rows = [
        (model.label, [str(vid_statistic(model, test_set, group)) for group in groups])
        for model in results.models
    ]
    what = "AP50 in percent by the rules of ImageNet VID"
    by_motion = table(
        _captioned(results, test_set, f"{what}, objects by motion"),
        "model",
        [Column(f"{group} objects") for group in groups],
        rows,
    )
    of_class = [
        (name, [str(vid_statistic(model, test_set, ALL_OBJECTS, name)) for model in results.models])
        for name in classes
    ]
    columns = [Column(model.label) for model in results.models]
    caption = _captioned(results, test_set, f"{what}, by class")
    return [by_motion, table(caption, "class", columns, of_class)]


def _gain_table(results: Results, test_set: str) -> Html:
    first, *others = results.models
    columns, cells = _main_columns(results, test_set)
    caption = _captioned(results, test_set, f"Points gained over {first.label}, seed by seed")

    def gained(model: Model, condition: str, metric: str) -> Statistic:
        return gain(model, first, test_set, condition, metric)

    return _table(others, caption, columns, cells, gained, signed=True)


def _table(
    models: Sequence[Model],
    caption: str,
    columns: Sequence[Column],
    cells: Sequence[tuple[str, str]],
    value: _Value,
    *,
    signed: bool = False,
) -> Html:
    write = _signed if signed else str
    rows = [(model.label, [write(value(model, *cell)) for cell in cells]) for model in models]
    return table(caption, "model", columns, rows)


def _absolute(test_set: str) -> _Value:
    def of_model(model: Model, condition: str, metric: str) -> Statistic:
        return statistic(model, test_set, condition, metric)

    return of_model


def _captioned(results: Results, test_set: str, what: str) -> str:
    return f"{what}, test set “{spoken(test_set)}”." if len(results.test_sets) > 1 else f"{what}."


def _signed(value: Statistic) -> str:
    """Return a difference with its sign; a typographic minus is as wide as a plus."""
    written = str(value)
    return written.replace("-", "−") if written[0] in "-–" else f"+{written}"


def _seeds(value: Statistic) -> str:
    return "1 seed" if value.num_seeds == 1 else f"{value.num_seeds} seeds"


def _conditions(results: Results, test_set: str) -> list[str]:
    """Return the conditions that any model has a number of, those we know in their order."""
    found = {
        name
        for model in results.models
        for run in model.runs
        for name in run.precision.get(test_set, {})
        if name not in TEST_SETS  # every frame of a test set has the same one: it divides nothing
    }
    return in_order(found)


def _all(results: Results) -> list[str]:
    """Return the conditions of all test sets."""
    return in_order(name for s in results.test_sets for name in _conditions(results, s))


def _flat(values: Mapping[str, object], above: str = "") -> list[tuple[str, Html]]:
    """Return nested values in one level; commands look like commands."""
    entries: list[tuple[str, Html]] = []
    for key, value in values.items():
        name = f"{above}{key}" if above else spoken(str(key))  # below may be a file's name
        if isinstance(value, Mapping):
            # What the environment is needs no saying; what a file's number is of does.
            entries += _flat(value, above if key == "environment" else f"{name}, ")
        elif value is not None:
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            is_code = "command" in (key, above.partition(",")[0])
            entries.append((name, element("code", text(shown)) if is_code else text(shown)))
    return entries


def _meanings(entries: Mapping[str, str]) -> Html:
    return terms([(term, text(about)) for term, about in entries.items()])
