import pytest
import torch

from stpn_core import (
    MixerPredictor,
    StaticPrompts,
    TransformerPredictor,
    VideoEncoder,
    check_images,
)


@pytest.fixture
def encoder(backbone):
    return VideoEncoder(backbone, TransformerPredictor.for_backbone(backbone, 3)).eval()


def test_features_depend_on_the_support_frames(encoder):
    frame, support = torch.randn(2, 3, 16, 24), torch.randn(2, 4, 3, 16, 24)
    (features,) = encoder(frame, support)
    assert features.shape == (2, 16, 2, 3)
    assert not torch.allclose(features, encoder(frame, support.flip(0))[0])


def test_batch_equals_one_by_one(encoder):
    frame, support = torch.randn(3, 3, 16, 24), torch.randn(3, 4, 3, 24, 16)
    single = [encoder(frame[i : i + 1], support[i : i + 1])[0] for i in range(3)]
    torch.testing.assert_close(encoder(frame, support)[0], torch.cat(single))


def test_no_support_means_the_plain_backbone(encoder, backbone):
    frame = torch.randn(2, 3, 16, 24)
    assert torch.equal(encoder(frame, None)[0], backbone(frame)[0])


@pytest.mark.parametrize("support_grad", [False, True])
def test_gradient_through_the_support_pass_is_an_option(backbone, support_grad):
    predictor = TransformerPredictor.for_backbone(backbone, 3)
    encoder = VideoEncoder(backbone, predictor, support_grad=support_grad)
    support = torch.randn(1, 2, 3, 16, 16, requires_grad=True)
    (features,) = encoder(torch.randn(1, 3, 16, 16), support)
    features[:, 0].sum().backward()  # all channels of a normalised token sum to a constant
    assert (support.grad is not None) == support_grad
    assert predictor.reduction.weight.grad.abs().sum() > 0


def test_deep_prompts_replace_those_of_every_layer(backbone):
    encoder = VideoEncoder(backbone, MixerPredictor.for_backbone(backbone, 3, deep=True)).eval()
    prompts = encoder.prompts(torch.randn(2, 4, 3, 16, 24))
    assert [tuple(p.shape) for p in prompts] == [(2, 3, 16)] * 2
    frame = torch.randn(2, 3, 16, 24)
    changed = [prompts[0], prompts[1] + 1]
    assert not torch.allclose(backbone(frame, prompts)[0], backbone(frame, changed)[0])


@pytest.mark.parametrize(
    ("frame", "support", "error", "message"),
    [
        (
            torch.zeros(3, 8, 8),
            torch.zeros(1, 2, 3, 8, 8),
            ValueError,
            r"frame must be \(B, 3, H, W\)",
        ),
        (
            torch.zeros(1, 4, 8, 8),
            torch.zeros(1, 2, 3, 8, 8),
            ValueError,
            r"got shape \(1, 4, 8, 8\)",
        ),
        (
            torch.zeros(1, 3, 8, 8),
            torch.zeros(2, 3, 8, 8),
            ValueError,
            r"support must be \(B, K, 3",
        ),
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 0, 3, 8, 8), ValueError, "no support frames"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(2, 2, 3, 8, 8), ValueError, "support has 2 clips"),
        (torch.zeros(1, 3, 0, 8), torch.zeros(1, 2, 3, 8, 8), ValueError, "frame is empty"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), None, TypeError, "got torch.uint8"),
        (torch.full((1, 3, 8, 8), torch.nan), None, ValueError, "frame has NaN"),
        (
            torch.zeros(1, 3, 8, 8),
            torch.full((1, 1, 3, 8, 8), torch.inf),
            ValueError,
            "support has NaN",
        ),
    ],
)
@pytest.mark.without_shape_checks
def test_bad_input_is_named(encoder, frame, support, error, message):
    with pytest.raises(error, match=message):
        encoder(frame, support)


def test_huge_pixels_are_not_taken_for_infinite():
    check_images(torch.full((1, 3, 16, 16), 1e38), "frame", 4)


def test_widths_of_another_backbone_are_refused(backbone):
    with pytest.raises(ValueError, match="tokens of width 8, the backbone gives 16"):
        VideoEncoder(backbone, TransformerPredictor(8, (16,), 2, num_heads=2))
    with pytest.raises(ValueError, match=r"widths \(32,\); the backbone takes \(16,\)"):
        VideoEncoder(backbone, TransformerPredictor(16, (32,), 2))


def test_an_encoder_without_predictor_takes_no_support(backbone):
    with pytest.raises(ValueError, match="no predictor"):
        VideoEncoder(backbone, None)(torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 3, 16, 16))


@pytest.mark.parametrize("deep", [False, True])
def test_static_prompts_need_no_support_and_are_the_same_for_every_clip(backbone, deep):
    static = StaticPrompts.for_backbone(backbone, 3, deep=deep)
    encoder = VideoEncoder(backbone, static).eval()
    assert not encoder.takes_support
    prompts = static(2)
    assert [tuple(p.shape) for p in prompts] == [(2, 3, 16)] * (2 if deep else 1)
    assert all(torch.equal(p[0], p[1]) for p in prompts)
    frame = torch.randn(2, 3, 16, 24)
    features = encoder(frame, None)[0]
    torch.testing.assert_close(features, backbone(frame, prompts)[0])
    assert not torch.allclose(features, backbone(frame)[0])
    streamed = encoder.stream(None).push(frame)[0].features[0]
    torch.testing.assert_close(streamed, features)
    features[:, 0].sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in static.prompts)


def test_static_prompts_refuse_support_and_widths_of_another_backbone(backbone):
    encoder = VideoEncoder(backbone, StaticPrompts.for_backbone(backbone, 3))
    with pytest.raises(ValueError, match="takes no support frames"):
        encoder(torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 3, 16, 16))
    with pytest.raises(ValueError, match=r"widths \(32,\); the backbone takes \(16,\)"):
        VideoEncoder(backbone, StaticPrompts((32,), 2))
    with pytest.raises(ValueError, match="must be positive, got 0"):
        StaticPrompts((16,), 0)


@pytest.mark.parametrize("features_grad", [False, True])
@pytest.mark.parametrize("support_grad", [False, True])
def test_one_pass_gives_embeddings_and_maps_each_with_its_own_gradient(
    backbone, support_grad, features_grad
):
    predictor = MixerPredictor.for_backbone(backbone, 3)
    encoder = VideoEncoder(backbone, predictor, support_grad=support_grad)
    images = torch.randn(2, 3, 16, 24, requires_grad=True)
    embeddings, (maps,) = encoder.embed_with_features(images, features_grad=features_grad)
    torch.testing.assert_close(embeddings, encoder.embed(images))
    torch.testing.assert_close(maps, backbone(images)[0])
    for output, has_gradient in ((embeddings, support_grad), (maps, features_grad)):
        assert output.requires_grad == has_gradient
        if has_gradient:
            assert torch.autograd.grad(output.square().sum(), images, retain_graph=True)[0].any()


def test_maps_without_a_predictor_come_without_embeddings(backbone):
    embeddings, maps = VideoEncoder(backbone, None).embed_with_features(torch.randn(1, 3, 16, 16))
    assert embeddings is None
    assert maps[0].shape == (1, 16, 2, 2)
