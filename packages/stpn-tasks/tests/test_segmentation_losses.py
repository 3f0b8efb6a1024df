"""Matching and losses of segmentation: what is compared, where, and what it counts."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from stpn_tasks.segmentation.losses import MaskCriterion
from stpn_tasks.segmentation.masked_decoder import Segmented
from stpn_tasks.segmentation.matcher import assign, matching_costs
from stpn_tasks.segmentation.points import at_points, on_grid, uncertain_points

K, H, W = 3, 6, 8
EXACT = MaskCriterion(num_points=None)
SAMPLED = MaskCriterion(num_points=40)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def predictions(batch=2, queries=5, layers=2, seed=0, dtype=torch.float32):
    draw = generator(seed)

    def one(auxiliary=()):
        return Segmented(
            torch.randn(batch, queries, K + 1, generator=draw).to(dtype).requires_grad_(),
            torch.randn(batch, queries, H, W, generator=draw).to(dtype).requires_grad_(),
            torch.randn(batch, queries, 4, generator=draw).to(dtype),
            auxiliary,
        )

    return one(tuple(one() for _ in range(layers)))


def objects(*counts, seed=0, dtype=torch.bool):
    draw = generator(seed)
    labels = [torch.randint(K, (count,), generator=draw) for count in counts]
    masks = [torch.rand(count, 4 * H, 4 * W, generator=draw) > 0.6 for count in counts]
    return labels, [mask.to(dtype) for mask in masks]


def of_a_solution(labels, masks, queries=5):
    """Predictions that are right: query 1 + i stands for object i, the others for none."""
    logits = torch.full((len(labels), queries, K + 1), -20.0)
    mask_logits = torch.full((len(labels), queries, H, W), -20.0)
    logits[..., K] = 20.0
    for image, (own_labels, own_masks) in enumerate(zip(labels, masks, strict=True)):
        for i, (label, mask) in enumerate(zip(own_labels, own_masks, strict=True)):
            logits[image, 1 + i, K], logits[image, 1 + i, label] = -20.0, 20.0
            mask_logits[image, 1 + i] = 40.0 * on_grid(mask[None].float(), (H, W))[0] - 20.0
    return Segmented(logits, mask_logits, torch.zeros(len(labels), queries, 4))


def blocks(*counts):
    """Objects whose borders are those of cells."""
    labels, masks = [], []
    for count in counts:
        mask = torch.zeros(count, 4 * H, 4 * W, dtype=torch.bool)
        for i in range(count):
            mask[i, 4 * i : 4 * i + 8, 8 * i : 8 * i + 8] = True
        labels.append(torch.arange(count) % K)
        masks.append(mask)
    return labels, masks


def terms(losses):
    return torch.stack((losses.classification, losses.mask, losses.dice))


def test_right_predictions_cost_nothing_in_any_order():
    labels, masks = blocks(3, 1)
    right = of_a_solution(labels, masks)
    assert terms(EXACT(right, labels, masks)).max() < 1e-6
    order = torch.tensor([4, 2, 0, 3, 1])
    shuffled = Segmented(right.logits[:, order], right.masks[:, order], right.embeddings)
    assert terms(EXACT(shuffled, labels, masks)).max() < 1e-6
    # Between cells logits of both signs meet, so that points there cost something.
    sampled = SAMPLED(shuffled, labels, masks, generator())
    assert sampled.classification < 1e-6
    assert sampled.dice < 1.5 < SAMPLED(predictions(layers=0), labels, masks, generator()).dice


def by_hand(criterion, segmented, labels, masks):
    """Return the exact losses from their formulas, image by image and pair by pair."""
    num_masks = max(1, sum(map(len, labels)))
    weights = (criterion.class_weight, criterion.mask_weight, criterion.dice_weight)
    totals = torch.zeros(3)
    for layer in (segmented, *segmented.auxiliary):
        cross_entropy, weight_of_all = 0.0, 0.0
        for image, (own_labels, own_masks) in enumerate(zip(labels, masks, strict=True)):
            x, t = layer.masks[image].flatten(1), on_grid(own_masks.float(), (H, W)).flatten(1)
            costs = matching_costs(layer.logits[image], x, own_labels, t, weights)
            pairs = {int(q): int(o) for q, o in zip(*assign(costs), strict=True)}
            for query in range(len(x)):
                target = int(own_labels[pairs[query]]) if query in pairs else K
                weight = 1.0 if query in pairs else criterion.no_object_weight
                cross_entropy -= weight * layer.logits[image, query].log_softmax(0)[target]
                weight_of_all += weight
            for query, number in pairs.items():
                p, g = x[query].sigmoid(), t[number]
                entropy = -(g * p.log() + (1 - g) * (1 - p).log()).mean()
                dice = 1 - (2 * (p * g).sum() + 1) / (p.sum() + g.sum() + 1)
                totals[1] += weights[1] * entropy / num_masks
                totals[2] += weights[2] * dice / num_masks
        totals[0] += weights[0] * cross_entropy / weight_of_all
    return totals


@settings(max_examples=15, deadline=None)
@given(
    counts=st.lists(st.integers(0, 7), min_size=1, max_size=3),
    queries=st.integers(1, 5),
    seed=st.integers(0, 100),
)
def test_exact_losses_equal_their_formulas(counts, queries, seed):
    segmented = predictions(len(counts), queries, layers=1, seed=seed)
    labels, masks = objects(*counts, seed=seed)
    criterion = MaskCriterion(1.5, 4.0, 3.0, 0.2, num_points=None)
    losses = criterion(segmented, labels, masks)
    expected = by_hand(criterion, segmented, labels, masks)
    assert_close(terms(losses), expected)
    assert_close(losses.total, expected.sum())


@settings(max_examples=15, deadline=None)
@given(queries=st.integers(1, 4), count=st.integers(0, 6), seed=st.integers(0, 100))
def test_costs_are_the_losses_of_each_pair(queries, count, seed):
    draw = generator(seed)
    logits = torch.randn(queries, K + 1, generator=draw)
    x = 3 * torch.randn(queries, 9, generator=draw)
    labels, t = torch.randint(K, (count,), generator=draw), torch.rand(count, 9, generator=draw)
    costs = matching_costs(logits, x, labels, t, (2.0, 3.0, 5.0))
    assert costs.shape == (queries, count)
    for i in range(queries):
        for j in range(count):
            entropy = F.binary_cross_entropy_with_logits(x[i], t[j])
            p = x[i].sigmoid()
            dice = 1 - (2 * (p * t[j]).sum() + 1) / (p.sum() + t[j].sum() + 1)
            expected = -2 * logits[i].softmax(0)[labels[j]] + 3 * entropy + 5 * dice
            assert_close(costs[i, j], expected)


def test_the_assignment_is_the_cheapest_in_all_not_one_by_one():
    queries, found = assign(torch.tensor([[1.0, 2.0], [1.5, 9.0], [8.0, 8.0]]))
    assert (queries.tolist(), found.tolist()) == ([0, 1], [1, 0])


def test_costs_that_are_not_finite_are_taken_last():
    queries, found = assign(torch.tensor([[float("nan"), 5.0], [float("inf"), 1.0], [3.0, 0.0]]))
    assert dict(zip(queries.tolist(), found.tolist(), strict=True)) == {1: 1, 2: 0}


@pytest.mark.parametrize("criterion", [EXACT, SAMPLED])
def test_a_batch_without_objects_teaches_no_object_alone(criterion):
    segmented, (labels, masks) = predictions(), objects(0, 0)
    losses = criterion(segmented, labels, masks)
    assert losses.mask == losses.dice == 0
    losses.total.backward()
    expected = sum(
        2 * F.cross_entropy(layer.logits.flatten(0, 1), torch.full((10,), K))
        for layer in (segmented, *segmented.auxiliary)
    )
    assert_close(losses.classification, expected)
    # Masks are reached with a gradient of zero: no process of several waits for another.
    assert segmented.masks.grad is not None
    assert not segmented.masks.grad.any()


@pytest.mark.parametrize("criterion", [EXACT, SAMPLED])
def test_of_more_objects_than_queries_the_cheapest_are_taught(criterion):
    labels, masks = objects(7)
    segmented = predictions(1, queries=2, layers=0)
    losses = criterion(segmented, labels, masks, generator())
    assert losses.total.isfinite()
    assert losses.mask > 0
    one = criterion(predictions(1, queries=1, layers=1), labels, masks, generator())
    assert one.total.isfinite()


def test_masks_are_counted_over_all_processes(monkeypatch):
    segmented, (labels, masks) = predictions(), objects(3, 2)
    alone = EXACT(segmented, labels, masks)
    dist = torch.distributed
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda count: count.add_(7.0))  # of the other one
    of_two = EXACT(segmented, labels, masks)
    assert_close(of_two.mask, alone.mask * 5 / 6)
    assert_close(of_two.dice, alone.dice * 5 / 6)
    assert_close(of_two.classification, alone.classification)
    monkeypatch.setattr(dist, "all_reduce", lambda count: count)  # none there, one here
    labels, masks = objects(1, 0)
    half = EXACT(segmented, labels, masks).mask  # half a mask each counts as one
    monkeypatch.setattr(dist, "is_initialized", lambda: False)
    assert_close(half, EXACT(segmented, labels, masks).mask)


def test_points_follow_the_generator_and_leave_torchs_alone():
    segmented, (labels, masks) = predictions(), objects(3, 2)
    state = torch.get_rng_state()
    first, same, other = (SAMPLED(segmented, labels, masks, generator(s)) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(terms(first), terms(same))
    assert first.mask != other.mask
    torch.manual_seed(5)
    default = SAMPLED(segmented, labels, masks)
    torch.manual_seed(5)
    assert SAMPLED(segmented, labels, masks).total == default.total


def test_sampled_losses_of_even_points_approach_the_exact_ones():
    labels, masks = blocks(3, 1)
    segmented = predictions(layers=0)
    # Smooth predictions, so that between the cells there is little else than on them.
    smooth = Segmented(segmented.logits, segmented.masks * 0.1, segmented.embeddings)
    even = MaskCriterion(num_points=20_000, oversample_ratio=1.0, importance_ratio=0.0)
    exact, sampled = EXACT(smooth, labels, masks), even(smooth, labels, masks, generator())
    assert_close(sampled.mask, exact.mask, atol=0.0, rtol=0.02)
    # Dice has a 1 in it, which weighs less among more points.
    assert_close(sampled.dice, exact.dice, atol=0.0, rtol=0.05)


def test_most_points_lie_where_a_mask_is_least_sure():
    logits = torch.randn(2, 8, 8, generator=generator())
    points = uncertain_points(logits, 40, 3.0, 0.75, generator(1))
    assert points.shape == (2, 40, 2)
    again = generator(1)
    drawn = torch.rand(2, 120, 2, generator=again)
    least_sure = at_points(logits[:, None], drawn)[:, 0].abs().sort(dim=1).values[:, :30]
    kept = at_points(logits[:, None], points[:, :30])[:, 0].abs().sort(dim=1).values
    assert_close(kept, least_sure)
    assert torch.equal(points[:, 30:], torch.rand(2, 10, 2, generator=again))


def test_points_between_cells_are_interpolated_and_zero_outside():
    maps = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    points = torch.tensor([[[0.25, 0.25], [0.5, 0.5], [0.5, 0.25], [0.0, 0.25], [0.75, 0.0]]])
    assert_close(at_points(maps, points)[0, 0], torch.tensor([0.0, 1.5, 0.5, 0.0, 0.5]))


def test_a_cell_is_object_by_its_share():
    mask = torch.zeros(1, 4, 8)
    mask[0, :3, :2] = 1.0
    assert_close(on_grid(mask, (1, 2)), torch.tensor([[[6 / 16, 0.0]]]))


def test_autocast_leaves_losses_in_float32():
    segmented, (labels, masks) = predictions(dtype=torch.bfloat16), objects(3, 2)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = SAMPLED(segmented, labels, masks, generator())
    outside = SAMPLED(segmented, labels, masks, generator())
    assert {loss.dtype for loss in vars(under_autocast).values()} == {torch.float32}
    assert torch.equal(terms(under_autocast), terms(outside))


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_masks_are_bool_or_float(dtype):
    segmented, (labels, masks) = predictions(), objects(3, 2, dtype=dtype)
    expected = EXACT(segmented, labels, [mask.bool() for mask in masks])
    assert EXACT(segmented, labels, masks).total == expected.total


@pytest.mark.without_shape_checks
def test_targets_that_do_not_fit_are_named():
    segmented, (labels, masks) = predictions(), objects(3, 2)
    with pytest.raises(ValueError, match="2 images need labels and masks each, got 1 and 2"):
        EXACT(segmented, labels[:1], masks)
    with pytest.raises(ValueError, match=r"image 1: .* n = 2 labels, got \(1, 24, 32\)"):
        EXACT(segmented, labels, [masks[0], masks[1][:1]])
    with pytest.raises(ValueError, match=r"image 0: labels must be in 0 \.\. 2, got \[0, 3, 1\]"):
        EXACT(segmented, [torch.tensor([0, 3, 1]), labels[1]], masks)


@pytest.mark.parametrize(
    "option", [{"num_points": 0}, {"oversample_ratio": 0.5}, {"importance_ratio": 1.5}]
)
def test_options_that_draw_nothing_are_refused(option):
    (name,) = option
    with pytest.raises(ValueError, match=f"{name} must be .* got {option[name]}"):
        MaskCriterion(**option)
