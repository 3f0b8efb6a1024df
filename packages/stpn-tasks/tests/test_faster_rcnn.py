import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.ops import box_iou, roi_align

from stpn_data.batch import BoxTargets
from stpn_tasks.detection import FasterRCNN, convert_released_detector
from stpn_tasks.detection.roi_align import align_regions

CHANNELS, SIZES = (8, 12, 16, 20), (16, 8, 4, 2)
IMAGE = (64, 64)


def small_detector(channels=CHANNELS, strides=(4, 8, 16, 32), **settings):
    torch.manual_seed(0)
    detector = FasterRCNN(
        channels, 3, strides=strides, **{"fpn_channels": 16, "fc_dim": 32, **settings}
    )
    # Untrained heads say nearly the same of everything: spread them.
    for layer in (detector.roi_head.classifier, detector.roi_head.regressor):
        nn.init.normal_(layer.weight, std=0.5)
    nn.init.normal_(detector.rpn.head.cls_logits.weight, std=0.5)
    nn.init.normal_(detector.rpn.head.bbox_pred.weight, std=0.2)
    return detector


def random_features(batch, seed=1, channels=CHANNELS, sizes=SIZES):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, c, s, s, generator=generator)
        for c, s in zip(channels, sizes, strict=True)
    ]


def objects(*rows):
    boxes = torch.tensor([row[:4] for row in rows], dtype=torch.float32).reshape(-1, 4)
    return BoxTargets(boxes, torch.tensor([row[4] for row in rows], dtype=torch.int64))


TARGETS = [
    objects((4, 4, 36, 36, 0), (30, 20, 60, 62, 2)),
    objects((0, 10, 33, 40, 1)),
]
LOSSES = ("rpn_objectness", "rpn_box", "roi_classification", "roi_box")


def test_detections_are_ranked_inside_the_image_and_bounded_in_number():
    detector = small_detector(max_detections=20)
    sizes = [(60, 50), IMAGE]
    for found, (height, width) in zip(
        detector.detect(random_features(2), sizes), sizes, strict=True
    ):
        assert len(found.scores) == 20
        assert (found.scores.diff() <= 0).all()
        assert (found.scores > 1e-4).all()
        assert found.labels.dtype == torch.int64
        assert ((found.labels >= 0) & (found.labels < 3)).all()
        assert (found.boxes_xyxy >= 0).all()
        assert (found.boxes_xyxy[:, 2] <= width).all()
        assert (found.boxes_xyxy[:, 3] <= height).all()


