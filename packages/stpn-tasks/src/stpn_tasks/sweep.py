"""The sweep: one factor of the small recipe after the other, as tables and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from stpn_tasks.comparison.factors import FACTORS, Factor, sweep_rows
from stpn_tasks.comparison.options import ComparisonOptions
from stpn_tasks.comparison.protocol import TEST_SETS
from stpn_tasks.comparison.run import as_command, compare, say
from stpn_tasks.files import atomic_path, write_text
from stpn_tasks.report.words import MAIN, spoken
from stpn_tasks.results import Results, load_results, save_results, statistic
from stpn_tasks.tables import print_table

_STYLES = {"same_class": ("#0072B2", "o"), "mixed_class": ("#D55E00", "s")}


def run_sweep(options: ComparisonOptions, names: Sequence[str]) -> Path:
    """Train and test every value of some factors; return the path of ``sweep.md``.

    What the folder holds already, from a sweep that stopped, another factor or a demo of the
    same size, is not made again; the page shows all factors that were swept in this folder.

    Args:
        options: sizes, seeds, hardware, folder.
        names: of the factors; keys of ``FACTORS``.
    """
    factors = tuple(FACTORS[name](options.scale) for name in names)
    rows = sweep_rows(options.scale, factors)
    say("sweep", f"{', '.join(names)}: {len(rows)} rows, {len(options.seeds)} seeds")
    results = compare(
        options,
        rows,
        title="One factor at a time around the small recipe",
        command=as_command("sweep", options, *names),
        filename=None,
    )
    for factor in factors:
        of_factor = [row.name for row in sweep_rows(options.scale, (factor,))]
        models = tuple(model for model in results.models if model.name in of_factor)
        part = replace(results, models=models)
        save_results(_numbers(options, factor.name), part)
        draw_factor(options.output / f"sweep-{factor.name}.png", part, factor)
        print_table(factor_table(part, factor))
    path = options.output / "sweep.md"
    swept = [name for name in FACTORS if _numbers(options, name).exists()]
    parts = {FACTORS[name](options.scale): load_results(_numbers(options, name)) for name in swept}
    write_text(path, sweep_page(parts))
    return path


def _numbers(options: ComparisonOptions, name: str) -> Path:
    return options.output / f"sweep-{name}.json"


def _cells(results: Results, factor: Factor) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of a factor's table: AP50 by test set and frames."""
    head = [factor.label]
    head += [f"{spoken(name)}, {frames}" for name in TEST_SETS for frames in MAIN]
    lines = []
    shown = (*factor.references, *factor.rows)
    for label, name in [("baseline", "baseline"), *((row.label, row.name) for row in shown)]:
        model = results.model(name)
        numbers = [statistic(model, test, frames) for test in TEST_SETS for frames in MAIN]
        lines.append([label, *map(str, numbers)])
    return head, lines


def factor_table(results: Results, factor: Factor) -> Table:
    """Return AP50 (percent, mean ± spread over seeds) of every value of a factor."""
    head, lines = _cells(results, factor)
    table = Table(title=f"AP50 by {factor.label}. {factor.about}", title_justify="left")
    for index, column in enumerate(head):
        table.add_column(column, justify="right" if index else "left")
    for line in lines:
        table.add_row(*line)
    return table


def sweep_page(parts: Mapping[Factor, Results]) -> str:
    """Return the tables of some factors as Markdown, with the plots that lie beside it."""
    text = [
        "# One factor at a time around the small recipe\n",
        "AP50 in percent, mean ± standard deviation over the seeds.\n",
    ]
    for factor, results in parts.items():
        head, lines = _cells(results, factor)
        text.append(f"## {factor.label}\n\n{factor.about}\n")
        rule = ["---"] + ["---:"] * (len(head) - 1)
        text.append("\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines)) + "\n")
        text.append(f"![AP50 by {factor.label}](sweep-{factor.name}.png)\n")
        about = results.about
        text.append(
            f"`{about['command']}`; minutes: {about['minutes']}; commit {about['commit']}; "
            f"{about['processor']}.\n"
        )
    return "\n".join(text)


def draw_factor(path: Path, results: Results, factor: Factor) -> None:
    """Draw AP50 over the values of a factor: of all frames and of deteriorated ones."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    for axes, frames in zip(figure.subplots(1, 2), ("all", "deteriorated"), strict=True):
        _draw_frames(axes, results, factor, frames)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=150)


def _draw_frames(axes: Axes, results: Results, factor: Factor, frames: str) -> None:
    places = range(len(factor.rows))
    for test_set, (colour, marker) in _STYLES.items():
        values = [statistic(results.model(row.name), test_set, frames) for row in factor.rows]
        means = [value.mean for value in values]
        spreads = [0.0 if value.num_seeds < 2 else value.spread for value in values]
        label = spoken(test_set)
        axes.errorbar(places, means, spreads, color=colour, marker=marker, capsize=3, label=label)
        base = statistic(results.model("baseline"), test_set, frames).mean
        axes.axhline(base, color=colour, linestyle=":", label=f"baseline, {label}")
    axes.set_xticks(list(places), [row.label for row in factor.rows])
    axes.set_xlabel(factor.label)
    axes.set_ylabel(f"AP50, {frames} frames (%)")
    axes.spines[["top", "right"]].set_visible(False)
