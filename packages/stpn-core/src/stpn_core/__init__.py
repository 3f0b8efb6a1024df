"""Dynamic video prompts: predictors, video encoder and streaming, for any promptable backbone."""

from stpn_core.batches import EncodedFrame, SupportFrame
from stpn_core.encoder import PromptableBackbone, VideoEncoder
from stpn_core.images import check_images
from stpn_core.offline import encode_video
from stpn_core.predictors import (
    AttentionPredictor,
    AveragePredictor,
    MixerPredictor,
    PromptPredictor,
    TransformerPredictor,
    convert_released_predictor,
)
from stpn_core.prompts import PromptProjection, StaticPrompts
from stpn_core.stream import (
    Sampler,
    StreamState,
    SupportMemory,
    VideoStream,
    memory_capacity,
)

__all__ = [
    "AttentionPredictor",
    "AveragePredictor",
    "EncodedFrame",
    "MixerPredictor",
    "PromptPredictor",
    "PromptProjection",
    "PromptableBackbone",
    "Sampler",
    "StaticPrompts",
    "StreamState",
    "SupportFrame",
    "SupportMemory",
    "TransformerPredictor",
    "VideoEncoder",
    "VideoStream",
    "check_images",
    "convert_released_predictor",
    "encode_video",
    "memory_capacity",
]
