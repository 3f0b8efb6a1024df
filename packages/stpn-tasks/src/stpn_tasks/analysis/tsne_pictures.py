"""What a report shows of t-SNE: a panel for each motion group of each model, and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float32
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stpn_tasks.analysis.cam import ALL_FRAMES
from stpn_tasks.analysis.object_features import SPEEDS, ObjectFeatures
from stpn_tasks.analysis.tsne import NUM_NEIGHBOURS, ClusterQuality
from stpn_tasks.draw import COLOURS
from stpn_tasks.files import atomic_path
from stpn_tasks.report.figures import LIGHT, RC, Look, panel
from stpn_tasks.report.page import (
    Column,
    Html,
    Section,
    element,
    figure,
    join,
    paragraph,
    table,
    text,
)

# Classes have the colours of their boxes; where these go round, another shape.
_SHAPES = {
    "o": "",  # a circle, which is no polygon
    "^": "7,1 13.5,12.5 0.5,12.5",
    "s": "2,2 12,2 12,12 2,12",
    "D": "7,0.5 13.5,7 7,13.5 0.5,7",
    "v": "0.5,1.5 13.5,1.5 7,13",
}
_HEIGHT = 3.3  # inches
_ABOUT = (
    "Features of annotated objects, pooled by RoIAlign from the maps that the detection head sees, "
    "mean over the region; a point is one object in one frame. t-SNE keeps neighbours together; "
    "distances between clusters, and directions, say nothing, nor do two models share a plane. A "
    "panel shows the objects of one motion group in colour and all others in grey."
)
_ABOUT_QUALITY = (
    "Measured on the features themselves, not on the picture. Silhouette, from −1 to 1: how much "
    "nearer an object is to those of its own class than to the nearest other class; 0 is no "
    f"structure. {NUM_NEIGHBOURS}-NN: of how many objects, in percent, the "
    f"{NUM_NEIGHBOURS} nearest ones in other videos name the class; beside it “commonest”, the "
    "share of the commonest class, which naming it always would give."
)


@dataclass(frozen=True)
class Plane:
    """The objects of one model, with their places in the plane."""

    objects: ObjectFeatures
    places: Float32[np.ndarray, "n 2"]

    def panels(self) -> dict[str, Bool[np.ndarray, " n"]]:
        """Return the objects of each panel: each motion group, or all where none is known."""
        groups = self.objects.groups()
        speeds = {name: groups[name] for name in SPEEDS if name in groups}
        return speeds or {ALL_FRAMES: groups[ALL_FRAMES]}


def tsne_section(
    planes: Mapping[str, Plane],
    qualities: Mapping[str, Mapping[str, ClusterQuality]],
    classes: Sequence[str],
) -> Section:
    """Return the section of a report.

    Args:
        planes: by model.
        qualities: by group, by model.
        classes: names of the classes.
    """
    labels = sorted({int(label) for plane in planes.values() for label in plane.objects.labels})
    parts = [_key([(label, classes[label]) for label in labels])]
    for model, plane in planes.items():
        panels = [
            panel(
                partial(_draw, plane, chosen, f"{name} objects ({chosen.sum():,})"),
                _HEIGHT,
                f"t-SNE of {model}, {name} objects in colour. {_said(qualities[model][name])}",
            )
            for name, chosen in plane.panels().items()
        ]
        if len(planes) > 1:
            parts.append(element("h3", text(model)))
        parts.append(element("div", *panels, class_="panels"))
    caption = text("Objects by t-SNE: a colour and a shape for each class.")
    return Section(
        "Features of objects (t-SNE)",
        (
            paragraph(text(_ABOUT)),
            figure(join(*parts), caption),
            _quality_table(qualities),
            paragraph(text(_ABOUT_QUALITY)),
        ),
    )


def save_picture(path: Path, planes: Mapping[str, Plane], classes: Sequence[str]) -> None:
    """Write all panels as one png: a row for each model, a column for each motion group."""
    columns = list(dict.fromkeys(name for plane in planes.values() for name in plane.panels()))
    size = (3 * len(columns), 3.1 * len(planes) + 0.4)
    style: dict[Any, Any] = {**RC, "figure.facecolor": "white"}
    with mpl.rc_context(style):
        whole = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(whole)
        grid = whole.subplots(len(planes), len(columns), squeeze=False)
        for row, (model, plane) in zip(grid, planes.items(), strict=True):
            for axes, (name, chosen) in zip(row, plane.panels().items(), strict=False):
                _draw(plane, chosen, f"{model}, {name} ({chosen.sum():,})", axes, LIGHT)
        labels = sorted({int(label) for plane in planes.values() for label in plane.objects.labels})
        handles = [
            Line2D([], [], linestyle="", color=colour, marker=shape, label=classes[label])
            for label in labels
            for colour, shape in [_style(label)]
        ]
        columns_of_key = min(len(handles), 3 * len(columns))
        whole.legend(handles=handles, loc="outside lower center", ncols=columns_of_key)
        with atomic_path(path) as partial_path:
            whole.savefig(partial_path, format="png")


def _draw(plane: Plane, chosen: Bool[np.ndarray, " n"], title: str, axes: Axes, look: Look) -> None:
    size = float(np.clip(3000 / len(chosen), 4, 22))  # square points: fewer may be larger
    rest = plane.places[~chosen]
    x, y = rest.T
    axes.scatter(x, y, s=size * 0.6, color=look.line, linewidths=0, rasterized=True)
    labels = plane.objects.labels
    for label in np.unique(labels[chosen]):
        colour, shape = _style(int(label))
        x, y = plane.places[chosen & (labels == label)].T
        drawn = axes.scatter(x, y, s=size, color=colour, marker=shape, rasterized=True)
        drawn.set(edgecolor=look.ink, linewidth=0.3)
    low, high = plane.places.min(axis=0), plane.places.max(axis=0)
    margin = 0.05 * (high - low).max()
    axes.set(xlim=(low[0] - margin, high[0] + margin), ylim=(low[1] - margin, high[1] + margin))
    axes.set(xticks=[], yticks=[])
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)
    axes.set_title(title, loc="left", fontsize=9.5, color=look.ink)


def _style(label: int) -> tuple[str, str]:
    """Return colour and shape of a class."""
    shapes = list(_SHAPES)
    red, green, blue = COLOURS[label % len(COLOURS)]
    return f"#{red:02x}{green:02x}{blue:02x}", shapes[label // len(COLOURS) % len(shapes)]


def _key(classes: Sequence[tuple[int, str]]) -> Html:
    """Return the legend: the shape of each class in its colour, and its name."""
    entries = []
    for label, name in classes:
        colour, shape = _style(label)
        corners = _SHAPES[shape]
        if corners:
            mark = element("polygon", points=corners, fill=colour)
        else:
            mark = element("circle", cx="7", cy="7", r="6", fill=colour)
        swatch = element("svg", mark, width="14", height="14", aria_hidden="true")
        entries.append(element("li", swatch, text(name)))
    return element("ul", *entries, class_="key")


def _quality_table(qualities: Mapping[str, Mapping[str, ClusterQuality]]) -> Html:
    parts = ("silhouette", f"{NUM_NEIGHBOURS}-NN", "commonest", "objects")
    rows = [
        (f"{model}, {group}" if len(qualities) > 1 else group, quality_cells(quality))
        for group in next(iter(qualities.values()))
        for model, by_group in qualities.items()
        for quality in [by_group[group]]
    ]
    return table("How well classes cluster.", "objects", [Column(part) for part in parts], rows)


def quality_cells(quality: ClusterQuality) -> list[str]:
    """Return silhouette, share by neighbours and of the commonest class, and number, as text."""
    silhouette = "–" if math.isnan(quality.silhouette) else f"{quality.silhouette:+.3f}"
    neighbours = "–" if math.isnan(quality.neighbours) else f"{100 * quality.neighbours:.1f}"
    return [
        silhouette.replace("-", "−"),
        neighbours,
        f"{100 * quality.commonest:.1f}",
        f"{quality.num_objects:,}",
    ]


def _said(quality: ClusterQuality) -> str:
    silhouette, neighbours, *_ = quality_cells(quality)
    return f"Silhouette {silhouette}, {NUM_NEIGHBOURS}-NN {neighbours} percent."
