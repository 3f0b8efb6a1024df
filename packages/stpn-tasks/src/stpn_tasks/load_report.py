"""What a load did with every key, for people."""

from __future__ import annotations

from collections import Counter, defaultdict

from rich.table import Table

from stpn_backbones import LoadReport

# Parts of a detector, a segmenter or a tracker that a row of the table stands for.
_PARTS = (
    *("encoder.backbone", "encoder.predictor", "head.fpn", "head.rpn", "head.roi_head"),
    *("head.pixel_decoder", "head.decoder"),
    *("box_head", "score_head", "predictor"),
)


def load_table(report: LoadReport) -> Table:
    """Return a table of how many weights each part of a model took, and how many are new to it."""
    loaded, new = (Counter(map(_part, keys)) for keys in (report.loaded, report.new))
    table = Table()
    table.add_column("part", no_wrap=True)
    for name in ("loaded", "new"):
        table.add_column(name, justify="right")
    for part in sorted(loaded.keys() | new.keys()):
        table.add_row(part, str(loaded[part]), str(new[part]))
    table.add_row("all", str(loaded.total()), str(new.total()))
    return table


def load_lines(report: LoadReport) -> list[str]:
    """Name every key that a load did not find, or did not use and why."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for key, reason in report.unexpected.items():
        by_reason[reason].append(key)
    lines = [
        f"not used, {reason} ({len(keys)}): {', '.join(keys)}" for reason, keys in by_reason.items()
    ]
    if report.new:
        lines.append(f"new, not in the checkpoint ({len(report.new)}): {', '.join(report.new)}")
    return lines


def _part(key: str) -> str:
    return next((part for part in _PARTS if key.startswith(f"{part}.")), "backbone")
