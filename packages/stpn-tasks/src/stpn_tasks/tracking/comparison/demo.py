"""The demo of tracking: what prompts do on sequences that ask for identity, with all controls.

Generated sequences, and one comparison::

    backbone on crops -> MixFormer                                (baseline)
                      -> ... trained for as long as STPN takes
                      -> STPN
                      -> ... with support crops of another sequence

`protocol` says what the rows are; this only runs them and shows what they gave.
"""

from __future__ import annotations

from pathlib import Path

from stpn_tasks.comparison.options import ComparisonOptions
from stpn_tasks.comparison.run import say
from stpn_tasks.tables import print_table
from stpn_tasks.tracking.comparison.pictures import draw_trackers
from stpn_tasks.tracking.comparison.protocol import SCALES
from stpn_tasks.tracking.comparison.run import compare_trackers, open_tracking_seeds
from stpn_tasks.tracking.comparison.tables import (
    difference_rows,
    gate_rows,
    step_rows,
    track_rows,
)


def run_tracking_demo(options: ComparisonOptions) -> Path:
    """Run the whole comparison, print its tables, and return the path of its numbers."""
    seeds = ", ".join(map(str, options.seeds))
    scale = SCALES[options.size]
    say("render, train, track", f"seeds {seeds}, {scale.tracker_steps} steps a row")
    results = compare_trackers(options)
    print_table(gate_rows(results))
    for template in ("first", "recent"):
        print_table(step_rows(results, template))
    print_table(track_rows(results))
    print_table(difference_rows(results))
    path = options.output / "tracking-results.json"
    pictures = draw_trackers(open_tracking_seeds(options)[0], options.output)
    shown = ", ".join(map(str, (path, *pictures)))
    say(f"{results['about']['minutes']} minutes", f"numbers and pictures: {shown}")
    return path
