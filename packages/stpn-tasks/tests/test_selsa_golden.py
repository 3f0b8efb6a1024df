"""SELSA against mmtracking's, stage by stage and end to end, with the weights of golden runs."""

import json
import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from stpn_data.batch import BoxTargets
from stpn_kernels.testing import as_tensors, assert_golden, hash_fill, load_golden
from stpn_tasks.detection import SelsaRCNN, convert_released_detector
from stpn_tasks.detection.selsa import SelsaAggregator

AGGREGATOR = {"fc_embed": "query", "ref_fc_embed": "key", "ref_fc": "value", "fc": "output"}
MULTIPLIERS = {"rpn_cls": 0.8, "rpn_reg": 0.4, "fc_cls": 3.0, "fc_reg": 1.5}
IMAGE = (100, 132)


def fill(prefix, key, shape, multipliers=MULTIPLIERS):
    if key.endswith("bias"):
        return hash_fill(prefix + key, shape, 0.1)
    multiplier = multipliers.get(key.split(".")[-2], 1.0)
    return hash_fill(prefix + key, shape, math.sqrt(3 / math.prod(shape[1:])) * multiplier)


def released_weights(prefix, arrays, multipliers):
    """Regenerate the weights that a golden file lists, and check them by their sums."""
    weights = {}
    for name, shape, total in zip(arrays["keys"], arrays["shapes"], arrays["sums"], strict=True):
        key = str(name).removeprefix(prefix)
        weights[key] = fill(prefix, key, json.loads(str(shape)), multipliers)
        assert weights[key].double().sum().item() == pytest.approx(total, rel=1e-9, abs=1e-9), key
    return weights


@pytest.mark.parametrize("case", ["s_6_9", "s_1_1", "s_5_1", "s_1_7", "s_h1", "f_20_50"])
@torch.no_grad()
def test_aggregator(case):
    golden = as_tensors(
        {
            name: array
            for name, array in load_golden("detector/selsa_aggregator.npz").items()
            if array.dtype.kind != "U"
        }
    )
    dim, num_heads = golden[f"{case}_cfg"][:2].tolist()
    aggregator = SelsaAggregator(dim, num_heads)
    for released, ours in AGGREGATOR.items():
        for part, parameter in getattr(aggregator, ours).named_parameters():
            parameter.copy_(fill(f"selsa.agg.{dim}.", f"{released}.{part}", parameter.shape))
    regions, references = golden[f"{case}_x"], golden[f"{case}_ref"]
    keys = aggregator.key(references)
    output = aggregator(regions, keys, aggregator.value(references))
    assert_close(output, golden[f"{case}_out"], atol=5e-6, rtol=0)
    if f"{case}_weights" in golden:
        query, key = (
            tokens.unflatten(1, (num_heads, -1)).transpose(0, 1)
            for tokens in (aggregator.query(regions), keys)
        )
        weights = (query @ key.mT / math.sqrt(dim / num_heads)).softmax(-1)
        assert_close(weights, golden[f"{case}_weights"], atol=5e-6, rtol=0)


@pytest.fixture(scope="module")
def box_head():
    """The small head and its golden arrays."""
    arrays = load_golden("detector/selsa_bbox_head_small.npz")
    detector = SelsaRCNN((8,) * 4, 5, num_heads=4, fpn_channels=16, fc_dim=64)
    prefix = "selsa.head.small."
    weights = released_weights(prefix, arrays, {})
    ours = convert_released_detector({f"roi_head.bbox_head.{k}": w for k, w in weights.items()})
    head = detector.roi_head
    head.load_state_dict({key.removeprefix("roi_head."): w for key, w in ours.items()})
    numbers = {name: array for name, array in arrays.items() if array.dtype.kind != "U"}
    return head, as_tensors(numbers)


