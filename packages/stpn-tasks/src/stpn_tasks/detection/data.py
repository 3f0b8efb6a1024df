"""Data sets, clips and batches by what a recipe and a command line say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from stpn_data.batch import ClipBatch, collate
from stpn_data.clips import Clip, ClipDataset, Transform
from stpn_data.deteriorated import DeterioratedVideo
from stpn_data.imagenet_vid import ImageNetVID
from stpn_data.transforms import (
    Compose,
    RandomHorizontalFlip,
    ResizeShortestEdge,
    SanitizeBoxes,
    paper_training_transforms,
)
from stpn_data.videos import VideoDataset
from stpn_tasks.detection.build import build_train_sampler
from stpn_tasks.recipes import DetectionRecipe, ImageRecipe

Split = Literal["train", "val", "test"]
GENERATED = "generated"
# Clips rendered where nothing else is asked for.
GENERATED_VIDEOS = {"train": 1500, "val": 64, "test": 64}


def open_videos(
    data: str,
    split: Split,
    *,
    image_root: Path | None = None,
    num_videos: int | None = None,
    seed: int = 0,
) -> VideoDataset:
    """Open annotated videos.

    Args:
        data: "generated" for rendered video; a CocoVID ``.json``; or a folder with the tree of
            ImageNet VID.
        split: which part; a json is one part already.
        image_root: where a json's file names begin; the folder ``Data/VID`` beside it or above
            it if not given.
        num_videos: generated clips.
        seed: of generated clips.

    Raises:
        ValueError: if ``data`` is none of these.
    """
    if data == GENERATED:
        number = GENERATED_VIDEOS[split] if num_videos is None else num_videos
        return DeterioratedVideo(split=split, num_videos=number, seed=seed)
    if num_videos is not None:
        raise ValueError(f"num_videos is for generated video, not for {data}")
    path = Path(data)
    if path.suffix == ".json":
        return ImageNetVID.from_coco(path, image_root or _image_root(path))
    if path.is_dir():
        return ImageNetVID.from_folders(path, split)
    raise ValueError(f"{data} is neither {GENERATED!r}, a CocoVID .json, nor a folder")


def _image_root(annotations: Path) -> Path:
    """Find the images of a json in the usual places: ``annotations/`` lies beside ``ILSVRC/``."""
    above = annotations.resolve().parent.parent
    for folder in (above / "ILSVRC", above / "ILSVRC2015", above):
        if (folder / "Data" / "VID").is_dir():
            return folder / "Data" / "VID"
    raise ValueError(f"no folder Data/VID near {annotations}: name the images with --images")


def build_clips(recipe: DetectionRecipe, videos: VideoDataset) -> ClipDataset:
    """Return the training clips of a recipe."""
    sampler = build_train_sampler(recipe)
    augmentation, whose = _augmentation(recipe.images), recipe.prompts.support_video
    return ClipDataset(videos, sampler, augmentation, recipe.seed, whose)


def build_collate(recipe: DetectionRecipe) -> Callable[[Sequence[Clip]], ClipBatch]:
    """Return what makes a batch of a recipe's clips."""
    return partial(collate, size_divisor=recipe.images.size_divisor)


def _augmentation(images: ImageRecipe) -> Transform:
    if images.augmentation == "paper":
        return paper_training_transforms()
    resize = ResizeShortestEdge((images.test_size,), images.max_size)
    return Compose((RandomHorizontalFlip(), resize, SanitizeBoxes()))
