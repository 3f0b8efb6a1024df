import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from stpn_data.batch import BoxTargets
from stpn_tasks.detection import FasterRCNN, SelsaRCNN, convert_released_detector
from stpn_tasks.detection.selsa import References, SelsaAggregator

CHANNELS, SIZES, IMAGE = (8, 12, 16, 20), (16, 8, 4, 2), (64, 64)
LOSSES = ("rpn_objectness", "rpn_box", "roi_classification", "roi_box")
TARGETS = [
    BoxTargets(torch.tensor([[4.0, 4, 36, 36], [30, 20, 60, 62]]), torch.tensor([0, 2])),
    BoxTargets(torch.tensor([[0.0, 10, 33, 40]]), torch.tensor([1])),
]


def small_detector(**settings):
    """Return a detector whose random heads tell regions apart."""
    torch.manual_seed(0)
    settings = {"fpn_channels": 16, "fc_dim": 32, "num_heads": 4, "num_proposals": 20, **settings}
    detector = SelsaRCNN(CHANNELS, 3, **settings)
    for layer in (detector.roi_head.classifier, detector.roi_head.regressor):
        nn.init.normal_(layer.weight, std=0.5)
    nn.init.normal_(detector.rpn.head.cls_logits.weight, std=0.5)
    nn.init.normal_(detector.rpn.head.bbox_pred.weight, std=0.2)
    return detector


def propose_nothing(detector):
    nn.init.zeros_(detector.rpn.head.bbox_pred.weight)
    nn.init.constant_(detector.rpn.head.bbox_pred.bias, 100.0)  # every box beyond the image


def random_features(batch, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, c, s, s, generator=generator)
        for c, s in zip(CHANNELS, SIZES, strict=True)
    ]


def random_references(detector, frames, seed=2):
    return detector.references(random_features(frames, seed), [IMAGE] * frames)


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert len(other.scores) > 5
        assert_close(one.boxes_xyxy, other.boxes_xyxy, atol=1e-3, rtol=1e-4)
        assert_close(one.scores, other.scores, atol=1e-5, rtol=1e-4)
        assert torch.equal(one.labels, other.labels)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5), st.integers(0, 9), st.sampled_from([1, 2, 8]), st.integers(0, 99))
