"""Data sets, clips and batches by what a recipe and a command line say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from stpn_data.batch import ClipBatch, collate
from stpn_data.clips import Clip, ClipDataset, Transform
from stpn_data.coco_videos import open_coco
from stpn_data.deteriorated import DeterioratedVideo
from stpn_data.imagenet_vid import ImageNetVID
from stpn_data.joint import JointVideos
from stpn_data.key_frames import KeyFramesWithObjects
from stpn_data.own_folder import SPLITS, TABLE, find_table, open_own_folder
from stpn_data.transforms import (
    Compose,
    RandomHorizontalFlip,
    ResizeShortestEdge,
    SanitizeBoxes,
    paper_training_transforms,
)
from stpn_data.vid_folders import find_tree
from stpn_data.videos import DataError, VideoDataset
from stpn_tasks.detection.build import build_train_sampler
from stpn_tasks.recipes import DetectionRecipe, ImageRecipe

Split = Literal["train", "val", "test"]
GENERATED = "generated"
# Clips rendered where nothing else is asked for.
GENERATED_VIDEOS = {"train": 1500, "val": 64, "test": 64}


def open_videos(
    data: str | Sequence[str],
    split: Split,
    *,
    image_root: Path | None = None,
    num_videos: int | None = None,
    seed: int = 0,
    skip_empty: bool = False,
) -> VideoDataset:
    """Open annotated videos; several data sets with the same classes become one.

    Args:
        data: each "generated" for rendered video; a ``.json`` in COCO's form; a folder with the
            tree of ImageNet VID, or its ``Data/DET`` for the still images of DET; or a folder
            with ``objects.csv``, or with one for each split.
        split: which part; a json, or a folder with one ``objects.csv``, is one part already.
        image_root: where the file names of a json begin, or the folder with ImageNet's tree;
            looked for near the json if not given.
        num_videos: generated clips.
        seed: of generated clips.
        skip_empty: leave out the key frames that the released code leaves out of training, those
            without objects and smaller ones than 32 pixels; they are background otherwise.

    Raises:
        ValueError: if ``data`` is none of these, or what it names cannot be read or joined.
    """
    names = [data] if isinstance(data, str) else list(data)
    if not names:
        raise ValueError("--data needs at least one value")
    if image_root is not None and not any(_is_json(name) for name in names):
        raise ValueError(f"images are named for a .json, not for {' and '.join(names)}")
    parts = [_open_one(name, split, image_root, num_videos, seed) for name in names]
    videos = parts[0] if len(parts) == 1 else JointVideos(parts)
    return KeyFramesWithObjects(videos) if skip_empty else videos


def _open_one(
    data: str, split: Split, image_root: Path | None, num_videos: int | None, seed: int
) -> VideoDataset:
    if data == GENERATED:
        number = GENERATED_VIDEOS[split] if num_videos is None else num_videos
        return DeterioratedVideo(split=split, num_videos=number, seed=seed)
    if num_videos is not None:
        raise ValueError(f"num_videos is for generated video, not for {data}")
    path = Path(data)
    if _is_json(data):
        return open_coco(path, image_root)
    if not path.is_dir():
        raise ValueError(f"{data} is neither {GENERATED!r}, a .json, nor a folder")
    if path.parts[-2:] == ("Data", "DET"):
        return ImageNetVID.from_det_folders(path.parent.parent, split)
    if (table := find_table(path, split)) is not None:
        return open_own_folder(table)
    if any(find_table(path, other) is not None for other in SPLITS):
        raise ValueError(f"{path / split / TABLE}: no such file")
    try:
        tree = find_tree(path, "VID")
    except DataError as error:
        raise ValueError(
            f"{error}, nor is there {TABLE} of your own videos, itself or in {split}/; a .json is "
            "named itself"
        ) from error
    return ImageNetVID.from_folders(tree, split)


def _is_json(data: str) -> bool:
    return Path(data).suffix == ".json"


def data_title(data: Sequence[str], split: Split) -> str:
    """Name data sets, each with its split unless it is one part, the same for every split."""
    return " + ".join(name if _is_one_part(name, split) else f"{name} ({split})" for name in data)


def _is_one_part(data: str, split: Split) -> bool:
    return _is_json(data) or find_table(Path(data), split) == Path(data) / TABLE


def count_left_out(videos: VideoDataset) -> None:
    """Read the objects of all key frames in this process, so that its report counts them.

    Those that workers read for training are counted in the workers. What is wrong with an
    annotation shows here, too, before training rather than during it.

    Raises:
        DataError: if a field of an annotation is missing or wrong.
    """
    # Generated video leaves nothing out; the other has read them all to choose among them.
    if not hasattr(videos, "report") or isinstance(videos, KeyFramesWithObjects):
        return
    for number, video in enumerate(videos.videos):
        for index in video.key_frames:
            videos.objects(number, index)


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
