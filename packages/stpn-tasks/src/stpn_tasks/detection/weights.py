"""Reads the detector of the released STPN checkpoints, and mmtracking's SELSA."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_RELEASED_MODULES = {
    r"neck\.lateral_convs\.(\d+)\.conv": r"fpn.inner_blocks.\1.0",
    r"neck\.fpn_convs\.(\d+)\.conv": r"fpn.layer_blocks.\1.0",
    r"rpn_head\.rpn_conv": r"rpn.head.conv.0.0",
    r"rpn_head\.rpn_cls": r"rpn.head.cls_logits",
    r"rpn_head\.rpn_reg": r"rpn.head.bbox_pred",
    r"roi_head\.bbox_head\.shared_fcs\.0": r"roi_head.shared.fc6",
    r"roi_head\.bbox_head\.shared_fcs\.1": r"roi_head.shared.fc7",
    r"roi_head\.bbox_head\.aggregator\.(\d+)\.fc_embed": r"roi_head.aggregators.\1.query",
    r"roi_head\.bbox_head\.aggregator\.(\d+)\.ref_fc_embed": r"roi_head.aggregators.\1.key",
    r"roi_head\.bbox_head\.aggregator\.(\d+)\.ref_fc": r"roi_head.aggregators.\1.value",
    r"roi_head\.bbox_head\.aggregator\.(\d+)\.fc": r"roi_head.aggregators.\1.output",
    r"roi_head\.bbox_head\.fc_cls": r"roi_head.classifier",
    r"roi_head\.bbox_head\.fc_reg": r"roi_head.regressor",
}


def convert_released_detector(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a released (mmdetection) Faster R-CNN to those of `FasterRCNN`.

    Aggregators of SELSA, where there are any, become those of `SelsaRCNN`.

    Layouts agree, so no value changes.

    Args:
        state_dict: the keys of ``neck``, ``rpn_head`` and ``roi_head``, without the prefix
            ``detector.`` and without the backbone.

    Raises:
        ValueError: a key is none of the detector's; it is named.
    """
    names = {key: _our_name(key) for key in state_dict}
    unknown = [key for key, name in names.items() if name is None]
    if unknown:
        raise ValueError(f"not weights of a released Faster R-CNN: {', '.join(unknown)}")
    return {name: state_dict[key] for key, name in names.items() if name is not None}


def _our_name(key: str) -> str | None:
    for released, ours in _RELEASED_MODULES.items():
        match = re.fullmatch(rf"{released}\.(weight|bias)", key)
        if match:
            return f"{match.expand(ours)}.{match.groups()[-1]}"
    return None
