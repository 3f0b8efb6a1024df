"""A video encoder and the Mask2Former head together: prompts, streams, training."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from stpn_backbones import create_backbone
from stpn_core import StaticPrompts, TransformerPredictor, VideoEncoder
from stpn_data.batch import BoxTargets, ClipBatch
from stpn_data.sampling import CausalSampler, WindowSampler
from stpn_tasks.segmentation.head import Mask2FormerHead
from stpn_tasks.segmentation.losses import MaskCriterion
from stpn_tasks.segmentation.segmenter import MinVIS

K = 3


def swin(depths=(1, 1, 2, 1), dim=16):
    heads = tuple(2**i for i in range(len(depths)))
    return create_backbone(
        "swin_tiny_patch4_window7_224",
        embed_dim=dim,
        depths=depths,
        num_heads=heads,
        drop_path_rate=0.0,
    )


def minvis(predictor=True, depths=(1, 1, 2, 1), **options):
    torch.manual_seed(0)
    backbone = swin(depths)
    prompts = TransformerPredictor.for_backbone(backbone, num_prompts=3) if predictor else None
    head = Mask2FormerHead(
        backbone.out_channels,
        K,
        num_queries=5,
        dim=32,
        mask_dim=16,
        num_heads=4,
        encoder_layers=1,
        encoder_ffn_dim=24,
        decoder_layers=2,
        decoder_ffn_dim=40,
    )
    model = MinVIS(VideoEncoder(backbone, prompts), head, MaskCriterion(num_points=64, **options))
    with torch.no_grad():  # weights of 0.02 would hide what is compared
        for module in backbone.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(std=module.in_features**-0.5)
    return model


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(counts=(2, 0), support=2, masks=True):
    targets = []
    for clip, count in enumerate(counts):
        mask = randn(count, 64, 96, seed=clip) > 0.5
        labels = torch.arange(count) % K
        targets.append(BoxTargets(torch.zeros(count, 4), labels, mask if masks else None))
    num_clips = len(counts)
    return ClipBatch(
        frames=randn(num_clips, 3, 64, 96, seed=10),
        support=randn(num_clips, support, 3, 64, 96, seed=11) if support else None,
        image_sizes=[(64, 96)] * num_clips,
        support_sizes=[[(64, 96)] * support] * num_clips,
        targets=targets,
        videos=list(range(num_clips)),
        indices=[0] * num_clips,
        original_sizes=[(64, 96)] * num_clips,
    )


def idle(model):
    """Return the weights that no gradient came to; a bias of keys changes no attention."""
    names = [name for name, weight in model.named_parameters() if weight.grad is None]
    return [name for name in names if name != "encoder.predictor.attention.key.bias"]


@pytest.mark.parametrize("depths", [(1, 1, 2, 1), (1, 1, 1), (1, 1)])
@pytest.mark.parametrize("predictor", [True, False])
def test_losses_reach_every_weight(depths, predictor):
    model = minvis(predictor, depths).train()
    losses = model(batch())
    assert losses.total.isfinite()
    losses.total.backward()
    assert not idle(model)
    if predictor:
        assert any(weight.grad.any() for weight in model.encoder.predictor.parameters())


def test_frames_are_segmented_with_and_without_support():
    model, clips = minvis().eval(), batch()
    assert model.takes_support
    with torch.no_grad():
        prompted = model.segment(model.encoder(clips.frames, clips.support))
        plain = model.segment(model.encoder(clips.frames, None))
    assert prompted.masks.shape == plain.masks.shape == (2, 5, 16, 24)
    assert prompted.logits.shape == (2, 5, K + 1)
    assert prompted.embeddings.shape == (2, 5, 32)
    assert not torch.allclose(prompted.masks, plain.masks, atol=1e-3)


def test_the_baseline_ignores_support_frames_and_needs_none():
    model = minvis(predictor=False).eval()
    assert not model.takes_support
    torch.manual_seed(1)
    with_support = model(batch(support=2)).total
    torch.manual_seed(1)
    assert model(batch(support=0)).total == with_support


def test_static_prompts_need_no_support_frames():
    model = minvis(predictor=False).eval()
    static = StaticPrompts.for_backbone(model.encoder.backbone, 3)
    nn.init.normal_(next(static.parameters()))
    prompted = MinVIS(VideoEncoder(model.encoder.backbone, static), model.head).eval()
    assert not prompted.takes_support
    torch.manual_seed(1)
    without = model(batch(support=0)).total
    torch.manual_seed(1)
    assert prompted(batch(support=0)).total != without


@pytest.mark.parametrize("sampler", [CausalSampler(2, 1), WindowSampler(1, 1)])
@pytest.mark.parametrize("frames_per_pass", [1, 3])
@torch.no_grad()
def test_a_stream_segments_as_whole_clips_do(sampler, frames_per_pass):
    model = minvis().eval()
    frames = randn(5, 1, 3, 64, 96)
    stream = model.encoder.stream(sampler, frames_per_pass=frames_per_pass)
    encoded = [each for frame in frames for each in stream.push(frame)] + stream.flush()
    assert [each.index for each in encoded] == list(range(5))
    for each in encoded:
        streamed = model.segment(each.features)
        support = frames[list(sampler(each.index, 5))].transpose(0, 1)
        whole = model.segment(model.encoder(frames[each.index], support))
        assert_close(streamed.masks, whole.masks, atol=1e-4, rtol=1e-4)
        assert_close(streamed.embeddings, whole.embeddings, atol=1e-4, rtol=1e-4)


def test_a_frame_without_objects_is_trained_on():
    model = minvis().train()
    losses = model(batch(counts=(0, 0)))
    assert losses.classification > 0
    assert losses.mask == losses.dice == 0
    losses.total.backward()
    assert not idle(model)


def test_training_lowers_the_loss():
    model = minvis(predictor=False).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    torch.manual_seed(0)
    clips = batch(counts=(1, 1))
    for targets in clips.targets:
        targets.masks[:] = False
        targets.masks[:, 8:40, 16:64] = True
    history = []
    for _ in range(30):
        optimizer.zero_grad()
        losses = model(clips)
        losses.total.backward()
        optimizer.step()
        history.append(losses.total.item())
    assert history[-1] < 0.4 * history[0]


def test_what_clips_lack_is_named():
    with pytest.raises(ValueError, match="reads support frames, but the clips have none"):
        minvis()(batch(support=0))
    with pytest.raises(ValueError, match="trained on masks, but the clips come without"):
        minvis()(batch(masks=False))


def test_the_criterion_is_the_originals_unless_given():
    model = minvis(dice_weight=1.0)
    assert model.criterion.dice_weight == 1.0
    assert MinVIS(model.encoder, model.head).criterion == MaskCriterion(
        class_weight=2.0,
        mask_weight=5.0,
        dice_weight=5.0,
        no_object_weight=0.1,
        num_points=12544,
        oversample_ratio=3.0,
        importance_ratio=0.75,
    )