def test_detections_of_a_batch_are_those_of_its_images():
    detector, features = small_detector(max_detections=20), random_features(3)
    sizes, factors = [IMAGE, (50, 64), (60, 33)], [(1.0, 1.0), (2.0, 0.5), (0.8, 0.7)]
    together = detector.detect(features, sizes, factors)
    for i, found in enumerate(together):
        alone = detector.detect([f[i : i + 1] for f in features], sizes[i : i + 1], [factors[i]])[0]
        torch.testing.assert_close(found.boxes_xyxy, alone.boxes_xyxy, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(found.scores, alone.scores)
        assert torch.equal(found.labels, alone.labels)


def test_scale_factors_are_height_then_width():
    detector, features = small_detector(), random_features(1)
    plain = detector.detect(features, [IMAGE])[0]
    scaled = detector.detect(features, [IMAGE], [(2.0, 0.5)])[0]
    torch.testing.assert_close(
        scaled.boxes_xyxy, plain.boxes_xyxy * torch.tensor([2, 0.5, 2, 0.5]), atol=1e-4, rtol=1e-5
    )


@pytest.fixture
def first_samples(monkeypatch):
    """Replace the random draw by the first of each kind."""

    def sample(assigned, num_samples, positive_fraction):
        positives = (assigned >= 0).nonzero()[:, 0][: int(num_samples * positive_fraction)]
        return positives, (assigned == -1).nonzero()[:, 0][: num_samples - len(positives)]

    for module in ("rpn", "roi_head"):
        monkeypatch.setattr(f"stpn_tasks.detection.{module}.sample_assignment", sample)


def test_losses_of_a_batch_are_the_mean_of_its_images(first_samples):
    detector, features = small_detector(rpn_samples=32, roi_samples=16), random_features(2)
    sizes = [IMAGE, (60, 40)]
    together = detector.loss(features, sizes, TARGETS)
    alone = [
        detector.loss([f[i : i + 1] for f in features], sizes[i : i + 1], TARGETS[i : i + 1])
        for i in range(2)
    ]
    for name in LOSSES:
        mean = (getattr(alone[0], name) + getattr(alone[1], name)) / 2
        assert mean > 0
        torch.testing.assert_close(getattr(together, name), mean)
    torch.testing.assert_close(together.total, sum(getattr(together, name) for name in LOSSES))


def test_anchors_on_the_padding_of_other_images_do_not_learn():
    detector, features = small_detector(), random_features(1)
    pyramid = detector.pyramid(features)
    predictions = detector.rpn(pyramid)
    boxes = torch.tensor([[4.0, 4.0, 30.0, 30.0]])
    assigned = detector.rpn.assign(predictions, boxes, (40, 24))
    fine = assigned[: 16 * 16 * 3].view(16, 16, 3)
    assert (fine[10:] == -2).all()
    assert (fine[:, 6:] == -2).all()
    assert (fine[:10, :6] != -2).any()


def test_learning_stays_inside_the_image_unless_told_otherwise(first_samples):
    detector, features = small_detector(rpn_samples=10_000), random_features(1)
    targets, size = TARGETS[1:], [(44, 40)]
    default = detector.loss(features, size, targets).rpn_objectness
    assert default == detector.loss(features, size, targets, size).rpn_objectness
    assert default != detector.loss(features, size, targets, [IMAGE]).rpn_objectness


def test_an_image_without_objects_counts_one_positive_anchor(first_samples):
    detector, features = small_detector(rpn_samples=32), random_features(1)
    logits = detector.rpn(detector.pyramid(features)).logits[0, :32]
    loss = detector.loss(features, [IMAGE], [objects()]).rpn_objectness
    torch.testing.assert_close(loss, nn.functional.softplus(logits).sum() / 33)


def test_images_without_objects_learn_background_only():
    detector = small_detector()
    features = [feature.requires_grad_() for feature in random_features(2)]
    losses = detector.loss(features, [IMAGE] * 2, [objects(), objects()])
    assert losses.rpn_box == 0
    assert losses.roi_box == 0
    assert losses.rpn_objectness > 0
    assert losses.roi_classification > 0
    losses.total.backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name  # as distributed training needs
        assert parameter.grad.isfinite().all(), name
    mixed = detector.loss(features, [IMAGE] * 2, [TARGETS[0], objects()])
    assert mixed.rpn_box > 0
    assert mixed.total.isfinite()


def test_no_proposal_at_all():
    detector = small_detector()
    nn.init.zeros_(detector.rpn.head.bbox_pred.weight)
    nn.init.constant_(detector.rpn.head.bbox_pred.bias, 100.0)  # every box beyond the image
    features = random_features(2)
    for found in detector.detect(features, [IMAGE] * 2):
        assert found.boxes_xyxy.shape == (0, 4)
        assert found.scores.shape == found.labels.shape == (0,)
    losses = detector.loss(features, [IMAGE] * 2, [TARGETS[0], objects()])
    assert losses.total.isfinite()  # the objects are the only regions
    losses = detector.loss(features, [IMAGE] * 2, [objects(), objects()])
    assert losses.roi_classification == 0


@pytest.mark.parametrize(
    ("channels", "strides", "sizes"),
    [((8,), (16,), (4,)), ((8, 12, 16), (4, 8, 16), (16, 8, 4)), (CHANNELS, (2, 4, 8, 16), SIZES)],
)
def test_any_number_of_levels(channels, strides, sizes):
    detector = small_detector(channels, strides)
    features = random_features(2, channels=channels, sizes=sizes)
    pyramid = detector.pyramid(features)
    assert len(pyramid) == len(channels) + 1
    assert detector.rpn.strides == (*strides, 2 * strides[-1])
    assert detector.loss(features, [IMAGE] * 2, TARGETS).total.isfinite()
    assert len(detector.detect(features, [IMAGE] * 2)) == 2


def test_regions_use_the_level_of_their_size():
    levels = small_detector().roi_head.levels
    sides = torch.tensor([1.0, 55.0, 111.0, 112.0, 223.0, 224.0, 447.0, 448.0, 5000.0])
    square = torch.stack((torch.zeros(9), torch.zeros(9), sides, sides), dim=1)
    assert levels(square).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert levels(torch.tensor([[0.0, 0.0, 56.0, 224.0]])).tolist() == [1]  # sqrt(56 * 224) = 112


def test_proposals_carry_no_gradient():
    detector = small_detector()
    losses = detector.loss(random_features(2), [IMAGE] * 2, TARGETS)
    (losses.roi_classification + losses.roi_box).backward()
    for parameter in detector.rpn.parameters():
        assert parameter.grad is None
    assert detector.fpn.inner_blocks[0][0].weight.grad.abs().sum() > 0


def test_only_the_box_of_the_right_class_learns(first_samples):
    detector = small_detector()
    targets = [objects((4, 4, 36, 36, 1))] * 2
    detector.loss(random_features(2), [IMAGE] * 2, targets).roi_box.backward()
    learned = detector.roi_head.regressor.bias.grad.view(3, 4).abs().sum(dim=1) > 0
    assert learned.tolist() == [False, True, False]


def test_initialisation_is_the_released_one():
    torch.manual_seed(0)
    detector = FasterRCNN((96, 192), 30, strides=(4, 8))
    for name, parameter in detector.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
    expected = {
        detector.rpn.head.conv[0][0]: 0.01,
        detector.rpn.head.cls_logits: 0.01,
        detector.rpn.head.bbox_pred: 0.01,
        detector.roi_head.classifier: 0.01,
        detector.roi_head.regressor: 0.001,
    }
    for layer, std in expected.items():
        assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
    bounds = {
        detector.fpn.inner_blocks[1][0]: math.sqrt(6 / (192 + 256)),
        detector.fpn.layer_blocks[0][0]: math.sqrt(6 / (9 * 256 + 9 * 256)),
        detector.roi_head.shared.fc6: math.sqrt(6 / (256 * 49 + 1024)),
        detector.roi_head.shared.fc7: math.sqrt(6 / 2048),
    }
    for layer, bound in bounds.items():
        assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.01)


