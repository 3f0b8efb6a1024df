"""Data sets with masks, clips and batches by what a recipe and a command line say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from stpn_data.batch import ClipBatch, collate
from stpn_data.clips import Clip, ClipDataset, Transform
from stpn_data.coco_fields import load_json
from stpn_data.deteriorated import DeterioratedSegmentation, SegmentationOptions
from stpn_data.mask_folder import MASKS, is_mask_folder, open_mask_folder
from stpn_data.transforms import (
    Compose,
    RandomHorizontalFlip,
    ResizeShortestEdge,
    SanitizeBoxes,
    segmentation_training_transforms,
)
from stpn_data.videos import VideoDataset
from stpn_data.youtube_vis import FRAMES, YouTubeVIS, is_youtube_vis
from stpn_data.youtube_vis_json import to_youtube_vis
from stpn_tasks.recipes import ImageRecipe
from stpn_tasks.segmentation.build import build_train_sampler
from stpn_tasks.segmentation.recipes import SegmentationRecipe
from stpn_tasks.segmentation.truth_file import YtvisTruth, parse_truth, read_truth

Split = Literal["train", "val", "test"]
# What generated video there is, and clips rendered where nothing else is asked for.
GENERATED: Mapping[str, SegmentationOptions] = {
    "generated": SegmentationOptions(),
    "generated-large": SegmentationOptions(
        size=(192, 192), num_frames=20, object_size=(40.0, 72.0), speed=(0.2, 6.0), min_area=120
    ),
}
GENERATED_VIDEOS = {"train": 1400, "val": 80, "test": 80}


def open_videos(
    data: str,
    split: Split,
    *,
    image_root: Path | None = None,
    num_videos: int | None = None,
    seed: int = 0,
) -> VideoDataset:
    """Open videos with masks.

    Args:
        data: "generated" or "generated-large" for rendered video; a ``.json`` of YouTube-VIS; or a
            folder with ``JPEGImages`` and ``Annotations``, masks of the objects' numbers, or with
            one for each split.
        split: which part; a json is one part already.
        image_root: folder in which the file names of a json begin; looked for near it if not given.
        num_videos: generated clips.
        seed: of generated clips.

    Raises:
        ValueError: if ``data`` is none of these, or cannot be read, or an option is not for it.
    """
    if image_root is not None and (data in GENERATED or Path(data).suffix != ".json"):
        raise ValueError(f"images is for a .json of YouTube-VIS, not for {data}")
    if data in GENERATED:
        number = GENERATED_VIDEOS[split] if num_videos is None else num_videos
        return DeterioratedSegmentation(
            split=split, num_videos=number, options=GENERATED[data], seed=seed
        )
    if num_videos is not None:
        raise ValueError(f"num_videos is for generated video, not for {data}")
    path = Path(data)
    if path.suffix == ".json":
        content = load_json(path)
        if not is_youtube_vis(content):
            raise ValueError(f"{path} is no YouTube-VIS json: its 'videos' name no frames")
        return YouTubeVIS(path, image_root, content)
    for folder in (path, path / split):
        if is_mask_folder(folder):
            return open_mask_folder(folder)
    names = " nor ".join(map(repr, GENERATED))
    raise ValueError(
        f"{data} is neither {names}, a .json of YouTube-VIS, nor a folder with {FRAMES} and "
        f"{MASKS}, itself or in {split}/"
    )


def part_of(data: str, split: Split) -> Split | None:
    """Return which part of ``data`` `open_videos` opens; ``None`` if it is one whatever the split.

    Args:
        data: what it opens.
        split: the part asked for.
    """
    if data not in GENERATED and (Path(data).suffix == ".json" or is_mask_folder(Path(data))):
        return None
    return split


def check_annotated(videos: VideoDataset, data: str, purpose: str) -> None:
    """Check that a data set has objects, of which crowds are none.

    Args:
        videos: the data set.
        data: what `open_videos` opened, for the message.
        purpose: what they are needed for, for the message.

    Raises:
        ValueError: its annotations are withheld, or tell of no object.
        DataError: an annotation before the first object cannot be used.
    """
    if isinstance(videos, YouTubeVIS) and not videos.has_annotations:
        raise ValueError(f"{data}: the json has no 'annotations', which {purpose} needs")
    if not _has_object(videos):
        raise ValueError(f"{data}: no object is annotated, which {purpose} needs")


def _has_object(videos: VideoDataset) -> bool:
    """Tell whether a key frame has an object; the first one found ends the search."""
    return any(
        not videos.objects(number, t).is_crowd.all()
        for number, video in enumerate(videos.videos)
        for t in video.key_frames
    )


def open_truth(data: str, videos: VideoDataset) -> YtvisTruth:
    """Return the objects of the videos that `open_videos` opened.

    Raises:
        DataError: an annotation cannot be used.
    """
    if isinstance(videos, YouTubeVIS):
        return read_truth(Path(data))
    return parse_truth(to_youtube_vis(videos), data)


def build_clips(recipe: SegmentationRecipe, videos: VideoDataset) -> ClipDataset:
    """Return the training clips of a recipe."""
    sampler = build_train_sampler(recipe)
    augmentation, whose = _augmentation(recipe.images), recipe.prompts.support_video
    return ClipDataset(videos, sampler, augmentation, recipe.seed, whose)


def build_collate(recipe: SegmentationRecipe) -> Callable[[Sequence[Clip]], ClipBatch]:
    """Return what makes a batch of a recipe's clips."""
    return partial(collate, size_divisor=recipe.images.size_divisor, with_masks=True)


def _augmentation(images: ImageRecipe) -> Transform:
    if images.augmentation == "paper":
        return segmentation_training_transforms()
    resize = ResizeShortestEdge((images.test_size,), images.max_size)
    return Compose((RandomHorizontalFlip(), resize, SanitizeBoxes()))
