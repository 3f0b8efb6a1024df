"""Faster R-CNN against the released detector, stage by stage and end to end.

Every stage is fed with the stored output of the one before, except where a test says otherwise.
"""

import math
from types import SimpleNamespace

import pytest
import torch
from torchvision.ops import batched_nms

from stpn_data.batch import BoxTargets
from stpn_kernels.testing import as_tensors, assert_golden, hash_fill, load_golden
from stpn_tasks.detection import FasterRCNN, convert_released_detector
from stpn_tasks.detection.boxes import clip_boxes, has_area
from stpn_tasks.detection.rpn import AnchorPredictions

MULTIPLIERS = {"rpn_cls": 0.8, "rpn_reg": 0.4, "fc_cls": 3.0, "fc_reg": 1.5}
SMALL = {"in_channels": (32, 64, 128, 256), "fpn_channels": 64, "fc_dim": 128, "num_classes": 5}
FULL = {"in_channels": (96, 192, 384, 768), "fpn_channels": 256, "fc_dim": 1024, "num_classes": 30}
CASES = {
    "S_b_100x132": ("det.S9.", SMALL, "swin/small_case_b_100x132.npz", "prompt_out"),
    "S_b2_100x132": ("det.S9.", SMALL, "swin/small_batch2_100x132.npz", "correct_out"),
    "F_128x160": ("det.F1.", FULL, "swin/swint_128x160.npz", "prompt_out"),
}


def released_shapes(in_channels, fpn_channels, fc_dim, num_classes):
    """The released names and shapes, written down here as the checkpoints have them."""
    shapes = {}
    for i, channels in enumerate(in_channels):
        shapes[f"neck.lateral_convs.{i}.conv"] = (fpn_channels, channels, 1, 1)
        shapes[f"neck.fpn_convs.{i}.conv"] = (fpn_channels, fpn_channels, 3, 3)
    shapes["rpn_head.rpn_conv"] = (fpn_channels, fpn_channels, 3, 3)
    shapes["rpn_head.rpn_cls"] = (3, fpn_channels, 1, 1)
    shapes["rpn_head.rpn_reg"] = (12, fpn_channels, 1, 1)
    head = "roi_head.bbox_head"
    shapes[f"{head}.shared_fcs.0"] = (fc_dim, fpn_channels * 49)
    shapes[f"{head}.shared_fcs.1"] = (fc_dim, fc_dim)
    shapes[f"{head}.fc_cls"] = (num_classes + 1, fc_dim)
    shapes[f"{head}.fc_reg"] = (num_classes * 4, fc_dim)
    return shapes


def released_weights(prefix, settings):
    weights = {}
    for name, shape in released_shapes(**settings).items():
        multiplier = MULTIPLIERS.get(name.rpartition(".")[2], 1.0)
        scale = math.sqrt(3 / math.prod(shape[1:])) * multiplier
        weights[f"{name}.weight"] = hash_fill(f"{prefix}{name}.weight", shape, scale)
        weights[f"{name}.bias"] = hash_fill(f"{prefix}{name}.bias", shape[:1], 0.1)
    return weights


@pytest.fixture(scope="module")
def build():
    """Return a function that gives detector, features and golden of a case, each built once."""
    built = {}

    def case(name):
        if name not in built:
            prefix, settings, features_file, key = CASES[name]
            golden = as_tensors(load_golden(f"detector/frcnn_{name}.npz"))
            arrays = load_golden(features_file)
            settings = dict(settings)
            detector = FasterRCNN(
                settings.pop("in_channels"), settings.pop("num_classes"), **settings
            )
            weights = released_weights(prefix, CASES[name][1])
            detector.load_state_dict(convert_released_detector(weights))
            built[name] = SimpleNamespace(
                detector=detector.eval(),
                features=[torch.from_numpy(arrays[f"{key}{i}"]) for i in range(4)],
                golden=golden,
                image_sizes=[(int(h), int(w)) for h, w in golden["img_shape"]],
                scale_factors=[(float(y), float(x)) for x, y in golden["scale_factor"][:, :2]],
            )
        return built[name]

    return case


def golden_pyramid(case):
    """The stored pyramid where it is stored whole, else ours (checked by its sums)."""
    golden = case.golden
    if "fpn0" in golden:
        return [golden[f"fpn{i}"] for i in range(5)]
    return case.detector.pyramid(case.features)


