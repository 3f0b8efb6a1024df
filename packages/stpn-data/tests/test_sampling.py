import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stpn_data import BilateralRandomSampler, CausalSampler, VideoUniformSampler, WindowSampler

windows = st.builds(
    WindowSampler, st.integers(1, 8), st.integers(1, 9), st.booleans(), st.booleans()
)
causal = st.builds(CausalSampler, st.integers(1, 8), st.integers(1, 9))
places = st.integers(1, 120).flatmap(
    lambda length: st.tuples(st.integers(0, length - 1), st.just(length))
)


def test_window_in_the_middle_of_a_video():
    assert WindowSampler(2, 8)(20, 100) == [4, 12, 28, 36]
    assert WindowSampler(2, 8, include_current=True)(20, 100) == [4, 12, 20, 28, 36]
    assert WindowSampler(2, 8, on_grid=True)(20, 100) == [8, 16, 24, 32]
    assert WindowSampler(2, 8, on_grid=True)(24, 100) == [8, 16, 32, 40]
    assert WindowSampler(2, 8, include_current=True, on_grid=True)(20, 100) == [8, 16, 20, 24, 32]


def test_window_clamps_at_both_ends():
    assert WindowSampler(2, 8)(3, 15) == [0, 0, 11, 14]
    assert WindowSampler(2, 8)(14, 15) == [0, 6, 14, 14]
    assert WindowSampler(2, 8, on_grid=True)(0, 30) == [0, 0, 8, 16]
    assert WindowSampler(2, 8, on_grid=True)(27, 30) == [16, 24, 24, 24]


def test_paper_default_has_fifteen_frames_with_the_current_one():
    assert len(WindowSampler(include_current=True)(60, 200)) == 15
    assert len(WindowSampler()(60, 200)) == 14


def test_causal_repeats_frame_zero_at_the_start():
    sampler = CausalSampler(3, 4)
    assert sampler(0, None) == [0, 0, 0]
    assert sampler(4, None) == [0, 0, 0]
    assert sampler(5, None) == [0, 0, 4]
    assert sampler(13, 14) == [4, 8, 12]


@pytest.mark.parametrize("frame", [0, 3])
def test_video_uniform_is_the_same_for_every_frame(frame):
    assert VideoUniformSampler()(frame, 5) == [0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4]


def test_video_uniform_refuses_to_stream():
    with pytest.raises(ValueError, match="cannot stream"):
        VideoUniformSampler()(0, None)


def test_released_adaptive_stride(load_golden):
    golden = load_golden("swin/ref_sampling.npz")
    checked = 0
    for name, frames in golden.items():
        if name.startswith("adaptive_len") and len(frames):
            length, frame = _place(name)
            assert VideoUniformSampler()(frame, length) == frames.tolist()
            checked += 1
    assert checked >= 8


def test_released_bilateral_draws(load_golden):
    golden = load_golden("swin/ref_sampling.npz")
    names = [name for name in golden if name.startswith("bilateral_len")]
    assert len(names) == 8
    for name in names:
        length, frame = _place(name)
        sampler = BilateralRandomSampler(frame_range=9, num_frames=2)
        drawn = [sampler(frame, length, random.Random(seed)) for seed in range(20)]
        np.testing.assert_array_equal(drawn, golden[name])


@given(windows | causal, places)
def test_streamable_samplers_stay_in_the_video_and_in_their_bounds(sampler, place):
    frame, length = place
    support = sampler(frame, length)
    assert support == sorted(support)
    assert len(support) == sampler.num_frames
    assert support[0] >= 0
    assert support[-1] < length
    assert frame - sampler.past <= support[0]
    assert support[-1] <= frame + sampler.future
    assert all(sampler.embeds(index) for index in support)


@given(windows | causal, places)
def test_unknown_length_changes_nothing_until_the_end(sampler, place):
    frame, length = place
    streamed = sampler(frame, None)
    assert len(streamed) == sampler.num_frames
    assert streamed[-1] <= frame + sampler.future
    if streamed[-1] < length:
        assert streamed == sampler(frame, length)


@given(causal, places)
def test_causal_sees_no_future_and_not_itself(sampler, place):
    frame, length = place
    assert all(index < frame for index in sampler(frame, length)) or frame == 0


@given(windows, st.integers(0, 500))
def test_window_leaves_the_current_frame_out_unless_asked(sampler, offset):
    frame = sampler.past + offset
    assert (frame in sampler(frame, None)) == sampler.include_current


@given(st.integers(2, 40), places)
def test_video_uniform_spans_the_video(num_frames, place):
    frame, length = place
    support = VideoUniformSampler(num_frames)(frame, length)
    assert len(support) == num_frames
    assert support == sorted(support)
    assert (support[0], support[-1]) == (0, length - 1)


@given(st.integers(1, 12), st.integers(1, 4), places, st.integers(0, 99))
def test_bilateral_draws_stay_near_and_skip_the_current_frame(frame_range, half, place, seed):
    frame, length = place
    sampler = BilateralRandomSampler(frame_range, 2 * half)
    support = sampler(frame, length, random.Random(seed))
    assert support == sampler(frame, length, random.Random(seed))
    assert support == sorted(support)
    assert len(support) == 2 * half
    assert all(0 <= index < length and abs(index - frame) <= frame_range for index in support)
    assert (frame in support) == (length == 1)
    if half <= min(frame, length - 1 - frame, frame_range):
        assert sum(index < frame for index in support) == half
        assert len(set(support)) == 2 * half


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: WindowSampler(per_side=0), "per_side"),
        (lambda: WindowSampler(stride=0), "stride"),
        (lambda: CausalSampler(num_frames=0), "num_frames"),
        (lambda: CausalSampler(stride=-1), "stride"),
        (lambda: VideoUniformSampler(1), "num_frames"),
        (lambda: BilateralRandomSampler(frame_range=0), "frame_range"),
        (lambda: BilateralRandomSampler(num_frames=3), "even"),
    ],
)
def test_wrong_counts_are_named(make, name):
    with pytest.raises(ValueError, match=name):
        make()


@pytest.mark.parametrize("frame", [-1, 10])
def test_frames_outside_the_video_are_refused(frame):
    for sampler in (WindowSampler(), CausalSampler(), VideoUniformSampler()):
        with pytest.raises(ValueError, match=f"frame {frame}"):
            sampler(frame, 10)


def _place(name: str) -> tuple[int, int]:
    length, frame = name.split("_len")[1].split("_frame")
    return int(length), int(frame)
