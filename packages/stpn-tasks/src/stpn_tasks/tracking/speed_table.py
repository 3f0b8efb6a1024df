"""What was found of trackers' speed, for people and for programs."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.table import Table

from stpn_tasks.tracking.speed import ABOUT, TrackingSpeed


def tracking_speed_table(found: TrackingSpeed, title: str) -> Table:
    """Return a table: a row per kind of frame.

    *× plain* is measured; *passes* is what counting passes over search crops predicts of it, and
    *operations* what counting multiplications and additions of the network does.
    """
    kept = f"{found.support_frames} embeddings kept, {found.support_bytes / 1e6:.2f} MB"
    table = Table(title=f"{title}; {kept}", title_justify="left")
    table.add_column("frame", no_wrap=True)
    table.add_column("what is timed")
    for name in ("number", "plain ms", "STPN ms", "plain/s", "STPN/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("× plain", "quartiles", "passes", "operations"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found.frames:
        table.add_row(
            one.name,
            ABOUT[one.name],
            str(one.number),
            f"{1000 * one.plain_seconds:.1f}",
            f"{1000 * one.prompted_seconds:.1f}",
            f"{1 / one.plain_seconds:.2f}",
            f"{1 / one.prompted_seconds:.2f}",
            f"{one.ratio:.3f}",
            f"{one.quartiles[0]:.3f} – {one.quartiles[1]:.3f}",
            "" if one.passes is None else f"{one.passes:.3f}",
            f"{one.operations:.3f}",
        )
    return table


def tracking_speed_json(found: TrackingSpeed) -> dict[str, Any]:
    """Return what was found as json can hold it."""
    frames = [{**dataclasses.asdict(one), "about": ABOUT[one.name]} for one in found.frames]
    return {**dataclasses.asdict(found), "frames": frames}