@pytest.fixture(params=CASES)
def case(request, build):
    with torch.no_grad():
        yield build(request.param)


@pytest.mark.parametrize(("tag", "name"), [("S", "S_b_100x132"), ("F", "F_128x160")])
def test_weights_are_those_of_the_golden_runs(tag, name):
    manifest = load_golden(f"detector/det_{tag}_weights_manifest.npz")
    prefix, settings = CASES[name][:2]
    weights = {prefix + key: value for key, value in released_weights(prefix, settings).items()}
    assert sorted(weights) == sorted(manifest["keys"].tolist())
    for key, total in zip(manifest["keys"].tolist(), manifest["sums"], strict=True):
        assert weights[key].double().sum().item() == pytest.approx(total, rel=1e-9, abs=1e-9), key


def test_pyramid(case):
    for i, level in enumerate(case.detector.pyramid(case.features)):
        stored = case.golden.get(f"fpn{i}", case.golden.get(f"fpn{i}_ch"))
        assert_golden(level[:, : stored.shape[1]], stored)
        sums = level.double().abs().sum(dim=(0, 2, 3))
        torch.testing.assert_close(sums, case.golden[f"fpn{i}_abssum"], rtol=1e-5, atol=1e-3)


def test_anchor_predictions(case):
    golden = case.golden
    predictions = case.detector.rpn(golden_pyramid(case))
    logits = [golden[f"rpn_cls{i}"].permute(0, 2, 3, 1).flatten(1) for i in range(5)]
    assert_golden(predictions.logits, torch.cat(logits, dim=1))
    deltas = [
        golden[f"rpn_reg{i}"].permute(0, 2, 3, 1).reshape(len(logits[0]), -1, 4) for i in range(5)
    ]
    assert_golden(predictions.deltas, torch.cat(deltas, dim=1))


def test_anchors_are_exact(case):
    golden = case.golden
    predictions = case.detector.rpn(golden_pyramid(case))
    levels = predictions.anchors.split(golden["anchor_count"].tolist())
    assert len(predictions.anchors) == golden["anchor_count"].sum()
    for i, level in enumerate(levels):
        assert torch.equal(level[:6], golden["anchor_first6"][i])
        assert torch.equal(level[-6:], golden["anchor_last6"][i])
        torch.testing.assert_close(level.double().sum(0), golden["anchor_sum"][i])
        torch.testing.assert_close(level.double().square().sum(0), golden["anchor_sumsq"][i])


def golden_predictions(case):
    predictions = case.detector.rpn(golden_pyramid(case))
    batch = len(case.image_sizes)
    logits = [case.golden[f"rpn_cls{i}"].permute(0, 2, 3, 1).flatten(1) for i in range(5)]
    deltas = [
        case.golden[f"rpn_reg{i}"].permute(0, 2, 3, 1).reshape(batch, -1, 4) for i in range(5)
    ]
    return AnchorPredictions(
        torch.cat(logits, 1), torch.cat(deltas, 1), predictions.anchors, predictions.grid_sizes
    )


def test_candidates_and_proposals(case):
    rpn, predictions = case.detector.rpn, golden_predictions(case)
    boxes, logits, levels = rpn.candidates(predictions)
    proposals = rpn.propose(predictions, case.image_sizes)
    for b, size in enumerate(case.image_sizes):
        clipped = clip_boxes(boxes[b], size)
        keep = has_area(clipped)
        stored = case.golden[f"rpn_pre_boxes_{b}"]
        assert keep.sum() == len(stored)
        # Nearly equal scores may swap neighbours.
        stored_probs, probs = case.golden[f"rpn_pre_scores_{b}"], logits[b][keep].sigmoid()
        order = torch.cdist(
            torch.cat((stored, 1e4 * stored_probs[:, None]), dim=1),
            torch.cat((clipped[keep], 1e4 * probs[:, None]), dim=1),
            p=torch.inf,
        ).argmin(dim=1)
        position = torch.arange(len(order))
        assert torch.equal(order.sort().values, position)
        assert ((order - position).abs() <= 1).all()
        image_boxes, scores = clipped[keep][order], logits[b][keep][order]
        torch.testing.assert_close(image_boxes, stored, atol=1e-4, rtol=0)
        torch.testing.assert_close(probs[order], stored_probs, atol=1e-6, rtol=0)
        assert torch.equal(levels[keep], case.golden[f"rpn_pre_level_{b}"].long())
        kept = batched_nms(image_boxes, scores, levels[keep], 0.7)
        assert torch.equal(kept, case.golden[f"rpn_keep_{b}"].long())
        stored = case.golden[f"proposals_{b}"][:, :4]
        torch.testing.assert_close(proposals[b], stored, atol=1e-4, rtol=0)


