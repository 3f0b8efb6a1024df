"""Videos with annotations: support-frame samplers, data sets, clips, batches, video files."""

from stpn_data.annotated_videos import AnnotatedVideos
from stpn_data.annotations import DataReport
from stpn_data.batch import BoxTargets, ClipBatch, collate, pad_images
from stpn_data.checks import DataCheck, check_data
from stpn_data.clips import Clip, ClipDataset, Transform
from stpn_data.coco_videos import open_coco
from stpn_data.convert import det_folders_to_coco, vid_folders_to_coco
from stpn_data.convert_coco import coco_to_folders
from stpn_data.deteriorated import (
    DeterioratedSegmentation,
    DeterioratedTracking,
    DeterioratedVideo,
    SegmentationOptions,
    TrackingOptions,
)
from stpn_data.got10k import GOT10k, GOT10kLabels
from stpn_data.imagenet_vid import ImageNetVID
from stpn_data.images import read_image
from stpn_data.joint import JointVideos
from stpn_data.key_frames import KeyFramesWithObjects
from stpn_data.mask_folder import open_mask_folder
from stpn_data.own_folder import open_own_folder
from stpn_data.own_sequences import OwnSequences
from stpn_data.sampling import (
    BilateralRandomSampler,
    CausalSampler,
    RandomSampler,
    SupportSampler,
    VideoUniformSampler,
    WindowSampler,
)
from stpn_data.sequences import TrackingDataset, TrackingSequence
from stpn_data.track_samples import TrackFrame, TrackSample, TrackSamples
from stpn_data.track_sampling import CausalTrackSampler, TridentTrackSampler
from stpn_data.transforms import (
    Compose,
    PadToLargest,
    RandomChoice,
    RandomCrop,
    RandomHorizontalFlip,
    ResizeShortestEdge,
    SanitizeBoxes,
    paper_test_transform,
    paper_training_transforms,
    random_resize_crop,
    resize_pixels,
    resized_size,
    segmentation_training_transforms,
)
from stpn_data.video import VideoReader, VideoWriter
from stpn_data.videos import DataError, FrameObjects, Video, VideoDataset
from stpn_data.windows import VideoWindows, windows_without_clean_frame
from stpn_data.youtube_vis import YouTubeVIS
from stpn_data.youtube_vis_json import to_youtube_vis, youtube_vis_ids

__all__ = [
    "AnnotatedVideos",
    "BilateralRandomSampler",
    "BoxTargets",
    "CausalSampler",
    "CausalTrackSampler",
    "Clip",
    "ClipBatch",
    "ClipDataset",
    "Compose",
    "DataCheck",
    "DataError",
    "DataReport",
    "DeterioratedSegmentation",
    "DeterioratedTracking",
    "DeterioratedVideo",
    "FrameObjects",
    "GOT10k",
    "GOT10kLabels",
    "ImageNetVID",
    "JointVideos",
    "KeyFramesWithObjects",
    "OwnSequences",
    "PadToLargest",
    "RandomChoice",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomSampler",
    "ResizeShortestEdge",
    "SanitizeBoxes",
    "SegmentationOptions",
    "SupportSampler",
    "TrackFrame",
    "TrackSample",
    "TrackSamples",
    "TrackingDataset",
    "TrackingOptions",
    "TrackingSequence",
    "Transform",
    "TridentTrackSampler",
    "Video",
    "VideoDataset",
    "VideoReader",
    "VideoUniformSampler",
    "VideoWindows",
    "VideoWriter",
    "WindowSampler",
    "YouTubeVIS",
    "check_data",
    "coco_to_folders",
    "collate",
    "det_folders_to_coco",
    "open_coco",
    "open_mask_folder",
    "open_own_folder",
    "pad_images",
    "paper_test_transform",
    "paper_training_transforms",
    "random_resize_crop",
    "read_image",
    "resize_pixels",
    "resized_size",
    "segmentation_training_transforms",
    "to_youtube_vis",
    "vid_folders_to_coco",
    "windows_without_clean_frame",
    "youtube_vis_ids",
]
