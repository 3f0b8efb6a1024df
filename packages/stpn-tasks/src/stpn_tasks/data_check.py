"""Show what a check of a data set found."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from stpn_data.checks import DataCheck


def problem_lines(check: DataCheck) -> Iterator[str]:
    """Yield every problem with its file, grouped by kind, and the files that were not checked."""
    for kind, number in check.problems.counts.items():
        yield f"{number} x {kind}"
        for place in check.problems.places(kind):
            # A json may hold half a character, which no terminal shows.
            yield f"    {place.encode('utf-8', 'backslashreplace').decode()}"
    for path in check.other_files:
        yield f"{path}: no json of images, not checked"


def subset_table(check: DataCheck) -> Table:
    """Return a table of what was counted: a row per part of the data."""
    table = Table()
    for name in ("data", "format"):
        table.add_column(name, overflow="fold")
    for name in ("videos", "frames", "still images", "objects", "tracks", "classes"):
        table.add_column(name, justify="right")
    for subset in check.subsets:
        counts = (
            *(subset.videos, subset.frames, subset.still_images),
            *(subset.objects, subset.tracks, len(subset.classes)),
        )
        table.add_row(subset.name, subset.layout, *map(str, counts))
    return table
