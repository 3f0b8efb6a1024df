import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stpn_core import TransformerPredictor, VideoEncoder, encode_video
from stpn_core.testing import TinyBackbone
from stpn_data.sampling import CausalSampler, VideoUniformSampler, WindowSampler
from stpn_tasks.detection.policies import PolicyCost, policy_cost

STREAMED = st.one_of(
    st.builds(WindowSampler, st.integers(1, 3), st.integers(1, 4), st.booleans(), st.booleans()),
    st.builds(CausalSampler, st.integers(1, 3), st.integers(1, 4)),
)


def count_images(backbone):
    images = []
    backbone.register_forward_pre_hook(lambda _, args: images.append(len(args[0])))
    return images


def make_encoder():
    backbone = TinyBackbone()
    predictor = TransformerPredictor.for_backbone(backbone, 2)
    return VideoEncoder(backbone, predictor).eval(), count_images(backbone)


@settings(max_examples=40, deadline=None)
@given(sampler=STREAMED, num_frames=st.integers(20, 40), together=st.integers(1, 3))
def test_the_cost_of_a_stream_is_what_it_does(sampler, num_frames, together):
    encoder, images = make_encoder()
    cost = policy_cost(sampler, num_frames, together)
    stream = encoder.stream(sampler, frames_per_pass=together)
    delays, waiting = [], 0
    for t in range(num_frames):
        ready = stream.push(torch.zeros(1, 3, 8, 8))
        waiting = max(waiting, len(stream.state.waiting) + len(ready))
        delays += [t - encoded.index for encoded in ready]
    stream.flush()
    assert sum(images) / num_frames == pytest.approx(cost.passes)
    assert max(delays) == cost.delay
    assert waiting == cost.waiting
    assert stream.state.memory.buffer.shape[1] == cost.remembered


@given(num_support=st.integers(2, 8), num_frames=st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_prompts_once_per_video_cost_the_support_frames_once(num_support, num_frames):
    encoder, images = make_encoder()
    sampler = VideoUniformSampler(num_support)
    frame = torch.zeros(1, 3, 8, 8)
    list(encode_video(encoder, sampler, [frame] * num_frames, num_frames, lambda t: frame))
    cost = policy_cost(sampler, num_frames)
    assert sum(images) / num_frames == pytest.approx(cost.passes)
    assert cost.delay is None


def test_the_policies_of_the_paper_and_of_the_released_code():
    video = 317  # frames of a validation video of ImageNet VID, on average
    assert policy_cost(None, video) == PolicyCost(1.0, 0, 0, 1)
    assert policy_cost(WindowSampler(7, 8), video) == PolicyCost(2.0, 56, 113, 57)
    grid = policy_cost(WindowSampler(7, 8, on_grid=True), video)
    assert (grid.passes, grid.delay, grid.remembered) == (1 + 40 / 317, 56, 15)
    causal = policy_cost(CausalSampler(14, 8), video)
    assert (causal.passes, causal.delay, causal.remembered) == (1 + 40 / 317, 0, 15)
    released = policy_cost(VideoUniformSampler(14), video)
    assert (released.passes, released.delay) == (1 + 14 / 317, None)
