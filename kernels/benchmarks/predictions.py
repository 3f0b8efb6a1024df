"""What can be said of a GPU without one: the cost model's floors, the compiler's reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from report import markdown_table, number
from shapes import attend_shapes, pool_shapes, window_shapes

from stpn_kernels.cost import H200, Device

COMPILE_TABLE = Path(__file__).parents[1] / "compile_table.json"
ELEMENT_SIZE = 2  # bfloat16


def predicted_floors(quick: bool, device: Device = H200) -> str:
    """Return the least time of every call that a GPU would be timed at."""
    rows = [
        ["prompted_window_attention", *_floor(shape, device)]
        for shape in window_shapes("cuda", quick)
        if shape.shift > 0  # the same without
    ]
    rows += [["support_pool", *_floor(shape, device)] for shape in pool_shapes("cuda", quick)]
    rows += [["support_attend", *_floor(shape, device)] for shape in attend_shapes("cuda", quick)]
    head = ["operator", "shape"]
    for direction in ("forward", "backward"):
        head += [f"{direction} MB", "GFLOP", "floor, us"]
    return (
        f"## PREDICTED for an {device.name}, not measured\n\n"
        f"The cost model's floors in bfloat16: minimal bytes at {device.bytes_per_second / 1e12}"
        f" TB/s, operations at {device.flops_per_second / 1e12:.0f} TFLOP/s, whichever takes"
        " longer. No call was run; a kernel takes longer than its floor, and at least the 2 us or"
        f" so of a launch.\n\n{markdown_table(head, rows)}\n"
    )


def _floor(shape: Any, device: Device) -> list[str]:
    cells = [str(shape)]
    costs = shape.costs(ELEMENT_SIZE)
    for direction in ("forward", "backward"):
        cost = costs[direction]
        floor = device.floor_seconds(cost)
        cells += [number(cost.bytes, 1e-6), number(cost.flops, 1e-9), number(floor, 1e6)]
    return cells


def compile_table(path: Path = COMPILE_TABLE) -> str:
    """Return the committed reports of the compiler on the kernels, for GPUs that aren't here."""
    heading = "## Compiled for GPUs, not run\n\n"
    if not path.exists():
        return f"{heading}There is no {path.name} yet.\n"
    table: dict[str, Any] = json.loads(path.read_text())
    rows: list[dict[str, Any]] = table["rows"]
    # What a build may take at most is for the test.
    columns = [name for name in rows[0] if not name.startswith("max_")]
    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    head = [name.replace("_", " ") for name in columns]
    return f"{heading}By Triton {table['triton']}.\n\n{markdown_table(head, cells)}\n"


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return "" if value is None else str(value)