def golden_proposals(case):
    return [case.golden[f"proposals_{b}"][:, :4] for b in range(len(case.image_sizes))]


def test_pooled_regions(case):
    golden, proposals = case.golden, golden_proposals(case)
    levels = case.detector.roi_head.levels(torch.cat(proposals))
    assert torch.equal(levels, golden["roi_level"].long())
    pooled = case.detector.roi_head.pool(golden_pyramid(case)[:4], proposals)
    index = golden["roi_feat_index"]
    torch.testing.assert_close(pooled[index, :16], golden["roi_feat"], atol=1e-5, rtol=0)
    sums = pooled.double().abs().sum(dim=(1, 2, 3))
    torch.testing.assert_close(sums, golden["roi_feat_abssum"], rtol=1e-5, atol=1e-3)


def test_head_outputs(case):
    golden = case.golden
    logits, deltas = case.detector.roi_head(golden_pyramid(case)[:4], golden_proposals(case))
    assert_golden(logits, golden["cls_score"])
    assert_golden(deltas.flatten(1)[: len(golden["bbox_pred"])], golden["bbox_pred"])
    sums = deltas.flatten(1).double().sum(dim=1)
    torch.testing.assert_close(sums, golden["bbox_pred_sum"], atol=2e-4, rtol=1e-4)


def check_detections(case, found, box_tolerance, score_tolerance):
    for b, detections in enumerate(found):
        stored = case.golden[f"det_bboxes_{b}"]
        assert torch.equal(detections.labels, case.golden[f"det_labels_{b}"].long())
        torch.testing.assert_close(detections.boxes_xyxy, stored[:, :4], atol=box_tolerance, rtol=0)
        torch.testing.assert_close(detections.scores, stored[:, 4], atol=score_tolerance, rtol=0)


def test_detections_from_the_stored_head_outputs(case):
    head, golden, proposals = case.detector.roi_head, case.golden, golden_proposals(case)
    _, deltas = head(golden_pyramid(case)[:4], proposals)
    stored = golden["bbox_pred"].unflatten(1, (head.num_classes, 4))  # case F: the first rows
    deltas = torch.cat((stored, deltas[len(stored) :]))
    found = head.detect(
        golden["cls_score"], deltas, proposals, case.image_sizes, case.scale_factors
    )
    check_detections(case, found, 1e-4, 1e-6)


def test_detections_end_to_end(case):
    found = case.detector.detect(case.features, case.image_sizes, case.scale_factors)
    check_detections(case, found, 2e-3, 2e-5)


# Training: the released targets, losses and gradients of the two-image case.


@pytest.fixture
def training(build):
    golden = as_tensors(
        {
            name: array
            for name, array in load_golden("detector/train_S_b2.npz").items()
            if array.dtype.kind != "U"
        }
    )
    case = build("S_b2_100x132")
    return SimpleNamespace(
        detector=case.detector,
        features=[feature.clone().requires_grad_() for feature in case.features],
        golden=golden,
        image_sizes=[(int(h), int(w)) for h, w in golden["img_shape"]],
        pad_sizes=[(int(h), int(w)) for h, w in golden["pad_shape"]],
        targets=[BoxTargets(golden[f"gt_bboxes_{b}"], golden[f"gt_labels_{b}"]) for b in range(2)],
    )


def stored_assignment(stored):
    """0 is background there, k is object k - 1, -1 ignored and -9 outside."""
    stored = stored.long()
    return torch.where(stored > 0, stored - 1, torch.where(stored == 0, -1, -2))


