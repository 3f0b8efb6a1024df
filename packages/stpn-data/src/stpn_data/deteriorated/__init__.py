"""Generated deteriorated video: the data that needs no download."""

from stpn_data.deteriorated.crops import ObjectCrops
from stpn_data.deteriorated.dataset import DeterioratedVideo
from stpn_data.deteriorated.options import KINDS, SPLITS, TEXTURES, Kind, RenderOptions, Texture
from stpn_data.deteriorated.segmentation_dataset import DeterioratedSegmentation
from stpn_data.deteriorated.segmentation_options import SegmentationOptions
from stpn_data.deteriorated.tracking_dataset import DeterioratedTracking
from stpn_data.deteriorated.tracking_options import TrackingOptions

__all__ = [
    "KINDS",
    "SPLITS",
    "TEXTURES",
    "DeterioratedSegmentation",
    "DeterioratedTracking",
    "DeterioratedVideo",
    "Kind",
    "ObjectCrops",
    "RenderOptions",
    "SegmentationOptions",
    "Texture",
    "TrackingOptions",
]
