"""The predictors by the names that recipes call them."""

from __future__ import annotations

from stpn_core import (
    AttentionPredictor,
    AveragePredictor,
    MixerPredictor,
    PromptPredictor,
    TransformerPredictor,
)

PREDICTORS: dict[str, type[PromptPredictor]] = {
    "transformer": TransformerPredictor,
    "mixer": MixerPredictor,
    "attention": AttentionPredictor,
    "average": AveragePredictor,
}