def test_an_aggregator_is_multi_head_attention(n, m, num_heads, seed):
    """Also of no region and of no reference; then only the output's bias is left."""
    torch.manual_seed(seed)
    aggregator = SelsaAggregator(16, num_heads)
    x, r = torch.randn(n, 16), torch.randn(m, 16)
    output = aggregator(x, aggregator.key(r), aggregator.value(r))
    assert output.shape == (n, 16)
    if m == 0:
        assert_close(output, aggregator.output.bias.expand(n, 16))
        return
    query, key, value = (
        tokens.view(-1, num_heads, 16 // num_heads).transpose(0, 1)
        for tokens in (aggregator.query(x), aggregator.key(r), aggregator.value(r))
    )
    weights = (query @ key.mT / (16 // num_heads) ** 0.5).softmax(-1)
    assert_close(output, aggregator.output((weights @ value).transpose(0, 1).flatten(1)))


def test_with_one_reference_all_regions_hear_the_same():
    aggregator = SelsaAggregator(16, 4)
    keys, values = torch.randn(1, 16), torch.randn(1, 16)
    first, *others = aggregator(torch.randn(4, 16), keys, values)
    for other in others:
        assert_close(other, first)


def test_gradients_of_an_aggregator():
    torch.manual_seed(0)
    aggregator = SelsaAggregator(4, 2).double()
    x, r = (torch.randn(n, 4, dtype=torch.float64, requires_grad=True) for n in (3, 5))
    weights = [p.detach().requires_grad_() for p in aggregator.parameters()]
    names = [name for name, _ in aggregator.named_parameters()]

    def run(x, r, *weights):
        named = dict(zip(names, weights, strict=True))
        keys, values = (
            nn.functional.linear(r, named[f"{part}.weight"], named[f"{part}.bias"])
            for part in ("key", "value")
        )
        return torch.func.functional_call(aggregator, named, (x, keys, values))

    assert torch.autograd.gradcheck(run, (x, r, *weights))


def test_the_bias_of_keys_cancels():
    aggregator = SelsaAggregator(16, 4)
    x, values, keys = torch.randn(3, 16), torch.randn(5, 16), torch.randn(5, 16)
    assert_close(aggregator(x, keys, values), aggregator(x, keys + torch.randn(16), values))


def test_heads_share_out_the_width():
    with pytest.raises(ValueError, match="the width 32 cannot be shared out over 5 SELSA heads"):
        small_detector(num_heads=5)


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(4)), st.randoms(use_true_random=False))
def test_the_order_of_references_changes_nothing(order, random):
    """Neither of frames, nor of the regions of a frame."""
    detector, features = small_detector(), random_features(1)
    references = random_references(detector, 4)
    expected = detector.detect(features, [IMAGE], references=[references])
    found = detector.detect(features, [IMAGE], references=[[references[i] for i in order]])
    assert_same(found, expected)
    together = References.join(references)
    regions = list(range(len(together.keys[0])))
    random.shuffle(regions)
    mixed = References(
        tuple(keys[regions] for keys in together.keys),
        tuple(values[regions] for values in together.values),
    )
    assert_same(detector.detect(features, [IMAGE], references=[[mixed]]), expected)


def test_repeating_all_references_changes_nothing():
    detector = small_detector().roi_head
    pooled, support = torch.randn(5, 16, 7, 7), torch.randn(6, 16, 7, 7)
    (once,) = detector.project(support, [6])
    expected = detector.refine(pooled, [5], [once])
    assert_close(detector.refine(pooled, [5], [References.join([once] * 3)]), expected)


def test_references_matter():
    detector, features = small_detector(), random_features(1)
    one, other = (
        detector.detect(features, [IMAGE], references=[random_references(detector, 2, seed)])[0]
        for seed in (2, 3)
    )
    assert one.scores.shape != other.scores.shape or not torch.allclose(one.scores, other.scores)


def test_images_of_a_batch_are_detected_as_one_by_one():
    """Each with references of its own, and another number of them."""
    detector, features = small_detector(), random_features(3)
    references = random_references(detector, 4)
    groups, sizes = [references[:1], references[1:], []], [IMAGE, (50, 64), (60, 33)]
    together = detector.detect(features, sizes, references=groups)
    for i, found in enumerate(together):
        maps = [f[i : i + 1] for f in features]
        alone = detector.detect(maps, [sizes[i]], references=[groups[i]])
        assert_same([found], alone)


def test_references_of_a_batch_are_those_of_its_frames():
    detector, features = small_detector(), random_features(2)
    sizes = [IMAGE, (40, 50)]
    for i, reference in enumerate(detector.references(features, sizes)):
        (alone,) = detector.references([f[i : i + 1] for f in features], sizes[i : i + 1])
        for ours, expected in zip(reference.keys, alone.keys, strict=True):
            assert_close(ours, expected, atol=1e-5, rtol=1e-4)


def test_without_references_a_frame_looks_at_itself():
    detector, features = small_detector(), random_features(2)
    found = detector.detect(features, [IMAGE] * 2)
    assert_same(found, detector.detect(features, [IMAGE] * 2, references=[[], []]))


@pytest.mark.parametrize("support", ["some", "none"])
def test_no_proposal_on_the_current_frame(support):
    detector, features = small_detector(), random_features(2)
    references = [[one] for one in random_references(detector, 2)]
    propose_nothing(detector)
    if support == "none":
        references = [[one] for one in random_references(detector, 2)]
        assert references[0][0].keys[0].shape == (0, 32)
    for found in detector.detect(features, [IMAGE] * 2, references=references):
        assert found.boxes_xyxy.shape == (0, 4)
    empty = BoxTargets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    losses = detector.loss(features, [IMAGE] * 2, [TARGETS[0], empty], references=references)
    losses.total.backward()
    assert losses.total.isfinite()
    assert all(p.grad.isfinite().all() for p in detector.parameters() if p.grad is not None)
    losses = detector.loss(features, [IMAGE] * 2, [empty, empty], references=references)
    assert losses.roi_classification == 0


def test_no_proposal_on_a_support_frame():
    detector, features = small_detector(), random_features(1)
    (some,) = random_references(detector, 1)
    expected = detector.detect(features, [IMAGE], references=[[some]])
    nothing = References(
        tuple(keys[:0] for keys in some.keys), tuple(values[:0] for values in some.values)
    )
    assert_same(detector.detect(features, [IMAGE], references=[[nothing, some]]), expected)


def test_every_parameter_learns_but_the_bias_of_keys_which_says_nothing():
    detector = small_detector()
    references = [[one] for one in random_references(detector, 2)]
    losses = detector.loss(random_features(2), [IMAGE] * 2, TARGETS, references=references)
    losses.total.backward()
    for name, parameter in detector.named_parameters():
        if name.endswith("key.bias"):
            assert not parameter.requires_grad
        else:
            assert parameter.grad is not None, name  # as distributed training needs
            assert parameter.grad.isfinite().all(), name


def test_references_carry_gradient_into_their_features_and_none_into_proposals():
    detector, features = small_detector(), random_features(2, seed=2)
    for feature in features:
        feature.requires_grad_()
    references = [[one] for one in detector.references(features, [IMAGE] * 2)]
    losses = detector.loss(random_features(2), [IMAGE] * 2, TARGETS, references=references)
    (losses.roi_classification + losses.roi_box).backward()
    assert features[0].grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in detector.rpn.parameters())


