"""Write a tracker as ``.onnx`` or ``.pt2`` files that need none of this project to run.

Beside them lies ``tracker.json``, which says all that a deployment has to know of them.
"""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch.export import ExportedProgram

from stpn_tasks.files import atomic_path, write_text
from stpn_tasks.tracking.build import build_tracker_options
from stpn_tasks.tracking.checkpoint import SavedTracker
from stpn_tasks.tracking.export_description import describe
from stpn_tasks.tracking.graphs import (
    Arguments,
    Named,
    draw_arguments,
    export_program,
    flat,
    tracker_modules,
)
from stpn_tasks.tracking.mixformer import MixFormer

Format: TypeAlias = Literal["onnx", "torch"]

_SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
_ONNX_MODULES = ("onnx", "onnxruntime", "onnxscript")
# Float32 sums in another order differ by a hundred times less.
_LARGEST_DIFFERENCE = 1e-3


@dataclass(frozen=True)
class WrittenGraph:
    """A graph in a file.

    Attributes:
        name: what it is called in ``tracker.json``.
        path: the file.
        difference: the largest from PyTorch, of an output by its largest value (at least 1).
    """

    name: str
    path: Path
    difference: float


def export_tracker(saved: SavedTracker, folder: Path, file_format: Format) -> list[WrittenGraph]:
    """Write the graphs of a tracker and ``tracker.json``, and run each against PyTorch.

    Inputs and outputs are float32, of one clip. Any number of online templates and of support
    frames may be given; sizes of crops are those of the recipe. ``tracker.json`` is written last,
    when all graphs were found to do what the network does.

    Args:
        saved: the tracker, on the CPU.
        folder: for ``NAME.onnx`` or ``NAME.pt2``, and ``tracker.json``.
        file_format: ONNX, or programs of ``torch.export``.

    Raises:
        ValueError: if a package is missing that ONNX needs, or a graph does not do what the network
            does.
    """
    if file_format == "onnx":
        _need_onnx()
    description_file = folder / "tracker.json"
    description_file.unlink(missing_ok=True)  # an older one would be of files that are replaced
    options = build_tracker_options(saved.recipe)
    sizes = options.template_size, options.search_size
    support_size = options.support_size
    arguments = draw_arguments(saved.network, *sizes, support_size=support_size)
    graphs, outputs = [], {}
    for name, module in tracker_modules(saved.network).items():
        program = export_program(module, arguments[name])
        path = folder / f"{name}{_SUFFIXES[file_format]}"
        outputs[name] = _outputs_of(module, arguments[name])
        with atomic_path(path) as partial:
            if file_format == "onnx":
                _save_onnx(program, partial, list(flat(arguments[name])), list(outputs[name]))
            else:
                torch.export.save(program, partial)
        graphs.append(path)
    written = check_files(saved.network, graphs, *sizes, support_size=support_size)
    files = {graph.name: graph.path.name for graph in written}
    description = describe(saved.network, options, files, arguments, outputs)
    write_text(description_file, json.dumps(description, indent=1) + "\n")
    return written


def check_files(
    network: MixFormer,
    paths: list[Path],
    template_size: int,
    search_size: int,
    *,
    support_size: int | None = None,
) -> list[WrittenGraph]:
    """Run graphs in files against the network, with fewer and more templates than were traced.

    Args:
        network: what they were made from.
        paths: ``NAME.onnx`` or ``NAME.pt2``.
        template_size: rows and columns of a template.
        search_size: rows and columns of a search crop.
        support_size: of a support crop; as of a search crop if not given.

    Raises:
        ValueError: if a graph gives something else than the network, or either gives numbers that
            are not finite; names the file.
    """
    modules = tracker_modules(network)
    cases = [
        draw_arguments(
            network,
            template_size,
            search_size,
            support_size=support_size,
            num_online=num_online,
            num_support=num_support,
            seed=num_online,
        )
        for num_online, num_support in ((1, 1), (3, 5))
    ]
    written = []
    for path in paths:
        run = _runner(path)
        difference = 0.0
        for arguments in (case[path.stem] for case in cases):
            expected = _outputs_of(modules[path.stem], arguments)
            difference = max(difference, _difference(path, run(arguments), expected))
        if not difference <= _LARGEST_DIFFERENCE:
            raise ValueError(f"{path} differs from the network by {difference:.1e}: do not use it")
        written.append(WrittenGraph(path.stem, path, difference))
    return written


def _need_onnx() -> None:
    for name in _ONNX_MODULES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(
                f'ONNX needs {name}, which is not installed: pip install "stpn-tasks[export]"'
            ) from error


def _save_onnx(program: ExportedProgram, path: Path, inputs: list[str], outputs: list[str]) -> None:
    with _quiet("onnxscript", "onnx_ir", "torch.onnx"):
        converted = torch.onnx.export(
            program, dynamo=True, input_names=inputs, output_names=outputs, verbose=False
        )
    if converted is None:  # which it is not without a file to write to
        raise RuntimeError("torch made no ONNX program")
    converted.save(path, external_data=False)


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Hold back what converters log of optimisations that they leave out."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _runner(path: Path) -> Any:
    """Return a function from the arguments of a graph to its outputs."""
    if path.suffix == _SUFFIXES["torch"]:
        with _quiet("torch._export"):  # which tells of symbols that nothing needs
            module = torch.export.load(path).module()
        return lambda arguments: _outputs_of(module, arguments)
    session = importlib.import_module("onnxruntime").InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    )
    outputs = [output.name for output in session.get_outputs()]

    def run(arguments: Arguments) -> Named:
        given = {name: tensor.numpy() for name, tensor in flat(arguments).items()}
        found = session.run(outputs, given)
        return {
            name: torch.from_numpy(np.asarray(array))
            for name, array in zip(outputs, found, strict=True)
        }

    return run


@torch.no_grad()
def _outputs_of(module: torch.nn.Module, arguments: Arguments) -> Named:
    outputs: Named = module(*arguments.values())
    return outputs


def _difference(path: Path, found: Named, expected: Named) -> float:
    """Return the largest difference, of an output by its largest value (at least 1).

    Raises:
        ValueError: other names or shapes, or numbers that are not finite; names file and output.
    """
    if found.keys() != expected.keys():
        raise ValueError(f"{path} gives {sorted(found)}, the network {sorted(expected)}")
    for name, tensor in expected.items():
        # Subtraction would broadcast other shapes, and max() passes over NaN.
        if found[name].shape != tensor.shape:
            shapes = f"{tuple(found[name].shape)}, the network's {tuple(tensor.shape)}"
            raise ValueError(f"{path}: output {name} is {shapes}: do not use it")
        for numbers, whose in ((tensor, "the network's"), (found[name], "its")):
            if not numbers.isfinite().all():
                raise ValueError(f"{path}: {whose} output {name} is not finite: do not use it")
    return max(
        float((found[name] - tensor).abs().max() / tensor.abs().max().clamp(min=1))
        for name, tensor in expected.items()
    )
