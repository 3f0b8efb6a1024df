"""The command ``stpn``: every subcommand is a thin call of the library.

The library is imported inside the subcommands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import AvoidSubcommands, Positional
from tyro.extras import SubcommandApp

from stpn_tasks.comparison.options import ComparisonOptions
from stpn_tasks.recipes import (
    CHECKPOINT_EVERY,
    DETECTION_RECIPES,
    DetectionRecipe,
    SupportOptions,
)
from stpn_tasks.termination import EXIT_CODE, Terminated

Split = Literal["train", "val", "test"]
Precision = Literal["no", "bf16", "fp16"]


Factor = Literal["stride", "num-support", "num-prompts", "predictor", "depth", "clips"]


def demo(options: Annotated[ComparisonOptions, tyro.conf.arg(name="")]) -> None:
    """Show what prompts from neighbouring frames do for deteriorated video, with all controls.

    Renders video, trains a single-frame detector, fine-tunes it as it is, for as long as STPN
    takes, with STPN, with support frames of another video and with static prompts; tests all on
    unseen clips, prints tables, and writes results.json and report.html. Nothing is downloaded.
    """
    from stpn_tasks.demo import run_demo

    run_demo(options)


def sweep(
    factors: Positional[tuple[Factor, ...]] = (),
    options: Annotated[ComparisonOptions, tyro.conf.arg(name="")] = ComparisonOptions(  # noqa: B008
        output=Path("sweep-output")
    ),
) -> None:
    """Vary one factor of the small recipe after the other: tables and plots.

    A sweep that stopped goes on when the same command is given again; with the demo's output
    folder it begins from the demo's detectors. Writes sweep.md, and a json and a plot of each
    factor.

    Args:
        factors: what to vary; everything if none is named.
        options: sizes, seeds and folder.
    """
    from stpn_tasks.comparison.factors import FACTORS
    from stpn_tasks.sweep import run_sweep

    print(f"tables and plots: {run_sweep(options, factors or tuple(FACTORS))}")


def eval_detection(
    weights: Path,
    data: str,
    split: Split = "val",
    baseline: Path | None = None,
    images: Path | None = None,
    output: Path | None = None,
    num_videos: int | None = None,
    batch_size: int = 1,
    motion_table: Path | None = None,
    device: str | None = None,
    support: SupportOptions = SupportOptions(),  # noqa: B008
) -> None:
    """Evaluate a detector by the protocols of COCO and of ImageNet VID.

    COCO AP is of all frames and of the frames of each condition; AP50 of ImageNet VID is of all
    objects and of slow, medium and fast ones, where objects have tracks.

    Args:
        weights: a model.safetensors that ``stpn train detection`` or ``stpn demo`` wrote.
        data: "generated", a CocoVID .json, or the folder with ImageNet VID's tree.
        split: which part of the data; a .json is one part already.
        baseline: weights to compare with, on the same frames.
        images: where the file names of a .json begin.
        output: folder for results.json and report.html: tables, curves, frames with boxes.
        num_videos: how many generated clips.
        batch_size: videos of one size and length to run side by side.
        motion_table: vid_groundtruth_motion_iou.mat of FGFA, for the whole validation set of
            ImageNet VID; the same is computed from the tracks if not given.
        device: "cpu" or "cuda"; chosen if not given.
        support: other support frames than the recipe's.
    """
    from stpn_tasks.detection.data import open_videos
    from stpn_tasks.engine import main_process_first, make_accelerator
    from stpn_tasks.evaluate import COCO_PROTOCOL, evaluate_files, vid_protocol
    from stpn_tasks.tables import precision_table, print_table, vid_table

    accelerator = make_accelerator(device)
    with main_process_first(accelerator):
        videos = open_videos(data, split, image_root=images, num_videos=num_videos)
    files = [weights] if baseline is None else [baseline, weights]
    evaluations = evaluate_files(
        files,
        videos,
        accelerator=accelerator,
        support=support,
        batch_size=batch_size,
        motion_table=motion_table,
        output=output,
        title=f"Detection on {data} ({split})",
    )
    if not accelerator.is_main_process:
        return
    models = {name: evaluation.precision for name, evaluation in evaluations.items()}
    splits = list(next(iter(models.values())))
    print(f"{COCO_PROTOCOL}; {data} ({split}):")
    print_table(precision_table(models, splits))
    by_motion = {name: evaluation.vid for name, evaluation in evaluations.items()}
    print(f"{vid_protocol(motion_table)}; {data} ({split}):")
    print_table(vid_table(by_motion))
    _print_report(videos)
    if output is not None:
        print(f"numbers: {output / 'results.json'}  report: {output / 'report.html'}")


def report(
    results: Positional[tuple[Path, ...]],
    output: Path = Path("report.html"),
) -> None:
    """Write one report of several results, say of several seeds: tables, curves, pictures.

    Args:
        results: results.json files, or folders that hold one, of ``stpn demo`` or ``stpn eval``.
        output: the page to write; it needs no other file.
    """
    from stpn_tasks.report.command import report_folders

    print(f"report: {report_folders(results, output)}")


def predict_detection(
    video: Positional[Path],
    weights: Path,
    output: Path = Path("predictions"),
    threshold: float = 0.3,
    fps: float = 25.0,
    device: str | None = None,
    support: SupportOptions = SupportOptions(),  # noqa: B008
) -> None:
    """Detect objects in a video and write it with boxes, and a json of all boxes.

    The video is streamed: only the frames that wait for their support frames are in memory.

    Args:
        video: a video file, or a folder of frames.
        weights: a model.safetensors that ``stpn train detection`` or ``stpn demo`` wrote.
        output: folder for NAME.mp4 and NAME.json.
        threshold: boxes with a lower score are not drawn.
        fps: frames per second, where the video does not say.
        device: "cpu" or "cuda"; chosen if not given.
        support: other support frames than the recipe's.
    """
    from stpn_data.video import VideoReader
    from stpn_tasks.detection.checkpoint import load_detector
    from stpn_tasks.detection.predict import predict_video
    from stpn_tasks.detection.run import build_inference
    from stpn_tasks.engine import make_accelerator

    accelerator = make_accelerator(device)
    saved = load_detector(weights)
    prediction = predict_video(
        build_inference(saved, accelerator, support),
        VideoReader(video),
        saved.classes,
        output,
        threshold=threshold,
        fps=fps,
    )
    print(f"{prediction.num_frames} frames: {prediction.video} {prediction.boxes}")
    if prediction.failure is not None:
        raise prediction.failure


def check_data(root: Positional[Path], images: Path | None = None) -> None:
    """Check a data set: find its format, count what it holds, name every problem with its file.

    Reads every list and annotation and decodes every image; ends with 1 if there are problems.

    Args:
        root: the folder with ImageNet's tree, of VID and DET, or with CocoVID files in itself or
            in annotations/; or a CocoVID .json.
        images: where the file names of a .json begin; looked for if not given.
    """
    import stpn_data
    from stpn_tasks.data_check import problem_lines, subset_table
    from stpn_tasks.tables import print_table

    check = stpn_data.check_data(root, images, progress=True)
    for line in problem_lines(check):
        print(line)
    print_table(subset_table(check))
    total = check.problems.counts.total()
    print(f"problems: {total}" if total else "no problems")
    if total:
        raise SystemExit(1)


def convert_data(root: Positional[Path], output: Positional[Path], split: Split = "train") -> None:
    """Write a split of ImageNet VID's folders as one CocoVID json, as mmtracking does.

    Args:
        root: the folder with ImageNet VID's tree.
        output: the json to write; beside the tree, in annotations/, its images are found.
        split: which part of the data.
    """
    import json

    from stpn_data import DataReport, vid_folders_to_coco
    from stpn_tasks.files import write_text

    left_out = DataReport()
    data = vid_folders_to_coco(root, split, left_out, progress=True)
    write_text(output, json.dumps(data))
    print(left_out)
    print(f"{len(data['videos'])} videos, {len(data['images'])} frames: {output}")


def recipes() -> None:
    """List the recipes: what each is, its command, and what it gave."""
    for name, recipe in DETECTION_RECIPES.items():
        print(f"{name}\n{textwrap.indent(inspect.cleandoc(recipe.__doc__ or ''), '    ')}\n")


def info(
    recipe: Positional[Literal[tuple(DETECTION_RECIPES)]],  # type: ignore[valid-type]
    height: int = 600,
    width: int = 1000,
    num_classes: int = 30,
    device: str | None = None,
    runs: int = 3,
) -> None:
    """Tell parameters, operations and frames per second of a recipe, with random weights.

    Args:
        recipe: name of the recipe.
        height: of the frames, in pixels.
        width: of the frames, in pixels.
        num_classes: classes of the detector.
        device: "cpu" or "cuda"; chosen if not given.
        runs: timed passes; the median counts.
    """
    from stpn_tasks.analysis.cost import cost_table, measure_cost
    from stpn_tasks.engine import make_accelerator
    from stpn_tasks.tables import print_table

    cost = measure_cost(
        DETECTION_RECIPES[recipe](),
        num_classes,
        (height, width),
        device=make_accelerator(device).device,
        runs=runs,
    )
    print_table(cost_table(recipe, cost))


def _train_command(default: DetectionRecipe) -> Callable[..., None]:
    """Return the command that trains a recipe, whose every value can be overridden."""

    def train_detection(
        data: str,
        recipe: Annotated[DetectionRecipe, tyro.conf.arg(name="")] = default,
        split: Split = "train",
        images: Path | None = None,
        output: Path = Path("runs/detection"),
        num_videos: int | None = None,
        num_workers: int = 2,
        checkpoint_every: int = CHECKPOINT_EVERY,
        accumulate: int = 1,
        mixed_precision: Precision = "no",
        device: str | None = None,
    ) -> None:
        """Train.

        Args:
            data: "generated", a CocoVID .json, or the folder with ImageNet VID's tree.
            recipe: what to train and how.
            split: which part of the data; a .json is one part already.
            images: where the file names of a .json begin.
            output: folder for weights, losses and checkpoints; a run stopped there goes on.
            num_videos: how many generated clips.
            num_workers: processes that load clips.
            checkpoint_every: steps from one checkpoint to the next.
            accumulate: micro-batches that a process makes of its clips of a step, to save memory.
            mixed_precision: arithmetic of the network.
            device: "cpu" or "cuda"; chosen if not given.
        """
        from stpn_tasks.detection.data import open_videos
        from stpn_tasks.detection.run import train_detector
        from stpn_tasks.engine import main_process_first, make_accelerator

        accelerator = make_accelerator(device, mixed_precision)
        with main_process_first(accelerator):
            videos = open_videos(data, split, image_root=images, num_videos=num_videos)
        weights = train_detector(
            recipe,
            videos,
            output,
            accelerator=accelerator,
            num_workers=num_workers,
            checkpoint_every=checkpoint_every,
            accumulate=accumulate,
        )
        if accelerator.is_main_process:
            _print_report(videos)
            print(f"weights: {weights}")

    return train_detection


def _print_report(videos: object) -> None:
    """Say what a data set left out."""
    report = getattr(videos, "report", None)
    if report:
        print(report)


def _app() -> SubcommandApp:
    training, train_app, eval_app, predict_app, data_app = (SubcommandApp() for _ in range(5))
    for name, recipe in DETECTION_RECIPES.items():
        command = _train_command(recipe())
        arguments = inspect.cleandoc(command.__doc__ or "").partition("\n")[2]
        command.__doc__ = f"{inspect.cleandoc(recipe.__doc__ or '')}\n{arguments}"
        training.command(name=name)(command)
    train_app.command(training, name="detection", help="Train a video object detector.")
    eval_app.command(name="detection")(eval_detection)
    predict_app.command(name="detection")(predict_detection)
    data_app.command(name="check")(check_data)
    data_app.command(name="convert")(convert_data)
    app = SubcommandApp()
    app.command(demo)
    app.command(sweep)
    app.command(report)
    app.command(train_app, name="train", help="Train a recipe; every value can be overridden.")
    app.command(eval_app, name="eval", help="Evaluate weights on annotated video.")
    app.command(predict_app, name="predict", help="Run weights over a video of your own.")
    app.command(data_app, name="data", help="Check a data set before training on it; convert it.")
    app.command(recipes)
    app.command(info)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors of the user's input are one line, not a traceback."""
    try:
        _app().cli(
            prog="stpn",
            description="Robust video features by dynamic video prompts.",
            args=arguments,
            config=(AvoidSubcommands,),
        )
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"stpn: error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except Terminated as error:
        print(f"stpn: {error}", file=sys.stderr)
        raise SystemExit(EXIT_CODE) from error


if __name__ == "__main__":
    main()
