"""MinVIS' association: its permutations, from windows of any length, and the oracle's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stpn_kernels.testing import as_tensors, load_golden
from stpn_tasks.segmentation.association import Associator, mask_iou
from stpn_tasks.segmentation.oracle import oracle_permutations

CASES = [0, 1, 2, 3, 5, 7, 9]
OPTIONS = [{}, {"mask_weight": 0.7}, {"momentum": 0.6}, {"mask_weight": 1.0, "momentum": 0.3}]


def random_frames(seed, num_frames=7, num_queries=6):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(num_frames, num_queries, 5, generator=generator)
    return embeddings, torch.randn(num_frames, num_queries, 4, 6, generator=generator)


@pytest.mark.parametrize("case", CASES)
def test_permutations_are_those_of_minvis(case):
    golden = as_tensors(load_golden(f"minvis_association/case_{case}.npz"))
    torch.testing.assert_close(Associator().push(golden["embds"]), golden["perms"])


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    cuts=st.sets(st.integers(1, 6)),
    options=st.sampled_from(OPTIONS),
)
def test_windows_and_frames_give_the_permutations_of_the_whole_video(seed, cuts, options):
    embeddings, masks = random_frames(seed)
    whole = Associator(**options).push(embeddings, masks)
    ends = sorted(cuts)
    in_windows = Associator(**options)
    windows = [
        in_windows.push(e, m)
        for e, m in zip(embeddings.tensor_split(ends), masks.tensor_split(ends), strict=True)
    ]
    assert torch.equal(torch.cat(windows), whole)
    stream = Associator(**options)
    frames = [stream.push(embeddings[t : t + 1], masks[t : t + 1]) for t in range(7)]
    assert torch.equal(torch.cat(frames), whole)
    assert torch.equal(whole.sort(dim=1).values, torch.arange(6).expand(7, 6))


def test_queries_that_are_shuffled_are_put_back_where_they_came_from():
    generator = torch.Generator().manual_seed(0)
    objects = torch.randn(6, 16, generator=generator)
    orders = [torch.randperm(6, generator=generator) for _ in range(5)]
    frames = torch.stack([objects[order] for order in orders])
    frames += 0.05 * torch.randn(frames.shape, generator=generator)
    for frame, permutation in zip(orders, Associator().push(frames), strict=True):
        assert torch.equal(frame[permutation], orders[0])


def test_masks_tell_tracks_apart_whose_embeddings_are_alike():
    embeddings = torch.ones(2, 2, 3)
    masks = torch.full((2, 2, 4, 4), -1.0)
    masks[0, 0, :2], masks[0, 1, 2:] = 1, 1
    masks[1] = masks[0].flip(0)
    plain = Associator().push(embeddings, masks)
    with_masks = Associator(mask_weight=1.0).push(embeddings, masks)
    assert plain[1].tolist() == [0, 1]
    assert with_masks[1].tolist() == [1, 0]


def test_momentum_remembers_a_track_through_frames_that_tell_little():
    first, second, blur, noise = torch.eye(4)
    frames = torch.stack(
        [
            torch.stack([first, second]),
            torch.stack([blur + 0.1 * first + 0.3 * noise, blur + 0.1 * second - 0.3 * noise]),
            torch.stack([blur + 0.1 * first - 0.3 * noise, blur + 0.1 * second + 0.3 * noise]),
            torch.stack([first, second]),
        ]
    )
    assert Associator().push(frames)[3].tolist() == [1, 0]
    assert Associator(momentum=0.9).push(frames)[3].tolist() == [0, 1]


def test_costs_are_float32_whatever_the_embeddings_are():
    embeddings, _ = random_frames(0)
    half = embeddings.to(torch.bfloat16)
    assert torch.equal(Associator().push(half), Associator().push(half.float()))
    masks = torch.randn(7, 6, 40, 40, generator=torch.Generator().manual_seed(0)).cumsum(2)
    expected = Associator(mask_weight=3.0).push(embeddings, masks)
    iou = mask_iou(masks[0] > 0, masks[1] > 0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Associator(mask_weight=3.0).push(embeddings, masks), expected)
        assert torch.equal(mask_iou(masks[0] > 0, masks[1] > 0), iou)


def test_an_embedding_of_zeros_is_like_no_other():
    frames = torch.zeros(2, 3, 4)
    frames[:, 1:] = torch.eye(4)[:2]
    assert Associator().push(frames)[1].tolist() == [0, 1, 2]


@pytest.mark.without_shape_checks
def test_what_is_wrong_is_named():
    embeddings, masks = random_frames(0)
    broken = embeddings.clone()
    broken[4, 2, 1] = float("nan")
    associator = Associator()
    associator.push(broken[:3])
    with pytest.raises(ValueError, match="embedding of frame 4 is not finite"):
        associator.push(broken[3:])
    associator = Associator()
    associator.push(embeddings)
    with pytest.raises(ValueError, match=r"frame 7 are \(5, 5\), .* \(6, 5\)"):
        associator.push(embeddings[:, :5])
    with pytest.raises(ValueError, match="needs masks"):
        Associator(mask_weight=1).push(embeddings)
    for wrong in (
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"mask_weight": -1.0},
        {"mask_weight": np.inf},
    ):
        with pytest.raises(ValueError, match="expected"):
            Associator(**wrong)
    with pytest.raises(ValueError, match="as many queries as objects"):
        oracle_permutations(masks[:, :1], masks[:, :2] > 0, torch.ones(masks.shape[0], 1))


@pytest.mark.without_shape_checks
def test_masks_that_are_needed_are_finite():
    embeddings, masks = random_frames(0)
    masks[4, 2, 1, 1] = float("nan")
    assert len(Associator().push(embeddings, masks)) == 7
    associator = Associator(mask_weight=1.0)
    associator.push(embeddings[:3], masks[:3])
    with pytest.raises(ValueError, match="a mask logit of frame 4 is not finite"):
        associator.push(embeddings[3:], masks[3:])


def test_the_oracle_follows_objects_through_shuffled_queries():
    generator = torch.Generator().manual_seed(1)
    objects = torch.zeros(4, 2, 6, 6, dtype=torch.bool)
    objects[:, 0, :3, :3], objects[:2, 1, 3:, 3:] = True, True  # the second leaves
    masks = torch.full((4, 3, 6, 6), -1.0)
    masks[:, 0][objects[:, 0]], masks[:, 1][objects[:, 1]] = 1, 1
    masks[:, 2, :, 5] = 1  # of nothing
    shuffled = [torch.randperm(3, generator=generator) for _ in range(4)]
    masks = torch.stack([m[order] for m, order in zip(masks, shuffled, strict=True)])
    orders = oracle_permutations(masks, objects, torch.ones(4, 3))
    found = np.array([s[o].tolist() for s, o in zip(shuffled, orders, strict=True)])
    assert (found == [0, 1, 2]).all()


def test_the_oracle_takes_the_query_that_claims_the_object_of_two_that_see_it():
    objects = torch.zeros(1, 1, 6, 6, dtype=torch.bool)
    objects[0, 0, :3, :3] = True
    masks = torch.where(objects.expand(1, 2, 6, 6), 1.0, -1.0)
    masks[0, 1, 2, 2] = -1.0  # the second sees it a little worse
    orders = oracle_permutations(masks, objects, torch.tensor([[0.1, 0.9]]))
    assert orders.tolist() == [[1, 0]]
