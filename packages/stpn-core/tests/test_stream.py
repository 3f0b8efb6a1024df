import copy
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stpn_core import (
    AttentionPredictor,
    AveragePredictor,
    MixerPredictor,
    StaticPrompts,
    SupportFrame,
    SupportMemory,
    TransformerPredictor,
    VideoEncoder,
    VideoStream,
)
from stpn_core.testing import TinyBackbone

PREDICTORS = [TransformerPredictor, MixerPredictor, AttentionPredictor, AveragePredictor]


@dataclass
class Past:
    """The ``num`` latest frames before the current one; frame 0 for the first."""

    num: int
    future = 0

    @property
    def past(self):
        return self.num

    def __call__(self, frame, length):
        return [max(frame - j, 0) for j in range(self.num, 0, -1)]

    def embeds(self, frame):
        return True


@dataclass
class Around:
    """Frames ``t - jS`` and ``t + jS``, clamped to the video."""

    num: int
    stride: int

    @property
    def past(self):
        return self.num * self.stride

    @property
    def future(self):
        return self.num * self.stride

    def __call__(self, frame, length):
        last = float("inf") if length is None else length - 1
        steps = [j for j in range(-self.num, self.num + 1) if j]
        return [int(min(max(frame + j * self.stride, 0), last)) for j in steps]

    def embeds(self, frame):
        return True


@dataclass
class Grid:
    """The latest multiples of the stride up to the current frame."""

    num: int
    stride: int
    future = 0

    @property
    def past(self):
        return self.num * self.stride

    def __call__(self, frame, length):
        latest = frame // self.stride
        return [max(latest - j, 0) * self.stride for j in range(self.num - 1, -1, -1)]

    def embeds(self, frame):
        return frame % self.stride == 0


SAMPLERS = st.one_of(
    st.builds(Past, st.integers(1, 4)),
    st.builds(Around, st.integers(1, 3), st.integers(1, 3)),
    st.builds(Grid, st.integers(1, 3), st.integers(1, 4)),
)


def offline(encoder, video, sampler):
    return [
        encoder(video[:, t], video[:, list(sampler(t, video.shape[1]))])[0]
        for t in range(video.shape[1])
    ]


def streamed(stream, video):
    outputs = [out for t in range(video.shape[1]) for out in stream.push(video[:, t])]
    return outputs + stream.flush()


@pytest.mark.parametrize("predictor", PREDICTORS)
@settings(max_examples=15, deadline=None)
@given(
    sampler=SAMPLERS,
    length=st.integers(1, 9),
    num_videos=st.integers(1, 2),
    deep=st.booleans(),
    together=st.integers(1, 4),
)
def test_streaming_equals_offline(predictor, sampler, length, num_videos, deep, together):
    torch.manual_seed(length)
    backbone = TinyBackbone()
    encoder = VideoEncoder(backbone, predictor.for_backbone(backbone, 2, deep=deep)).eval()
    video = torch.randn(num_videos, length, 3, 16, 24)
    with torch.no_grad():
        expected = offline(encoder, video, sampler)
    backbone.plain_passes = 0
    outputs = streamed(encoder.stream(sampler, frames_per_pass=together), video)
    assert [out.index for out in outputs] == list(range(length))
    for out, features in zip(outputs, expected, strict=True):
        torch.testing.assert_close(out.features[0], features, atol=2e-5, rtol=1e-4)
    assert backbone.plain_passes <= num_videos * sum(map(sampler.embeds, range(length)))


@pytest.mark.parametrize("kind", ["predictor", "static", "none"])
@settings(max_examples=15, deadline=None)
@given(sampler=SAMPLERS, length=st.integers(1, 9), together=st.integers(1, 4))
def test_a_frame_comes_with_the_notes_on_its_support_frames(kind, sampler, length, together):
    """Each taken once, when the frame is pushed; also where no predictor reads support frames."""
    backbone = TinyBackbone()
    predictor = {
        "predictor": TransformerPredictor.for_backbone(backbone, 2),
        "static": StaticPrompts.for_backbone(backbone, 2),
        "none": None,
    }[kind]
    encoder = VideoEncoder(backbone, predictor).eval()
    video = torch.randn(1, length, 3, 16, 24)
    video[0, :, 0, 0, 0] = torch.arange(length)
    described = []

    def describe(frame):
        times = frame[:, 0, 0, 0].int().tolist()
        described.extend(times)
        return SupportFrame(encoder.embed_with_features(frame)[0], times)

    stream = encoder.stream(sampler, describe=describe, frames_per_pass=together)
    outputs = streamed(stream, video)
    for t, out in enumerate(outputs):
        times = [note for (note,) in out.notes]
        assert times == list(sampler(t, length))
        support = video[:, times] if kind == "predictor" else None
        torch.testing.assert_close(
            out.features[0], encoder(video[:, t], support)[0], atol=2e-5, rtol=1e-4
        )
    assert described == list(filter(sampler.embeds, range(length)))
    assert len(stream.state.notes) <= sampler.past + sampler.future + together


