"""The demo: what prompts from neighbouring frames do for deteriorated ones, with all controls.

Generated video, three stages of training, one comparison::

    backbone on crops -> single-frame detector -> fine-tuned as it is          (baseline)
                                               -> ... for as long as STPN takes
                                               -> fine-tuned with STPN
                                               -> ... with frames of another video
                                               -> ... with static prompts

`comparison.protocol` says what the rows are; this only runs them and shows what they gave.
"""

from __future__ import annotations

from pathlib import Path

from stpn_tasks.comparison.options import ComparisonOptions
from stpn_tasks.comparison.pictures import comparison_pictures
from stpn_tasks.comparison.protocol import TEST_SETS, comparison_rows
from stpn_tasks.comparison.run import as_command, compare, say
from stpn_tasks.comparison.tables import condition_rows, precision_rows
from stpn_tasks.report.build import write_report
from stpn_tasks.report.words import KINDS, SPEEDS
from stpn_tasks.tables import print_table

# Of which rows and clips the report shows frames.
PICTURED = ("baseline", "stpn")


def run_demo(options: ComparisonOptions) -> Path:
    """Run the whole comparison, print its tables, and return the path of the report."""
    scale = options.scale
    seeds = ", ".join(map(str, options.seeds))
    say("render, train, test", f"seeds {seeds}, {scale.finetune_steps} steps a row")
    results = compare(
        options,
        comparison_rows(scale),
        title="Prompts from neighbouring frames, on deteriorated video",
        command=as_command("demo", options),
    )
    for test_set in TEST_SETS:
        print_table(precision_rows(results, test_set))
        print_table(condition_rows(results, test_set, KINDS))
        print_table(condition_rows(results, test_set, SPEEDS))
    path = options.output / "report.html"
    write_report(path, results, comparison_pictures(options, PICTURED))
    say(f"{results.about['minutes']} minutes", f"report: {path}")
    return path