def test_parameters_are_those_of_the_released_detector():
    detector = FasterRCNN((96, 192, 384, 768), 30)
    counts = [
        sum(p.numel() for p in module.parameters())
        for module in (detector.fpn, detector.rpn, detector.roi_head)
    ]
    assert counts == [2_729_984, 593_935, 14_050_455]


def test_losses_and_boxes_are_float32_under_autocast(first_samples):
    detector, features = small_detector(), random_features(2)
    exact = detector.loss(features, [IMAGE] * 2, TARGETS)
    with torch.autocast("cpu", torch.bfloat16):
        rough = detector.loss(features, [IMAGE] * 2, TARGETS)
        found = detector.detect(features, [IMAGE] * 2)[0]
    assert found.boxes_xyxy.dtype == found.scores.dtype == torch.float32
    for name in LOSSES:
        assert getattr(rough, name).dtype == torch.float32
    torch.testing.assert_close(rough.rpn_objectness, exact.rpn_objectness, rtol=0.05, atol=0)
    torch.testing.assert_close(rough.total, exact.total, rtol=0.3, atol=0)


def test_a_detector_in_bfloat16():
    detector = small_detector().bfloat16()
    features = [feature.bfloat16() for feature in random_features(2)]
    assert detector.detect(features, [IMAGE] * 2)[0].boxes_xyxy.dtype == torch.float32
    losses = detector.loss(features, [IMAGE] * 2, TARGETS)
    assert losses.total.dtype == torch.float32
    losses.total.backward()


