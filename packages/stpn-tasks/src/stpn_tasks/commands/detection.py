"""Train, evaluate and predict: video object detection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional
from tyro.extras import SubcommandApp

from stpn_tasks.commands.choices import Precision, Split
from stpn_tasks.commands.per_recipe import per_recipe
from stpn_tasks.recipes import (
    CHECKPOINT_EVERY,
    DETECTION_RECIPES,
    DetectionRecipe,
    SupportOptions,
)

if TYPE_CHECKING:
    from stpn_tasks.detection.evaluation import DetectionEvaluation


def eval_detection(
    weights: Path,
    data: tuple[str, ...],
    split: Split = "val",
    baseline: Path | None = None,
    images: Path | None = None,
    output: Path | None = None,
    num_videos: int | None = None,
    batch_size: int = 1,
    frames_per_pass: int = 1,
    motion_table: Path | None = None,
    device: str | None = None,
    support: SupportOptions = SupportOptions(),  # noqa: B008
) -> None:
    """Evaluate a detector by the protocols of COCO and of ImageNet VID.

    COCO AP is of all frames and of the frames of each condition; AP50 of ImageNet VID is of all
    objects and of slow, medium and fast ones, where objects have tracks.

    Args:
        weights: a model.safetensors that ``stpn train detection`` or ``stpn demo`` wrote.
        data: "generated"; the folder with ImageNet VID's tree; a .json in COCO's form; or a folder
            of your own videos with objects.csv. Several of the same classes are joined.
        split: which part of the data; a .json, or a folder with one objects.csv, is one part
            already.
        baseline: weights to compare with, on the same frames.
        images: where the file names of a .json begin, or the folder with ImageNet's tree; looked
            for near it if not given.
        output: folder for results.json and report.html: tables, curves, frames with boxes.
        num_videos: how many generated clips.
        batch_size: videos of one size and length to run side by side.
        frames_per_pass: frames of each video that pass the network together.
        motion_table: vid_groundtruth_motion_iou.mat of FGFA, for the whole validation set of
            ImageNet VID; the same is computed from the tracks if not given.
        device: "cpu" or "cuda"; chosen if not given.
        support: other support frames than the recipe's.
    """
    from stpn_tasks.detection.data import data_title, open_videos
    from stpn_tasks.engine import main_process_first, make_accelerator
    from stpn_tasks.evaluate import COCO_PROTOCOL, evaluate_files, vid_protocol
    from stpn_tasks.tables import precision_table, print_table, vid_table

    accelerator = make_accelerator(device)
    with main_process_first(accelerator):
        videos = open_videos(data, split, image_root=images, num_videos=num_videos)
    title = data_title(data, split)

    def tell(evaluations: Mapping[str, DetectionEvaluation]) -> None:
        models = {name: evaluation.precision for name, evaluation in evaluations.items()}
        splits = list(next(iter(models.values())))
        print(f"{COCO_PROTOCOL}; {title}:")
        print_table(precision_table(models, splits))
        by_motion = {name: evaluation.vid for name, evaluation in evaluations.items()}
        print(f"{vid_protocol(motion_table)}; {title}:")
        print_table(vid_table(by_motion))
        _print_report(videos)

    evaluate_files(
        [weights] if baseline is None else [baseline, weights],
        videos,
        accelerator=accelerator,
        support=support,
        batch_size=batch_size,
        frames_per_pass=frames_per_pass,
        motion_table=motion_table,
        output=output,
        title=f"Detection on {title}",
        tell=tell,
    )
    if output is not None and accelerator.is_main_process:
        print(f"numbers: {output / 'results.json'}  report: {output / 'report.html'}")


def predict_detection(
    video: Positional[Path],
    weights: Path,
    output: Path = Path("predictions"),
    threshold: float = 0.3,
    fps: float = 25.0,
    frames_per_pass: int = 1,
    device: str | None = None,
    support: SupportOptions = SupportOptions(),  # noqa: B008
) -> None:
    """Detect objects in a video and write it with boxes, and a json of all boxes.

    The video is streamed: only the frames that wait for their support frames are in memory. With
    support frames of the whole video ("uniform") it is read three times.

    Args:
        video: a video file, or a folder of frames.
        weights: a model.safetensors that ``stpn train detection`` or ``stpn demo`` wrote.
        output: folder for NAME.mp4 and NAME.json.
        threshold: boxes with a lower score are not drawn.
        fps: frames per second, where the video does not say.
        frames_per_pass: frames that pass the network together.
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
        build_inference(saved, accelerator, support, frames_per_pass),
        VideoReader(video),
        saved.classes,
        output,
        threshold=threshold,
        fps=fps,
    )
    print(f"{prediction.num_frames} frames: {prediction.video} {prediction.boxes}")
    if prediction.failure is not None:
        raise prediction.failure


def train_detection_app() -> SubcommandApp:
    """Return one training command per recipe."""
    return per_recipe(DETECTION_RECIPES, _train_command)


def _train_command(default: DetectionRecipe) -> Callable[..., None]:
    """Return the command that trains a recipe, whose every value can be overridden."""

    def train_detection(
        data: tuple[str, ...],
        recipe: Annotated[DetectionRecipe, tyro.conf.arg(name="")] = default,
        split: Split = "train",
        images: Path | None = None,
        output: Path = Path("runs/detection"),
        num_videos: int | None = None,
        skip_empty: bool = False,
        num_workers: int = 2,
        checkpoint_every: int = CHECKPOINT_EVERY,
        accumulate: int = 1,
        mixed_precision: Precision = "no",
        device: str | None = None,
    ) -> None:
        """Train.

        Args:
            data: "generated"; the folder with ImageNet VID's tree, its Data/DET for the images of
                DET; a .json in COCO's form; or a folder of your own videos with objects.csv.
                Several of the same classes are joined: ILSVRC ILSVRC/Data/DET is what the paper
                trains on.
            recipe: what to train and how.
            split: which part of the data; a .json, or a folder with one objects.csv, is one part
                already.
            images: where the file names of a .json begin, or the folder with ImageNet's tree;
                looked for near it if not given.
            output: folder for weights, losses and checkpoints; a run stopped there goes on.
            num_videos: how many generated clips.
            skip_empty: leave out frames without objects and smaller ones than 32 pixels, as the
                released code does; they are background otherwise.
            num_workers: processes that load clips.
            checkpoint_every: steps from one checkpoint to the next.
            accumulate: micro-batches that a process makes of its clips of a step, to save memory.
            mixed_precision: arithmetic of the network.
            device: "cpu" or "cuda"; chosen if not given.
        """
        from stpn_tasks.detection.data import count_left_out, open_videos
        from stpn_tasks.detection.run import train_detector
        from stpn_tasks.engine import main_process_first, make_accelerator

        accelerator = make_accelerator(device, mixed_precision)
        with main_process_first(accelerator):
            videos = open_videos(
                data, split, image_root=images, num_videos=num_videos, skip_empty=skip_empty
            )
        count_left_out(videos)
        if accelerator.is_main_process:
            _print_report(videos)
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
            print(f"weights: {weights}")

    return train_detection


def _print_report(videos: object) -> None:
    """Say what a data set left out."""
    report = getattr(videos, "report", None)
    if report is not None:  # generated video has none
        print(report)
