"""The data set ImageNet VID: thirty classes of objects in videos."""

from __future__ import annotations

from pathlib import Path

from stpn_data.annotated_videos import AnnotatedVideos
from stpn_data.annotations import DataReport
from stpn_data.coco_fields import load_json
from stpn_data.coco_vid import CocoVid
from stpn_data.det_folders import DetFolders
from stpn_data.layout import Layout
from stpn_data.vid_folders import VidFolders

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
LABELS = {wordnet_id: label for label, wordnet_id in enumerate(IMAGENET_VID_CLASSES)}


class ImageNetVID(AnnotatedVideos):
    """Read ImageNet VID from its folder tree or from a CocoVID json; both give the same.

    Use `from_folders` or `from_coco`; `from_det_folders` reads the still images of ImageNet DET
    with which VID is trained together (`JointVideos`). Boxes are (xmin, ymin, xmax, ymax) as in
    the XML files, neither clipped nor shifted. The key frames of a training video are the 15 (or
    fewer) of the FGFA list, or without it 15 at equal distances, which the report counts; those of
    other splits are all frames.

    Attributes:
        videos: all videos, in the order of the list.
        report: what was left out so far, counted. `check` completes it.
    """

    classes: tuple[str, ...] = tuple(IMAGENET_VID_CLASSES.values())

    def __init__(self, layout: Layout, report: DataReport) -> None:
        """Wrap an opened layout; called by `from_folders` and the others."""
        super().__init__(layout, type(self).classes, report)

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
        return cls(VidFolders(root, split, LABELS, report), report)

    @classmethod
    def from_det_folders(cls, root: str | Path, split: str = "train") -> ImageNetVID:
        """Open the images of ImageNet DET (`Data/DET`, `Annotations/DET`) as one-frame videos.

        They are those of `Lists/DET_train_30classes.txt`; without it at most 2,000 of each of the
        thirty classes, see `DetFolders`. Objects of the other classes of DET are counted in
        `report` and left out.

        Args:
            root: the folder `ILSVRC` or `ILSVRC2015`, or the one that contains it.
            split: `train` or `val`.

        Raises:
            DataError: a missing folder, or a line or a field that cannot be read.
        """
        report = DataReport()
        return cls(DetFolders(root, split, LABELS, report), report)

    @classmethod
    def from_coco(cls, annotation_file: str | Path, image_root: str | Path) -> ImageNetVID:
        """Open a CocoVID file, such as `annotations/imagenet_vid_train.json`.

        The file of the DET images, `imagenet_det_30plus1cls.json`, works as well: every image is
        a video of one frame, and those that it does not mark for training are left out.

        Args:
            annotation_file: the json file.
            image_root: folder to which its file names are relative, such as `ILSVRC/Data/VID`.

        Raises:
            DataError: a missing file, a missing or wrong field, or an id that occurs twice.
        """
        report, path = DataReport(), Path(annotation_file)
        labels = {name: label for label, name in enumerate(cls.classes)}
        return cls(CocoVid(path, load_json(path), image_root, labels, report), report)