@pytest.mark.parametrize(("n", "m"), [(6, 11), (1, 1), (3, 1), (1, 8)])
@torch.no_grad()
def test_box_head_layer_by_layer(box_head, n, m):
    head, arrays = box_head
    golden = {
        name.removeprefix(f"n{n}_m{m}_"): array
        for name, array in arrays.items()
        if name.startswith(f"n{n}_m{m}_")
    }
    seen = []
    layers = (head.shared.fc6, head.shared.fc7, *head.aggregators)
    hooks = [
        layer.register_forward_hook(lambda module, _, output: seen.append((module, output)))
        for layer in layers
    ]
    (references,) = head.project(golden["ref"], [m])
    for i, layer in enumerate(layers[:2]):
        assert seen[i][0] is layer
        assert_close(seen[i][1], golden[f"fc{i}_ref"], atol=1e-5, rtol=0)
    seen.clear()
    logits, deltas = head.predict(head.refine(golden["x"], [n], [references]))
    for hook in hooks:
        hook.remove()
    order = (layers[0], layers[2], layers[1], layers[3])
    names = ("fc0_x", "agg0", "fc1_x", "agg1")
    for (module, output), layer, name in zip(seen, order, names, strict=True):
        assert module is layer
        assert_close(output, golden[name], atol=1e-5, rtol=0)
    assert_close(logits, golden["cls_score"], atol=1e-5, rtol=0)
    assert_close(deltas.flatten(1), golden["bbox_pred"], atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def detector():
    """The detector of the two runs from feature maps."""
    detector = SelsaRCNN((32, 64, 128, 256), 5, num_heads=8, fpn_channels=64, fc_dim=128)
    arrays = load_golden("detector/selsa_roi_head_test.npz")
    weights = released_weights("det.Q3.", arrays, MULTIPLIERS)
    detector.load_state_dict(convert_released_detector(weights))
    return detector.eval()


@pytest.fixture
def inputs():
    """Feature maps of the current frame, prompted, and of two support frames, plain."""
    current = load_golden("swin/small_case_b_100x132.npz")
    support = load_golden("swin/small_batch2_100x132.npz")
    return SimpleNamespace(
        current=[torch.from_numpy(current[f"prompt_out{i}"]) for i in range(4)],
        support=[torch.from_numpy(support[f"noprompt_out{i}"]) for i in range(4)],
        support_sizes=[(100, 132), (93, 117)],
    )


@pytest.fixture
def golden_test():
    arrays = load_golden("detector/selsa_roi_head_test.npz")
    return as_tensors({name: a for name, a in arrays.items() if a.dtype.kind != "U"})


@torch.no_grad()
def test_pyramids_and_proposals(detector, inputs, golden_test):
    for kind, maps, sizes in (
        ("", inputs.current, [IMAGE]),
        ("ref_", inputs.support, inputs.support_sizes),
    ):
        pyramid = detector.pyramid(maps)
        for i, level in enumerate(pyramid):
            sums = level.double().sum((2, 3))
            stored = golden_test[f"{kind}x{i}_sum"].view(-1, sums.shape[1])
            assert_close(sums, stored[: len(sums)], rtol=1e-5, atol=5e-3)
        proposals = detector.rpn.propose(detector.rpn(pyramid), sizes)
        names = ["proposals"] if kind == "" else ["ref_proposals_0", "ref_proposals_1"]
        for found, name in zip(proposals, names, strict=True):
            assert_close(found, golden_test[name][:, :4], atol=1e-4, rtol=0)


@torch.no_grad()
def test_head_outputs_from_the_stored_proposals(detector, inputs, golden_test):
    head, proposals = detector.roi_head, golden_test["proposals"][:, :4]
    own = golden_test["ref_proposals_2"][:, :4]  # the frame is a reference of itself
    assert_close(own, proposals, atol=1e-4, rtol=0)
    support = [golden_test[f"ref_proposals_{i}"][:, :4] for i in range(2)]
    pooled = head.pool(detector.pyramid(inputs.support)[:4], support)
    references = head.project(pooled, [300, 300])
    logits, deltas = head(detector.pyramid(inputs.current)[:4], [proposals], [references])
    assert_golden(logits, golden_test["cls_score"])
    assert_golden(deltas.flatten(1), golden_test["bbox_pred"])


@torch.no_grad()
def test_detections_end_to_end(detector, inputs, golden_test):
    scale = golden_test["scale_factor"][[1, 0]].tolist()
    references = detector.references(inputs.support, inputs.support_sizes)
    (found,) = detector.detect(inputs.current, [IMAGE], [tuple(scale)], [references])
    assert torch.equal(found.labels, golden_test["det_labels"].long())
    assert_close(found.boxes_xyxy, golden_test["det_bboxes"][:, :4], atol=2e-3, rtol=0)
    assert_close(found.scores, golden_test["det_bboxes"][:, 4], atol=2e-5, rtol=0)


def test_training_losses_and_gradients(detector, inputs, monkeypatch):
    arrays = load_golden("detector/selsa_roi_head_train.npz")
    golden = as_tensors({name: a for name, a in arrays.items() if a.dtype.kind != "U"})
    monkeypatch.setattr(
        "stpn_tasks.detection.roi_head.sample_assignment",
        lambda *_: (golden["pos_inds"], golden["neg_inds"]),
    )
    maps = [
        [feature.clone().requires_grad_() for feature in features]
        for features in (inputs.current, inputs.support)
    ]
    head, targets = detector.roi_head, BoxTargets(golden["gt_bboxes"], golden["gt_labels"])
    pyramid, support = (detector.pyramid(features)[:4] for features in maps)
    stored = [golden[f"ref_proposals_{i}"][:, :4] for i in range(2)]
    references = head.project(head.pool(support, stored), [300, 300])
    predict = partial(head, pyramid, references=[references], with_own=False)
    regions = head.sample(golden["proposals"][:, :4], targets)
    logits, deltas = predict([regions.boxes_xyxy])
    assert_golden(logits, golden["cls_score"])
    assert_golden(deltas.flatten(1), golden["bbox_pred"])
    losses = head.loss(predict, [golden["proposals"][:, :4]], [targets])
    for ours, name in zip(losses, ("loss_cls", "loss_bbox"), strict=True):
        assert_close(ours.detach(), golden[name], rtol=1e-5, atol=0)

    detector.zero_grad()
    sum(losses).backward()
    for features, name in zip(maps, ("key_feat_grad_l2", "ref_feat_grad_l2"), strict=True):
        norms = torch.stack([feature.grad.double().norm() for feature in features])
        assert_close(norms, golden[name], rtol=1e-4, atol=1e-7)
    names = [str(name) for name in arrays["param_names"]]
    ours = list(convert_released_detector(dict.fromkeys(names, torch.empty(0))))
    parameters = dict(detector.named_parameters())
    assert sorted(ours) == sorted(parameters)
    norms = [
        torch.zeros(()) if parameters[name].grad is None else parameters[name].grad.norm()
        for name in ours  # without the losses of the first stage, whose layers learn nothing here
    ]
    # A key's bias cancels in the softmax: what is stored of its gradient is rounding.
    assert_close(torch.stack(norms).double(), golden["param_grad_l2"], rtol=1e-4, atol=1e-7)