def test_a_stream_goes_on_from_a_snapshot(backbone):
    encoder = VideoEncoder(backbone, TransformerPredictor.for_backbone(backbone, 2)).eval()
    video = torch.randn(1, 7, 3, 16, 24)
    sampler = Around(2, 1)
    expected = streamed(encoder.stream(sampler), video)
    first = encoder.stream(sampler)
    outputs = [out for t in range(3) for out in first.push(video[:, t])]
    snapshot = copy.deepcopy(first.state)
    first.push(video[:, 0])  # what happens to the old stream does not matter
    second = encoder.stream(sampler, snapshot)
    outputs += [out for t in range(3, 7) for out in second.push(video[:, t])] + second.flush()
    for out, reference in zip(outputs, expected, strict=True):
        assert torch.equal(out.features[0], reference.features[0])


def test_prompts_are_predicted_once_per_set_of_support_frames(backbone):
    predictor = TransformerPredictor.for_backbone(backbone, 2)
    encoder = VideoEncoder(backbone, predictor).eval()
    calls = []
    predictor.output_norm.register_forward_hook(lambda *_: calls.append(1))
    streamed(encoder.stream(Grid(2, 4)), torch.randn(1, 9, 3, 16, 16))
    assert len(calls) == 3


def test_memory_holds_no_more_frames_than_the_reach_needs(backbone):
    encoder = VideoEncoder(backbone, TransformerPredictor.for_backbone(backbone, 2)).eval()
    stream = encoder.stream(Grid(3, 8))
    stream.push(torch.randn(1, 3, 16, 16))
    assert stream.state.memory.buffer.shape == (1, 4, 4, 16)


def test_frames_go_together_and_come_when_the_last_of_them_does(backbone):
    encoder = VideoEncoder(backbone, TransformerPredictor.for_backbone(backbone, 2)).eval()
    batches = []
    backbone.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    stream = encoder.stream(Past(1), frames_per_pass=3)
    frames = torch.randn(2, 7, 3, 16, 16)
    counts = [len(stream.push(frames[:, t])) for t in range(7)]
    assert counts == [0, 0, 3, 0, 0, 3, 0]
    assert len(stream.flush()) == 1
    assert batches == [6, 6, 6, 6, 2, 2]  # as support frames, then with prompts
    with pytest.raises(ValueError, match="frames_per_pass must be at least 1, got 0"):
        encoder.stream(Past(1), frames_per_pass=0)


def test_a_state_that_keeps_too_few_support_frames_is_refused(backbone):
    encoder = VideoEncoder(backbone, TransformerPredictor.for_backbone(backbone, 2)).eval()
    stream = encoder.stream(Past(2))
    stream.push(torch.randn(1, 3, 16, 16))
    with pytest.raises(ValueError, match=r"keeps 3 support frames, .* 4 frames per pass needs 6"):
        VideoStream(encoder, Past(2), stream.state, frames_per_pass=4)


def test_a_run_of_slots_is_a_view():
    memory = SupportMemory.like(torch.zeros(2, 3, 4), 4)
    for frame in range(6):
        memory.push(frame, torch.full((2, 3, 4), float(frame)))
    assert memory.frames == [4, 5, 2, 3]
    gathered = memory.gather([5, 2])
    assert gathered.data_ptr() == memory.buffer[:, 1:].data_ptr()
    assert memory.gather([3, 4, 4])[0, :, 0, 0].tolist() == [4, 4, 3]
    with pytest.raises(KeyError, match=r"support frames \[1, 9\] are not in the memory"):
        memory.gather([1, 9, 3])


def test_without_a_sampler_a_stream_is_the_plain_backbone(backbone):
    encoder = VideoEncoder(backbone, None).eval()
    video = torch.randn(1, 3, 3, 16, 16)
    outputs = streamed(encoder.stream(None), video)
    for t, out in enumerate(outputs):
        torch.testing.assert_close(out.features[0], backbone(video[:, t])[0])


@pytest.mark.without_shape_checks
def test_a_sampler_that_needs_the_whole_video_says_so(backbone):
    class Whole:
        def __call__(self, frame, length):
            return [0]

    encoder = VideoEncoder(backbone, TransformerPredictor.for_backbone(backbone, 2))
    with pytest.raises(ValueError, match="Whole needs the whole video: it cannot stream"):
        encoder.stream(Whole())
    with pytest.raises(ValueError, match="without a predictor streams with sampler=None"):
        VideoEncoder(backbone, None).stream(Past(1))


def test_bad_frames_and_ended_videos_are_named(backbone):
    encoder = VideoEncoder(backbone, TransformerPredictor.for_backbone(backbone, 2)).eval()
    stream = encoder.stream(Around(1, 1))
    stream.push(torch.randn(1, 3, 16, 16))
    with pytest.raises(ValueError, match=r"frame 1 has shape \(1, 3, 16, 24\)"):
        stream.push(torch.randn(1, 3, 16, 24))
    with pytest.raises(ValueError, match="frame 1 has NaN"):
        stream.push(torch.full((1, 3, 16, 16), torch.nan))
    assert [out.index for out in stream.push(torch.randn(1, 3, 16, 16))] == [0]
    assert [out.index for out in stream.flush()] == [1]
    with pytest.raises(ValueError, match="the video has ended"):
        stream.push(torch.randn(1, 3, 16, 16))


def test_an_empty_video_gives_nothing(backbone):
    encoder = VideoEncoder(backbone, TransformerPredictor.for_backbone(backbone, 2))
    assert encoder.stream(Past(2)).flush() == []
