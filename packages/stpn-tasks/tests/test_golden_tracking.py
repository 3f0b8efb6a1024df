"""Crops, clipped boxes, losses and the online tracker against MixFormer's, array by array.

The golden file also has `loss.giou`, which the CvT models are not trained with.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from stpn_kernels.testing import load_golden
from stpn_tasks.tracking.crops import CropWindow, clip_box
from stpn_tasks.tracking.losses import CIOU_WEIGHT, L1_WEIGHT, box_losses, complete_iou, iou
from stpn_tasks.tracking.options import TrackerOptions
from stpn_tasks.tracking.tracker import OnlineTracker


@pytest.fixture(scope="module")
def golden():
    return load_golden("mixformer/crops_boxes_losses.npz")


@pytest.mark.parametrize("number", range(5))
def test_crops(golden, number):
    specs = json.loads(str(golden["crop_specs_json"]))
    assert len(specs) == 5
    spec, name = specs[number], f"crop{number}"
    window = CropWindow.around(spec["box"], spec["factor"], spec["out"])
    image = golden["image"]
    np.testing.assert_array_equal(window.cut(image), golden[f"{name}.img"])
    np.testing.assert_array_equal(window.padding(image.shape[:2]), golden[f"{name}.mask"])
    assert window.scale == pytest.approx(float(golden[f"{name}.resize_factor"]), rel=1e-12)
    left, top, right, bottom = window.to_crop(golden["crop_gt_box"].tolist())
    found = [left, top, right - left, bottom - top]
    np.testing.assert_allclose(found, golden[f"{name}.gt_in_crop_norm"], atol=1e-6)


def test_clipped_boxes(golden):
    height, width, margin = golden["clip.HW_margin"].tolist()
    clipped = [clip_box(box, (height, width), margin) for box in golden["clip.in"].tolist()]
    np.testing.assert_array_equal(clipped, golden["clip.out"])


def test_losses(golden):
    predicted, targets = (torch.from_numpy(golden[f"loss.{n}_xyxy"]) for n in ("pred", "gt"))
    assert_close(iou(predicted, targets), torch.from_numpy(golden["loss.iou"]))
    mean = (1 - complete_iou(predicted, targets)).mean()
    assert_close(mean, torch.from_numpy(golden["loss.ciou"]))
    corners = predicted[:, :2], predicted[:, 2:]
    cxcywh = torch.cat([(corners[0] + corners[1]) / 2, corners[1] - corners[0]], 1)
    losses = box_losses(cxcywh, targets)
    assert_close(losses.l1, L1_WEIGHT * torch.from_numpy(golden["loss.l1"]))
    assert_close(losses.total, CIOU_WEIGHT * mean + losses.l1)


class Script:
    """Answer as written, and note what is asked."""

    predictor = None

    def __init__(self, boxes, logits):
        self.answers = zip(boxes.split(1), logits.split(1), strict=True)
        self.searches, self.templates = [], []

    def encode_templates(self, template, online):
        self.templates.append((len(self.searches), template, online[0]))
        return len(self.templates) - 1

    def track(self, search, templates, prompts=None):
        assert templates == len(self.templates) - 1
        assert prompts is None
        self.searches.append(search[0])
        boxes, scores = next(self.answers)
        return SimpleNamespace(boxes_cxcywh=boxes, scores=scores, search_tokens=None)

    def embed_support(self, search_tokens):
        raise AssertionError("no predictor asks for this")

    predict_prompts = embed_support


@pytest.mark.parametrize("case", ["online1", "online2_decay", "online3"])
def test_tracker(case):
    arrays = load_golden(f"mixformer/tracker_logic_{case}.npz")
    meta = json.loads(str(arrays["meta_json"]))
    network = Script(*(torch.from_numpy(arrays[f"pred_{n}"]) for n in ("cxcywh", "logit")))
    options = TrackerOptions(
        template_size=meta["template_size"],
        template_factor=meta["template_factor"],
        search_size=meta["search_size"],
        search_factor=meta["search_factor"],
        online_size=meta["online_size"],
        update_interval=meta["update_interval"],
        score_decay=meta["max_score_decay"],
    )
    tracker = OnlineTracker(network, options)
    frames = arrays["frames"]
    tracker.init(frames[0], arrays["init_box"].tolist())
    boxes, states = [tracker.state.box], []
    for number, frame in enumerate(frames[1:]):
        result = tracker.track(frame)
        logit = torch.from_numpy(arrays["pred_logit"])[number]
        assert result.score == pytest.approx(float(logit.sigmoid()))
        assert result.is_lost == (result.score < 0.5)
        boxes.append(result.box_xywh)
        state = tracker.state
        states.append((state.best_score, state.oldest, len(state.online)))
    np.testing.assert_allclose(boxes, arrays["state_xywh"], atol=1e-4)
    scores, oldest, counts = zip(*states, strict=True)
    np.testing.assert_allclose(scores, arrays["max_pred_score_after"], atol=1e-6)
    np.testing.assert_array_equal(oldest, arrays["forget_id_after"])
    np.testing.assert_array_equal(counts, arrays["n_online_after"])
    assert_close(torch.stack(network.searches), torch.from_numpy(arrays["search_input"]))
    _check_templates(network.templates, arrays)


def _check_templates(encoded, arrays):
    """Compare with the reference, which encodes a single online template anew for every frame."""
    steps = [step for step, _, _ in encoded]
    joint = int(arrays["n_online_after"][-1]) == 1
    if not joint:
        np.testing.assert_array_equal(steps, arrays["call_step"])
    assert len(arrays["call_step"]) == int(arrays["n_template_calls"])
    compared = 0
    for call, step in enumerate(arrays["call_step"].tolist()):
        _, template, online = encoded[max(n for n, at in enumerate(steps) if at <= step)]
        assert_close(template, torch.from_numpy(arrays["template"]))
        total = template.double().sum().item()
        assert total == pytest.approx(arrays["call_template_sum"][call], abs=1e-2)
        if f"call{call}.online_template" in arrays:
            assert_close(online, torch.from_numpy(arrays[f"call{call}.online_template"]))
            compared += 1
    assert compared == sum(name.startswith("call") and "online" in name for name in arrays)
