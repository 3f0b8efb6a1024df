import math

import pytest
import torch
from torch.testing import assert_close

from stpn_tasks.tracking.corner_head import expected_boxes
from stpn_tasks.tracking.losses import box_losses, complete_iou, iou, place_loss, score_losses


def boxes(*rows, dtype=torch.float32):
    return torch.tensor(rows, dtype=dtype)


def test_numbers_that_can_be_checked_by_hand():
    ours = boxes([0.0, 0.0, 0.4, 0.4], [0.0, 0.0, 0.2, 0.2], [0.0, 0.0, 0.4, 0.3])
    true = boxes([0.0, 0.0, 0.4, 0.4], [0.6, 0.6, 0.8, 0.8], [0.0, 0.0, 0.4, 0.4])
    assert_close(iou(ours, true), torch.tensor([1.0, 0.0, 0.75]))
    v = 4 / math.pi**2 * (math.atan(1) - math.atan(4 / 3)) ** 2
    last = 0.75 - 0.05**2 / 0.32 - v / (0.25 + v) * v
    assert_close(complete_iou(ours, true), torch.tensor([1.0, -(0.72 / 1.28), last]))


def test_losses_are_weighted_means_and_the_truth_is_cut_to_the_crop():
    predicted = boxes([0.5, 0.5, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5])
    targets = boxes([-0.5, -3.0, 1.5, 7.0], [0.25, 0.25, 0.75, 0.65])
    losses = box_losses(predicted, targets)
    assert_close(losses.l1, torch.tensor(5 * 0.1 / 8))
    own = complete_iou(boxes([0.25, 0.25, 0.75, 0.75]), targets[1:])
    assert_close(losses.ciou, 2 * (1 - own).sum() / 2)
    assert_close(losses.total, losses.l1 + losses.ciou)


DEGENERATE = [
    [0.0, 0.0, 0.0, 0.0],
    [0.5, 0.5, 0.5, 0.5],
    [0.2, 0.2, 0.2, 0.9],
    [0.7, 0.6, 0.3, 0.2],  # its corners are swapped
    [0.7, 0.2, 0.3, 0.6],
    [0.1, 0.1, 0.1 + 1e-6, 0.1 + 1e-6],
    [0.2, 0.2, 0.6, 0.6],
]


def test_no_box_divides_by_zero():
    pairs = [(one, other) for one in DEGENERATE for other in DEGENERATE]
    ours = boxes(*[one for one, _ in pairs]).requires_grad_()
    true = boxes(*[other for _, other in pairs])
    values = complete_iou(ours, true)
    assert values.isfinite().all()
    assert (values.abs() <= 1).all()
    values.sum().backward()
    assert ours.grad.isfinite().all()


def test_swapped_corners_are_pulled_towards_the_truth():
    predicted = boxes([0.2, 0.2, -0.1, -0.1], [0.8, 0.8, 0.0, 0.0]).requires_grad_()
    losses = box_losses(predicted, boxes([0.4, 0.4, 0.6, 0.6], [0.4, 0.4, 0.6, 0.6]))
    losses.total.backward()
    assert (predicted.grad[0] < 0).all()  # to the right, down, and larger
    assert (predicted.grad[1, :2] > 0).all()
    assert (predicted.grad[1, 2:] < 0).all()


def test_gradients():
    generator = torch.Generator().manual_seed(0)
    centres = 0.3 + 0.4 * torch.rand(6, 2, generator=generator, dtype=torch.float64)
    sizes = 0.1 + 0.3 * torch.rand(6, 2, generator=generator, dtype=torch.float64)
    predicted = torch.cat([centres, sizes], 1).requires_grad_()
    true = torch.cat([centres - sizes / 2, centres + sizes / 2], 1)
    # Far from an IoU of 0.5: alpha, a constant to the gradient, is 0 there.
    far = true + 0.5 * sizes.repeat(1, 2)
    assert (iou(true, far) < 0.4).all()
    assert torch.autograd.gradcheck(lambda p: box_losses(p, far).total, predicted)


def test_no_gradient_goes_through_the_weight_of_the_aspect():
    # Inside the true box, so that the diagonal of the box around both is a constant.
    ours = boxes([0.12, 0.15, 0.48, 0.42], dtype=torch.float64).requires_grad_()
    true = boxes([0.1, 0.1, 0.5, 0.5], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(complete_iou(ours, true).sum(), ours)
    overlap = iou(ours, true).item()
    assert overlap > 0.5
    v = 4 / math.pi**2 * (math.atan(1) - math.atan(0.36 / 0.27)) ** 2
    alpha = v / (1 - overlap + v)

    def with_constant_weight(box):
        centres = ((box[:, :2] + box[:, 2:] - true[:, :2] - true[:, 2:]) / 2).square().sum()
        turn = math.atan(1) - torch.atan((box[0, 2] - box[0, 0]) / (box[0, 3] - box[0, 1]))
        return iou(box, true)[0] - centres / 0.32 - alpha * 4 / math.pi**2 * turn**2

    (expected,) = torch.autograd.grad(with_constant_weight(ours), ours)
    assert_close(gradient, expected, atol=1e-9, rtol=1e-6)


def test_scores_are_logits():
    losses = score_losses(torch.tensor([0.0, 2.0]), torch.tensor([True, False]))
    expected = (math.log(2) + math.log(1 + math.exp(2))) / 2
    assert losses.score.item() == pytest.approx(expected)
    assert losses.total is losses.score


def test_the_place_loss_is_least_where_the_expected_box_is_the_true_one():
    targets = torch.tensor([[0.2, 0.3, 0.55, 0.8], [0.0, 0.1, 0.7, 0.85]])
    logits = torch.zeros(2, 2, 8, 8, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.3)
    for _ in range(300):
        optimiser.zero_grad()
        place_loss(logits, targets).backward()
        optimiser.step()
    assert_close(expected_boxes(logits.detach()), targets, atol=5e-3, rtol=0)


def test_the_place_loss_of_even_maps_is_the_logarithm_of_the_number_of_cells():
    loss = place_loss(torch.zeros(3, 2, 4, 6), torch.rand(3, 4))
    assert_close(loss, torch.tensor(24.0).log())


def test_the_place_loss_takes_a_corner_outside_the_crop_as_on_its_border():
    logits = torch.randn(1, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    outside, on_border = torch.tensor([[-0.4, 0.2, 1.3, 0.9]]), torch.tensor([[0.0, 0.2, 1.0, 0.9]])
    assert_close(place_loss(logits, outside), place_loss(logits, on_border))
