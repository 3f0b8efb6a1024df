"""The demo of segmentation: what prompts do for deteriorated frames, and for whole videos.

Generated video, and one comparison::

    backbone on crops -> segmenter -> trained on as it is           (baseline)
                                   -> ... for as long as STPN takes
                                   -> with STPN
                                   -> ... with support frames of another video

`protocol` says what the rows are; this only runs them and shows what they gave.
"""

from __future__ import annotations

from pathlib import Path

from stpn_tasks.comparison.options import ComparisonOptions
from stpn_tasks.comparison.run import say
from stpn_tasks.segmentation.comparison.protocol import SCALES
from stpn_tasks.segmentation.comparison.run import compare_segmenters
from stpn_tasks.segmentation.comparison.tables import (
    association_rows,
    headroom_rows,
    precision_rows,
)
from stpn_tasks.tables import print_table


def run_segmentation_demo(options: ComparisonOptions) -> Path:
    """Run the whole comparison, print its tables, and return the path of its numbers."""
    seeds = ", ".join(map(str, options.seeds))
    scale = SCALES[options.size]
    say("render, train, segment", f"seeds {seeds}, {scale.finetune_steps} steps a row")
    results = compare_segmenters(options)
    for rows in (precision_rows, headroom_rows, association_rows):
        print_table(rows(results))
    path = options.output / "segmentation-results.json"
    say(f"{results['about']['minutes']} minutes", f"numbers: {path}")
    return path
