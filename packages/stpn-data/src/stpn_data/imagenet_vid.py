"""The data set ImageNet VID: thirty classes of objects in videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpn_data.annotations import DataReport, frame_objects
from stpn_data.coco_vid import CocoVid
from stpn_data.images import read_image
from stpn_data.vid_folders import VidFolders
from stpn_data.videos import DataError, FrameObjects, Video

# Name by WordNet id, in the order of the labels.
IMAGENET_VID_CLASSES = {
    "n02691156": "airplane",
    "n02419796": "antelope",
    "n02131653": "bear",
    "n02834778": "bicycle",
    "n01503061": "bird",
    "n02924116": "bus",
    "n02958343": "car",
    "n02402425": "cattle",
    "n02084071": "dog",
    "n02121808": "domestic_cat",
    "n02503517": "elephant",
    "n02118333": "fox",
    "n02510455": "giant_panda",
    "n02342885": "hamster",
    "n02374451": "horse",
    "n02129165": "lion",
    "n01674464": "lizard",
    "n02484322": "monkey",
    "n03790512": "motorcycle",
    "n02324045": "rabbit",
    "n02509815": "red_panda",
    "n02411705": "sheep",
    "n01726692": "snake",
    "n02355227": "squirrel",
    "n02129604": "tiger",
    "n04468005": "train",
    "n01662784": "turtle",
    "n04530566": "watercraft",
    "n02062744": "whale",
    "n02391049": "zebra",
}


class ImageNetVID:
    """Read ImageNet VID from its folder tree or from a CocoVID json; both give the same.

    Use `from_folders` or `from_coco`. Boxes are (xmin, ymin, xmax, ymax) as in the XML files,
    neither clipped nor shifted. The key frames of a training video are the 15 (or fewer) of the
    FGFA list; those of a video without such a list are all its frames.

    Attributes:
        videos: all videos, in the order of the list.
        report: what was left out so far, counted. `check` completes it.
    """

    classes: tuple[str, ...] = tuple(IMAGENET_VID_CLASSES.values())

    def __init__(self, layout: VidFolders | CocoVid, report: DataReport) -> None:
        """Wrap an opened layout; called by `from_folders` and `from_coco`."""
        self._layout = layout
        self.report = report

    @classmethod
    def from_folders(cls, root: str | Path, split: str) -> ImageNetVID:
        """Open the original tree (`Data/VID`, `Annotations/VID`, `ImageSets/VID`, `Lists`).

        Args:
            root: the folder `ILSVRC` or `ILSVRC2015`, or the one that contains it.
            split: `train`, `val` or `test` (frames only).

        Raises:
            DataError: a missing folder, or a line or a field that cannot be read.
        """
        report = DataReport()
        labels = {wordnet_id: label for label, wordnet_id in enumerate(IMAGENET_VID_CLASSES)}
        return cls(VidFolders(root, split, labels, report), report)

    @classmethod
    def from_coco(cls, annotation_file: str | Path, image_root: str | Path) -> ImageNetVID:
        """Open a CocoVID file, such as `annotations/imagenet_vid_train.json`.

        The files of the DET images (without videos) work as well: every image is a video of one
        frame.

        Args:
            annotation_file: the json file.
            image_root: folder to which its file names are relative, such as `ILSVRC/Data/VID`.

        Raises:
            DataError: a missing file, a missing or wrong field, or an id that occurs twice.
        """
        report = DataReport()
        labels = {name: label for label, name in enumerate(cls.classes)}
        return cls(CocoVid(annotation_file, image_root, labels, report), report)

    @property
    def videos(self) -> Sequence[Video]:
        """All videos, in the order of the list."""
        return self._layout.videos

    def frame(self, video: int, index: int) -> NDArray[np.uint8]:
        """Read a frame as (H, W, 3) uint8 RGB.

        Raises:
            IndexError: the video has no such frame.
            DataError: the file is missing or damaged, or its size is not the annotated one.
        """
        self._check_index(video, index)
        path, size = self._layout.image_path(video, index), self._layout.image_size(video, index)
        pixels = read_image(path)
        if pixels.shape[:2] != size:
            raise DataError(
                f"{path}: the image is {pixels.shape[1]}x{pixels.shape[0]}, "
                f"its annotations are for {size[1]}x{size[0]}"
            )
        return pixels

    def objects(self, video: int, index: int) -> FrameObjects:
        """Return the usable objects of a frame; the others are counted in `report`.

        Raises:
            IndexError: the video has no such frame.
            DataError: there are no annotations, or a field is missing or wrong.
        """
        self._check_index(video, index)
        return frame_objects(
            self._layout.boxes(video, index),
            self._layout.image_size(video, index),
            f"{self.videos[video].name} frame {index}",
            self.report,
        )

    def conditions(self, video: int, index: int) -> frozenset[str]:
        """Name the conditions of a frame: none are annotated."""
        return frozenset()

    def check(self) -> DataReport:
        """Read the annotations of every frame, not the images, and return the full report.

        Raises:
            DataError: the first field that is missing or wrong.
        """
        for number, video in enumerate(self.videos):
            for index in range(video.num_frames):
                self.objects(number, index)
        return self.report

    def _check_index(self, video: int, index: int) -> None:
        if not 0 <= video < len(self.videos):
            raise IndexError(f"video {video} is not one of {len(self.videos)}")
        if not 0 <= index < self.videos[video].num_frames:
            raise IndexError(
                f"frame {index} is not in {self.videos[video].name} of "
                f"{self.videos[video].num_frames} frames"
            )
