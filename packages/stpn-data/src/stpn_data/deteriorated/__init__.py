"""Generated deteriorated video: the data that needs no download."""

from stpn_data.deteriorated.crops import ObjectCrops
from stpn_data.deteriorated.dataset import DeterioratedVideo
from stpn_data.deteriorated.options import KINDS, SPLITS, TEXTURES, Kind, RenderOptions, Texture
from stpn_data.deteriorated.tracking_dataset import DeterioratedTracking
from stpn_data.deteriorated.tracking_options import TrackingOptions

__all__ = [
    "KINDS",
    "SPLITS",
    "TEXTURES",
    "DeterioratedTracking",
    "DeterioratedVideo",
    "Kind",
    "ObjectCrops",
    "RenderOptions",
    "Texture",
    "TrackingOptions",
]
