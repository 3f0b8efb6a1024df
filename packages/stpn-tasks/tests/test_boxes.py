import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stpn_kernels.testing import as_tensors, load_golden
from stpn_tasks.detection.anchors import anchors_inside, cell_anchors, grid_anchors
from stpn_tasks.detection.boxes import clip_boxes, decode_boxes, encode_boxes, has_area
from stpn_tasks.detection.matching import (
    BACKGROUND,
    IGNORED,
    assign_objects,
    sample_assignment,
)

BOX_CODER_STDS = {"rpn": 1.0, "rcnn": 0.2}


@pytest.mark.parametrize("name", BOX_CODER_STDS)
def test_deltas_are_those_of_the_released_box_coder(name):
    golden, std = as_tensors(load_golden("detector/box_coder.npz")), BOX_CODER_STDS[name]
    boxes, deltas = golden["boxes"], golden["deltas"]
    encoded = encode_boxes(boxes, golden["gt"], std)
    torch.testing.assert_close(encoded, golden[f"enc_{name}"], atol=1e-4, rtol=0)
    decoded = decode_boxes(boxes, golden[f"enc_{name}"], std)
    torch.testing.assert_close(decoded, golden[f"dec_{name}"], atol=1e-4, rtol=0)
    far = decode_boxes(boxes, deltas, std)
    torch.testing.assert_close(far, golden[f"dec_big_noclip_{name}"], atol=1e-4, rtol=1e-6)
    clipped = clip_boxes(far, (240, 300))
    torch.testing.assert_close(clipped, golden[f"dec_big_clip_{name}"], atol=1e-4, rtol=0)


def test_deltas_by_hand():
    box = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    target = torch.tensor([[5.0, 10.0, 25.0, 30.0]])  # centre (15, 20), size (20, 20)
    expected = torch.tensor([[1.0, 0.5, math.log(2), 0.0]])
    torch.testing.assert_close(encode_boxes(box, target), expected)
    torch.testing.assert_close(encode_boxes(box, target, std=0.2), expected * 5)


def test_growth_is_clamped_on_both_sides():
    box = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    grown = decode_boxes(box, torch.tensor([[0.0, 0.0, 50.0, -50.0]]))
    size = grown[0, 2:] - grown[0, :2]
    torch.testing.assert_close(size, torch.tensor([1000.0, 16 * 16 / 1000]))


@st.composite
def boxes_pairs(draw):
    count = draw(st.integers(1, 8))
    side = st.floats(2, 100)
    corner = st.floats(-50, 200)

    def boxes():
        rows = [[draw(corner), draw(corner), draw(side), draw(side)] for _ in range(count)]
        xywh = torch.tensor(rows)
        return torch.cat((xywh[:, :2], xywh[:, :2] + xywh[:, 2:]), dim=1)

    return boxes(), boxes()


@given(boxes_pairs(), st.sampled_from([0.1, 0.2, 1.0]))
def test_decoding_inverts_encoding(pair, std):
    boxes, targets = pair
    restored = decode_boxes(boxes, encode_boxes(boxes, targets, std), std)
    torch.testing.assert_close(restored, targets, atol=1e-3, rtol=1e-4)


def test_boxes_broadcast_over_classes():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 9.0, 25.0]])
    deltas = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    together = decode_boxes(boxes[:, None], deltas)
    for i in range(3):
        torch.testing.assert_close(together[:, i], decode_boxes(boxes, deltas[:, i]))


def test_decoding_half_precision_deltas_is_done_in_float32():
    box = torch.tensor([[1000.0, 1000.0, 1010.0, 1010.0]])
    moved = decode_boxes(box, torch.tensor([[0.125, 0.0, 0.0, 0.0]], dtype=torch.bfloat16))
    assert moved.dtype == torch.float32
    torch.testing.assert_close(moved, box + torch.tensor([1.25, 0, 1.25, 0]))


def test_clipping_takes_height_first_and_leaves_no_area_outside():
    boxes = torch.tensor([[-5.0, -5.0, 400.0, 400.0], [210.0, 10.0, 220.0, 20.0]])
    clipped = clip_boxes(boxes, (100, 200))
    torch.testing.assert_close(clipped[0], torch.tensor([0.0, 0.0, 200.0, 100.0]))
    assert has_area(clipped).tolist() == [True, False]


