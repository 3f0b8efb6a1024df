"""Look at why detectors work: maps of their features, clusters of objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.table import Table

from stpn_tasks.commands.choices import Split
from stpn_tasks.recipes import SupportOptions

if TYPE_CHECKING:
    from stpn_data.videos import VideoDataset


@dataclass(frozen=True)
class AnalysisOptions:
    """What an analysis looks at.

    Attributes:
        weights: a model.safetensors that ``stpn train detection`` or ``stpn demo`` wrote.
        data: "generated"; the folder with ImageNet VID's tree; a .json in COCO's form; or a folder
            of your own videos with objects.csv. Several of the same classes are joined.
        split: which part of the data; a .json is one part already.
        baseline: weights to show beside the others, on the same frames.
        images: where the file names of a .json begin, or the folder with ImageNet's tree; looked
            for near it if not given.
        output: folder for pictures and numbers; where ``stpn eval detection`` wrote its results,
            they join report.html.
        num_videos: how many generated clips.
        device: "cpu" or "cuda"; chosen if not given.
        support: other support frames than the recipe's.
    """

    weights: Path
    data: tuple[str, ...]
    split: Split = "val"
    baseline: Path | None = None
    images: Path | None = None
    output: Path = Path("evaluation")
    num_videos: int | None = None
    device: str | None = None
    support: SupportOptions = SupportOptions()

    @property
    def files(self) -> list[Path]:
        """The weights, the baseline's first."""
        return [self.weights] if self.baseline is None else [self.baseline, self.weights]

    def open_videos(self) -> VideoDataset:
        """Open the data."""
        from stpn_tasks.detection.data import open_videos

        return open_videos(
            self.data, self.split, image_root=self.images, num_videos=self.num_videos
        )


def cam(
    options: Annotated[AnalysisOptions, tyro.conf.arg(name="")],
    target: Literal["score", "iou"] | None = None,
    num_frames: int = 64,
) -> None:
    """Show where a detector's features have contrast, by EigenCAM.

    Writes analysis-cam.json and cam/*.png: strips of consecutive frames, chosen by their conditions
    without looking at any model; and how much of the maps lies in annotated boxes.

    Args:
        options: detectors, data and folder.
        target: weigh the features by the gradient of what the maps shall explain: the detections'
            "score", or their "iou" with the annotated boxes. Plain EigenCAM if not given.
        num_frames: key frames, spread evenly over the data, that the numbers are of.
    """
    from stpn_tasks.analysis.command import analyse_cam
    from stpn_tasks.engine import make_accelerator

    table = analyse_cam(
        options.files,
        options.open_videos(),
        accelerator=make_accelerator(options.device),
        support=options.support,
        target=target,
        num_frames=num_frames,
        output=options.output,
    )
    _tell("Share of the maps in annotated boxes, and of the boxes in the frame, in percent:", table)
    name = "cam" if target is None else f"cam-{target}"
    _tell_files(options.output, f"analysis-{name}.json", f"{name}/")


def tsne(
    options: Annotated[AnalysisOptions, tyro.conf.arg(name="")],
    num_frames: int = 512,
    seed: int = 0,
) -> None:
    """Show how the objects of each class cluster in a detector's features, by t-SNE.

    Objects are pooled by RoIAlign over the annotated boxes and shown by motion group. Writes
    analysis-tsne.json and tsne.png; and measures the clusters before any projection.

    Args:
        options: detectors, data and folder.
        num_frames: key frames, spread evenly over the data, whose objects are shown.
        seed: of the projection.
    """
    from stpn_tasks.analysis.command import analyse_tsne
    from stpn_tasks.engine import make_accelerator

    table = analyse_tsne(
        options.files,
        options.open_videos(),
        accelerator=make_accelerator(options.device),
        support=options.support,
        num_frames=num_frames,
        seed=seed,
        output=options.output,
    )
    _tell("How well classes cluster in the features; 5-NN over other videos, in percent:", table)
    _tell_files(options.output, "analysis-tsne.json", "tsne.png")


def _tell(what: str, table: Table) -> None:
    from stpn_tasks.tables import print_table

    print(what)
    print_table(table)


def _tell_files(output: Path, numbers: str, pictures: str) -> None:
    from stpn_tasks.analysis.command import join_report

    report = join_report(output)
    joined = "" if report is None else f"  report: {report}"
    print(f"numbers: {output / numbers}  pictures: {output / pictures}{joined}")