def test_training_finds_the_objects():
    torch.manual_seed(0)
    detector = FasterRCNN(CHANNELS, 3, fpn_channels=16, fc_dim=32, roi_samples=64)
    features = random_features(2)
    optimizer = torch.optim.Adam(detector.parameters(), 5e-3)
    for _ in range(80):
        optimizer.zero_grad()
        detector.loss(features, [IMAGE] * 2, TARGETS).total.backward()
        optimizer.step()
    for found, target in zip(detector.detect(features, [IMAGE] * 2), TARGETS, strict=True):
        for box, label in zip(target.boxes_xyxy, target.labels, strict=True):
            best = (found.labels == label).nonzero()[0, 0]  # best first
            assert found.scores[best] > 0.5
            assert box_iou(found.boxes_xyxy[best][None], box[None]) > 0.6


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((5, 5, 5, 9, 0), "image 1: box"),
        ((5, 9, 8, 5, 0), "image 1: box"),
        ((5, 5, math.nan, 9, 0), "image 1: box .*nan"),
        ((5, 5, math.inf, 9, 0), "image 1: box .*inf"),
        ((5, 5, 8, 9, 3), "image 1: label 3"),
        ((5, 5, 8, 9, -1), "image 1: label -1"),
    ],
)
def test_wrong_targets_are_named(row, message):
    targets = [TARGETS[0], objects((0, 0, 9, 9, 1), row)]
    with pytest.raises(ValueError, match=message):
        small_detector().loss(random_features(2), [IMAGE] * 2, targets)


@pytest.mark.parametrize("name", ["image_sizes", "targets", "pad_sizes"])
def test_lists_have_one_entry_per_image(name):
    lists = {"image_sizes": [IMAGE] * 2, "targets": TARGETS, "pad_sizes": [IMAGE] * 2}
    lists[name] = lists[name][:1]
    with pytest.raises(ValueError, match=f"{name} has 1 entries for 2 images"):
        small_detector().loss(random_features(2), **lists)


def test_each_feature_map_has_a_stride():
    with pytest.raises(ValueError, match=r"\(8, 12\) and strides \(4, 8, 16, 32\)"):
        FasterRCNN((8, 12), 3)


def test_unknown_released_weights_are_named():
    weights = {"rpn_head.rpn_cls.weight": torch.zeros(1), "roi_head.mask_head.x": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"roi_head\.mask_head\.x"):
        convert_released_detector(weights)


@st.composite
def regions_of_a_map(draw):
    number = st.floats(-20, 140)
    counts = draw(st.lists(st.integers(0, 4), min_size=2, max_size=2))
    rows = []
    for image, count in enumerate(counts):
        for _ in range(count):
            x, y, w, h = draw(number), draw(number), draw(st.floats(0, 90)), draw(st.floats(0, 90))
            rows.append([image, x, y, x + w, y + h])
    return torch.tensor(rows).reshape(-1, 5)


@settings(max_examples=50)
@given(regions_of_a_map())
def test_aligning_by_products_is_roi_align(regions):
    """Also for regions that leave the map, and without any."""
    # The number of samples jumps where a region crosses a multiple of the bins.
    sides = (regions[:, 3:] - regions[:, 1:3]) / 8 / 7
    regions = regions[((sides - sides.round()).abs() > 1e-5).all(dim=1)]
    feature = torch.randn(2, 3, 12, 15, generator=torch.Generator().manual_seed(0))
    outputs, gradients = [], []
    for align in (
        lambda f: align_regions(f, regions, 7, 1 / 8),
        lambda f: roi_align(f, regions, 7, 1 / 8, sampling_ratio=0, aligned=True),
    ):
        leaf = feature.clone().requires_grad_()
        output = align(leaf)
        weight = torch.arange(output.numel()).view(output.shape).cos()
        gradients.append(torch.autograd.grad((output * weight).sum(), leaf)[0])
        outputs.append(output.detach())
    torch.testing.assert_close(*outputs, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(*gradients, atol=2e-4, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_detections_and_losses_agree_between_devices(first_samples):
    detector, features = small_detector(), random_features(2)
    found = detector.detect(features, [IMAGE] * 2)
    losses = detector.loss(features, [IMAGE] * 2, TARGETS)
    detector.cuda()
    features = [feature.cuda() for feature in features]
    targets = [BoxTargets(t.boxes_xyxy.cuda(), t.labels.cuda()) for t in TARGETS]
    for ours, theirs in zip(found, detector.detect(features, [IMAGE] * 2), strict=True):
        torch.testing.assert_close(ours.boxes_xyxy, theirs.boxes_xyxy.cpu(), atol=0.1, rtol=1e-2)
    for name in LOSSES:
        torch.testing.assert_close(
            getattr(losses, name),
            getattr(detector.loss(features, [IMAGE] * 2, targets), name).cpu(),
            rtol=1e-2,
            atol=1e-3,
        )
