"""Transformer backbones that take video prompts, on timm's modules and weights."""

from stpn_backbones.create import create_backbone, supported_backbones
from stpn_backbones.cvt import PromptedCvt
from stpn_backbones.cvt_create import HubWeightsError
from stpn_backbones.cvt_layers import PromptConv
from stpn_backbones.cvt_stages import CvtStages
from stpn_backbones.cvt_weights import load_cvt_weights
from stpn_backbones.reading import read_state_dict
from stpn_backbones.swin import PromptedSwin, PromptMerging
from stpn_backbones.weights import LoadReport, check_fit, convert_swin, load_weights

__all__ = [
    "CvtStages",
    "HubWeightsError",
    "LoadReport",
    "PromptConv",
    "PromptMerging",
    "PromptedCvt",
    "PromptedSwin",
    "check_fit",
    "convert_swin",
    "create_backbone",
    "load_cvt_weights",
    "load_weights",
    "read_state_dict",
    "supported_backbones",
]