def test_training_needs_references():
    detector, features = small_detector(), random_features(2)
    references = random_references(detector, 2)
    for wrong, message in (
        ((), "references has 0 entries for 2 images"),
        ([references, []], "an image has no references: SELSA learns from support frames"),
    ):
        with pytest.raises(ValueError, match=message):
            detector.loss(features, [IMAGE] * 2, TARGETS, references=wrong)
    with pytest.raises(ValueError, match="references has 1 entries for 2 images"):
        detector.detect(features, [IMAGE] * 2, references=[references])


def test_parameters_are_those_of_faster_rcnn_and_of_the_aggregators():
    detector, plain = (kind((96, 192, 384, 768), 30) for kind in (SelsaRCNN, FasterRCNN))
    names, plain_names = detector.state_dict().keys(), plain.state_dict().keys()
    assert plain_names < names
    assert all(name.startswith("roi_head.aggregators.") for name in names - plain_names)
    numbers = [sum(p.numel() for p in one.parameters()) for one in (detector, plain)]
    assert numbers[0] - numbers[1] == 8_396_800
    assert sum(p.numel() for p in detector.roi_head.parameters()) == 22_447_255


def test_released_names_of_aggregators():
    weights = {f"roi_head.bbox_head.aggregator.1.{n}.bias": torch.empty(0) for n in ("fc", "fc_x")}
    with pytest.raises(ValueError, match=r"aggregator\.1\.fc_x\.bias"):
        convert_released_detector(weights)


def test_losses_and_boxes_are_float32_under_autocast():
    detector, features = small_detector(), random_features(2)
    with torch.autocast("cpu", torch.bfloat16):
        references = [[one] for one in random_references(detector, 2)]
        losses = detector.loss(features, [IMAGE] * 2, TARGETS, references=references)
        found = detector.detect(features, [IMAGE] * 2, references=references)[0]
    assert all(getattr(losses, name).dtype == torch.float32 for name in LOSSES)
    assert found.boxes_xyxy.dtype == found.scores.dtype == torch.float32


def test_a_detector_in_bfloat16():
    detector = small_detector().bfloat16()
    maps = [feature.bfloat16() for feature in random_features(2)]
    references = [[one] for one in detector.references(maps, [IMAGE] * 2)]
    found = detector.detect(maps, [IMAGE] * 2, references=references)[0]
    assert found.boxes_xyxy.dtype == torch.float32
    detector.loss(maps, [IMAGE] * 2, TARGETS, references=references).total.backward()
