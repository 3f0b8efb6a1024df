"""Export trackers for use without this project."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tyro.conf import Positional


def export_tracking(
    weights: Positional[Path], output: Path, format: Literal["onnx", "torch"] = "onnx"
) -> None:
    """Write a tracker as graphs that run without this project, and check them.

    The graphs are encode_templates, predict_prompts, track_prompted and track_plain, the pass
    without prompts; of a plain MixFormer the first and the last. tracker.json tells names and
    shapes of their inputs and outputs, which is called when, crops, normalisation and settings.
    Each graph is run against PyTorch, and the largest difference is printed. docs/export.md shows
    how to track with them.

    Args:
        weights: a model.safetensors that ``stpn train tracking`` wrote.
        output: folder for the graphs and tracker.json.
        format: "onnx" writes .onnx and needs ``pip install "stpn-tasks[export]"``; "torch" writes
            .pt2, programs of torch.export.
    """
    from rich.table import Table

    from stpn_tasks.tables import print_table
    from stpn_tasks.tracking.checkpoint import load_tracker
    from stpn_tasks.tracking.export import export_tracker

    graphs = export_tracker(load_tracker(weights), output, format)
    table = Table("graph", "MB", "largest difference from PyTorch")
    for graph in graphs:
        size = graph.path.stat().st_size / 1e6
        table.add_row(graph.path.name, f"{size:.1f}", f"{graph.difference:.1e}")
    print_table(table)
    print(f"in {output}, with tracker.json, which describes them")