def test_anchor_assignment(training):
    rpn, golden = training.detector.rpn, training.golden
    predictions = rpn(training.detector.pyramid(training.features))
    for b, target in enumerate(training.targets):
        assigned = rpn.assign(predictions, target.boxes_xyxy, training.pad_sizes[b])
        assert torch.equal(assigned, stored_assignment(golden[f"rpn_gt_inds_{b}"]))
        rpn.low_quality_iou, saved = 2.0, rpn.low_quality_iou
        plain = rpn.assign(predictions, target.boxes_xyxy, training.pad_sizes[b])
        rpn.low_quality_iou = saved
        assert torch.equal(plain, stored_assignment(golden[f"rpn_gt_inds_nolowq_{b}"]))


@pytest.fixture
def stored_samples(training, monkeypatch):
    """Replace the random draw by the stored indices, and check what it is asked for."""
    golden, asked = training.golden, {"rpn": [], "roi": []}

    def sampler(stage, stored):
        def sample(assigned, num_samples, positive_fraction):
            image = len(asked[stage])
            asked[stage].append((assigned, num_samples, positive_fraction))
            return golden[f"{stored}_pos_inds_{image}"], golden[f"{stored}_neg_inds_{image}"]

        return sample

    for stage, module, stored in (("rpn", "rpn", "rpn"), ("roi", "roi_head", "rcnn")):
        monkeypatch.setattr(
            f"stpn_tasks.detection.{module}.sample_assignment", sampler(stage, stored)
        )
    return asked


def test_region_targets(training, stored_samples):
    golden, head = training.golden, training.detector.roi_head
    regions = [
        head.sample(golden[f"proposals_{b}"][:, :4], target)
        for b, target in enumerate(training.targets)
    ]
    for b, (assigned, num_samples, fraction) in enumerate(stored_samples["roi"]):
        num_objects = len(training.targets[b].labels)
        assert torch.equal(assigned[:num_objects], torch.arange(num_objects))
        stored = stored_assignment(golden[f"rcnn_gt_inds_{b}"])
        assert torch.equal(assigned[num_objects:], stored)
        assert (num_samples, fraction) == (256, 0.25)
    boxes = torch.cat([r.boxes_xyxy for r in regions])
    torch.testing.assert_close(boxes, golden["rcnn_rois"][:, 1:], atol=1e-4, rtol=0)
    labels = torch.cat([r.labels for r in regions])
    assert torch.equal(labels, golden["rcnn_labels"].long())
    torch.testing.assert_close(
        torch.cat([r.deltas for r in regions]),
        golden["rcnn_bbox_targets"][labels < 5],
        atol=1e-5,
        rtol=0,
    )
    pyramid = training.detector.pyramid(training.features)[:4]
    logits, deltas = head(pyramid, [r.boxes_xyxy for r in regions])
    assert_golden(logits, golden["rcnn_cls_score"])
    assert_golden(deltas.flatten(1), golden["rcnn_bbox_pred"])


def test_training_losses_and_gradients(training, stored_samples):
    golden, detector = training.golden, training.detector
    losses = detector.loss(
        training.features, training.image_sizes, training.targets, training.pad_sizes
    )
    assert [ask[1:] for ask in stored_samples["rpn"]] == [(256, 0.5)] * 2
    for ours, stored in (
        (losses.rpn_objectness, golden["loss_rpn_cls"].sum()),
        (losses.rpn_box, golden["loss_rpn_bbox"].sum()),
        (losses.roi_classification, golden["loss_cls"]),
        (losses.roi_box, golden["loss_bbox"]),
        (losses.total, golden["loss_total"]),
    ):
        torch.testing.assert_close(ours.detach(), stored, rtol=1e-5, atol=0)

    detector.zero_grad()
    losses.total.backward()
    names = load_golden("detector/train_S_b2.npz")["param_names"].tolist()
    weights = {name: torch.empty(0) for name in names}
    ours = list(convert_released_detector(weights))
    parameters = dict(detector.named_parameters())
    assert sorted(ours) == sorted(parameters)
    norms = torch.stack([parameters[name].grad.double().norm() for name in ours])
    torch.testing.assert_close(norms, golden["param_grad_l2"], rtol=1e-4, atol=1e-7)
    for name, our_name in zip(names, ours, strict=True):
        if f"grad:{name}" in golden:
            stored = golden[f"grad:{name}"]
            torch.testing.assert_close(parameters[our_name].grad, stored, rtol=1e-3, atol=1e-5)
    norms = torch.stack([feature.grad.double().norm() for feature in training.features])
    torch.testing.assert_close(norms, golden["feat_grad_l2"], rtol=1e-4, atol=1e-7)
