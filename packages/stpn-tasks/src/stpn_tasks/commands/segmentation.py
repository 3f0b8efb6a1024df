"""Train, evaluate and predict: video instance segmentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional
from tyro.extras import SubcommandApp

from stpn_tasks.commands.choices import Precision, Split
from stpn_tasks.commands.per_recipe import per_recipe
from stpn_tasks.recipes import CHECKPOINT_EVERY, SupportOptions
from stpn_tasks.segmentation.association import AssociationOptions
from stpn_tasks.segmentation.recipes import SEGMENTATION_RECIPES, SegmentationRecipe


def eval_segmentation(
    weights: Path,
    data: str,
    split: Split = "val",
    images: Path | None = None,
    output: Path | None = None,
    num_videos: int | None = None,
    batch_size: int = 1,
    frames_per_pass: int = 1,
    headroom: bool = False,
    zip_test: bool = False,
    device: str | None = None,
    support: SupportOptions = SupportOptions(),  # noqa: B008
    association: AssociationOptions = AssociationOptions(),  # noqa: B008
) -> None:
    """Evaluate a segmenter by the protocol of YouTube-VIS: AP of masks over whole videos.

    Of generated video also frame by frame, all, deteriorated and clean ones, and on windows of
    four frames without a clean one, where no mean over frames can tell the class.

    Args:
        weights: a model.safetensors that ``stpn train segmentation`` wrote.
        data: "generated", "generated-large", a .json of YouTube-VIS, or a folder with JPEGImages
            and Annotations, masks of the objects' numbers.
        split: which part of the data; a .json is one part already.
        images: where the file names of a .json begin; looked for near it if not given.
        output: folder for results.json, the predictions, and evaluation.json, the numbers.
        num_videos: how many generated clips.
        batch_size: videos of one size and length to run side by side.
        frames_per_pass: frames of each video that pass the network together.
        headroom: also tell what association costs, by tracks as annotations would give them, and
            what classes cost, by scores without them.
        zip_test: pack the predictions for the server of YouTube-VIS, and evaluate nothing.
        device: "cpu" or "cuda"; chosen if not given.
        support: other support frames than the recipe's, or none.
        association: how objects are followed from frame to frame.
    """
    from stpn_tasks.engine import main_process_first, make_accelerator
    from stpn_tasks.segmentation.command import (
        evaluate_saved,
        evaluation_table,
        evaluation_title,
        zip_predictions,
    )
    from stpn_tasks.segmentation.data import open_videos
    from stpn_tasks.tables import print_table
    from stpn_tasks.weights_file import check_is_file

    if zip_test and output is None:
        raise ValueError("--zip-test needs --output, the folder for results.zip")
    if zip_test and headroom:
        raise ValueError("--headroom needs annotations, and --zip-test evaluates nothing")
    check_is_file(weights)
    accelerator = make_accelerator(device)
    with main_process_first(accelerator):
        videos = open_videos(data, split, image_root=images, num_videos=num_videos)
    if zip_test and output is not None:
        path = zip_predictions(
            weights,
            videos,
            output,
            accelerator=accelerator,
            support=support,
            association=association,
            batch_size=batch_size,
            frames_per_pass=frames_per_pass,
        )
        if accelerator.is_main_process:
            print(f"for the server: {path}")
        return
    evaluation = evaluate_saved(
        weights,
        data,
        videos,
        accelerator=accelerator,
        split=split,
        support=support,
        association=association,
        headroom=headroom,
        batch_size=batch_size,
        frames_per_pass=frames_per_pass,
        output=output,
    )
    if accelerator.is_main_process:
        print(f"{evaluation_title(data, split)}:")
        print_table(evaluation_table(evaluation))
        if output is not None:
            print(f"predictions: {output / 'results.json'}  numbers: {output / 'evaluation.json'}")


def predict_segmentation(
    video: Positional[Path],
    weights: Path,
    output: Path = Path("predictions"),
    threshold: float = 0.3,
    fps: float = 25.0,
    frames_per_pass: int = 1,
    device: str | None = None,
    support: SupportOptions = SupportOptions(),  # noqa: B008
    association: AssociationOptions = AssociationOptions(),  # noqa: B008
) -> None:
    """Segment objects in a video and write it with their masks, and a json of all tracks.

    The video is streamed: only the frames that wait for their support frames are in memory. With
    support frames of the whole video ("uniform") it is read three times. An object keeps its
    colour and its number. The json has a run-length encoded mask per track and frame.

    Args:
        video: a video file, or a folder of frames.
        weights: a model.safetensors that ``stpn train segmentation`` wrote.
        output: folder for NAME.mp4 and NAME.json.
        threshold: tracks with a lower score are not drawn, nor written.
        fps: frames per second, where the video does not say.
        frames_per_pass: frames that pass the network together.
        device: "cpu" or "cuda"; chosen if not given.
        support: other support frames than the recipe's, or none.
        association: how objects are followed from frame to frame.
    """
    from stpn_data.video import VideoReader
    from stpn_tasks.engine import make_accelerator
    from stpn_tasks.segmentation.build import check_support
    from stpn_tasks.segmentation.checkpoint import load_segmenter
    from stpn_tasks.segmentation.inference import build_inference
    from stpn_tasks.segmentation.predict import predict_video

    saved = load_segmenter(weights)
    check_support(saved.recipe, support)
    prediction = predict_video(
        build_inference(saved, make_accelerator(device).device, support, frames_per_pass),
        VideoReader(video),
        saved.classes,
        output,
        association=association,
        threshold=threshold,
        fps=fps,
    )
    print(f"{prediction.num_frames} frames: {prediction.video} {prediction.tracks}")
    if prediction.failure is not None:
        raise prediction.failure


def train_segmentation_app() -> SubcommandApp:
    """Return one training command per recipe."""
    return per_recipe(SEGMENTATION_RECIPES, _train_command)


def _train_command(default: SegmentationRecipe) -> Callable[..., None]:
    """Return the command that trains a recipe, whose every value can be overridden."""

    def train_segmentation(
        data: str,
        recipe: Annotated[SegmentationRecipe, tyro.conf.arg(name="")] = default,
        split: Split = "train",
        images: Path | None = None,
        output: Path = Path("runs/segmentation"),
        num_videos: int | None = None,
        num_workers: int = 2,
        checkpoint_every: int = CHECKPOINT_EVERY,
        accumulate: int = 1,
        mixed_precision: Precision = "no",
        device: str | None = None,
    ) -> None:
        """Train.

        Args:
            data: "generated", "generated-large", a .json of YouTube-VIS, or a folder with
                JPEGImages and Annotations, masks of the objects' numbers.
            recipe: what to train and how.
            split: which part of the data; a .json is one part already.
            images: where the file names of a .json begin; looked for near it if not given.
            output: folder for weights, losses and checkpoints; a run stopped there goes on.
            num_videos: how many generated clips.
            num_workers: processes that load clips.
            checkpoint_every: steps from one checkpoint to the next.
            accumulate: micro-batches that a process makes of its clips of a step, to save memory.
            mixed_precision: arithmetic of the network.
            device: "cpu" or "cuda"; chosen if not given.
        """
        from stpn_tasks.engine import main_process_first, make_accelerator
        from stpn_tasks.segmentation.data import check_annotated, open_videos
        from stpn_tasks.segmentation.training import train_segmenter

        accelerator = make_accelerator(device, mixed_precision)
        with main_process_first(accelerator):
            videos = open_videos(data, split, image_root=images, num_videos=num_videos)
        check_annotated(videos, data, "training")
        weights = train_segmenter(
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

    return train_segmentation