def test_anchors_by_hand():
    # stride 4, scale 8: a square of 32; ratio 4 = height / width: 16 wide, 64 high.
    expected = torch.tensor([[-16.0, -16.0, 16.0, 16.0], [-8.0, -32.0, 8.0, 32.0]])
    torch.testing.assert_close(cell_anchors(4, 8.0, (1.0, 4.0)), expected)
    grid = grid_anchors([(2, 3), (1, 1)], (4, 8), 8.0, (1.0, 4.0), torch.device("cpu"))
    assert grid.shape == (2 * 3 * 2 + 2, 4)
    torch.testing.assert_close(grid[:2], expected)
    torch.testing.assert_close(grid[2:4], expected + torch.tensor([4.0, 0, 4, 0]))  # x is inner
    torch.testing.assert_close(grid[6:8], expected + torch.tensor([0, 4.0, 0, 4]))
    torch.testing.assert_close(grid[12:], expected * 2)


def test_anchors_inside_counts_cells_that_begin_before_the_edge():
    inside = anchors_inside([(4, 4), (2, 2)], (4, 8), 1, (9, 8), torch.device("cpu"))
    fine, coarse = inside[:16].view(4, 4), inside[16:].view(2, 2)
    assert fine.nonzero().amax(0).tolist() == [2, 1]  # rows 0, 4, 8; columns 0, 4
    assert fine.sum() == 6
    assert coarse.tolist() == [[True, False], [True, False]]


def test_assignment_by_hand():
    ious = torch.tensor(
        [
            [0.8, 0.5, 0.2, 0.1, 0.0],
            [0.1, 0.6, 0.1, 0.6, 0.0],  # best 0.6, tied: claims boxes 1 and 3
            [0.0, 0.6, 0.2, 0.0, 0.25],  # best 0.6: claims box 1, and comes later
        ]
    )
    assert assign_objects(ious, 0.7, 0.3, 0.3).tolist() == [0, 2, BACKGROUND, 1, BACKGROUND]
    # Objects 1 and 2 claim nothing below 0.65.
    assert assign_objects(ious, 0.7, 0.3, 0.65).tolist() == [0, IGNORED, -1, IGNORED, -1]


def test_no_object_and_no_box():
    assert assign_objects(torch.empty(0, 3), 0.7, 0.3, 0.3).tolist() == [BACKGROUND] * 3
    assert assign_objects(torch.empty(2, 0), 0.7, 0.3, 0.3).shape == (0,)


@given(st.integers(0, 5), st.integers(1, 40), st.integers(0, 2**31))
def test_assignment_agrees_with_its_rule_box_by_box(num_objects, num_boxes, seed):
    generator = torch.Generator().manual_seed(seed)
    ious = torch.randint(0, 11, (num_objects, num_boxes), generator=generator) / 10  # many ties
    high, low = torch.tensor([0.7, 0.3]).tolist()  # as float32 holds them
    expected = []
    for n in range(num_boxes):
        column = ious[:, n].tolist()
        best = max(column, default=0.0)
        value = BACKGROUND if best < low else column.index(best) if best >= high else IGNORED
        for g, iou in enumerate(column):
            if iou == ious[g].max().item() and iou >= low:
                value = g
        expected.append(value)
    assert assign_objects(ious, high, low, low).tolist() == expected


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.sampled_from([0.25, 0.5]))
def test_samples_are_distinct_and_counted(num_positive, num_background, num_samples, fraction):
    assigned = torch.tensor([0] * num_positive + [BACKGROUND] * num_background + [IGNORED] * 3)
    assigned = assigned[torch.randperm(len(assigned))]
    positive, background = sample_assignment(assigned, num_samples, fraction)
    assert len(positive) == min(num_positive, int(num_samples * fraction))
    assert len(background) == min(num_background, num_samples - len(positive))
    assert (assigned[positive] == 0).all()
    assert (assigned[background] == BACKGROUND).all()
    for indices in (positive, background):
        assert (indices.diff() > 0).all()


def test_samples_follow_the_global_generator():
    assigned = torch.zeros(1000, dtype=torch.int64)
    torch.manual_seed(0)
    first, second = (sample_assignment(assigned, 100, 0.5)[0] for _ in range(2))
    torch.manual_seed(0)
    again = sample_assignment(assigned, 100, 0.5)[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
