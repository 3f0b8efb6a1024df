"""What the report of a comparison shows frames of."""

from __future__ import annotations

from collections.abc import Sequence

from stpn_tasks.comparison.options import ComparisonOptions
from stpn_tasks.comparison.run import workspaces
from stpn_tasks.detection.checkpoint import load_detector
from stpn_tasks.detection.detections import load_detections
from stpn_tasks.detection.run import build_inference
from stpn_tasks.recipes import SupportOptions
from stpn_tasks.report.pictures import Pictures


def comparison_pictures(
    options: ComparisonOptions, rows: Sequence[str], test_set: str = "same_class"
) -> Pictures:
    """Return the test clips of the first seed with the detections that a comparison left there.

    Args:
        options: of the comparison, which has run.
        rows: one row or two; where the last one's prompts look is shown as well.
        test_set: which clips.
    """
    space = workspaces(options)[0]
    saved = load_detector(space.weights(rows[-1]))
    return Pictures(
        space.test_videos()[test_set],
        {row: load_detections(space.detections(row, test_set)) for row in rows},
        build_inference(saved, space.accelerator(), SupportOptions()),
        test_set,
    )
