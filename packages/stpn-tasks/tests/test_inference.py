import queue
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from stpn_data.sampling import CausalSampler, VideoUniformSampler, WindowSampler
from stpn_data.transforms import resize_pixels
from stpn_tasks.detection.build import build_preparation
from stpn_tasks.detection.evaluation import evaluate_detector
from stpn_tasks.detection.inference import VideoInference
from stpn_tasks.engine import make_accelerator
from stpn_tasks.video_encoding import FramePreparation, another_video, group_videos, other_videos

STREAMED = [
    WindowSampler(2, 2),
    WindowSampler(1, 3, on_grid=True),
    CausalSampler(3, 2),
]


@pytest.fixture(scope="module")
def model(tiny):
    """A recipe, its detector, and two videos of nine frames."""
    recipe = tiny.recipe()
    return recipe, tiny.detector(recipe), tiny.MovingSquares(((9, 64, 96), (9, 64, 96)))


def make_inference(model, sampler):
    recipe, detector, videos = model
    prepare = build_preparation(recipe, torch.device("cpu"))
    return VideoInference(detector, sampler, prepare), videos


@torch.no_grad()
def detect_offline(inference, videos, number, index, support=None):
    """Detect in one frame by the encoder's own definition: the frame and its support frames.

    These are of the video number ``support``, or of the same video.
    """
    source = number if support is None else support
    prepare, detector = inference.prepare, inference.detector
    length = videos.videos[number].num_frames
    frame = videos.frame(number, index)
    support = None
    if inference.sampler is not None:
        times = inference.sampler(index, length)
        support = torch.stack([prepare([videos.frame(source, t)]) for t in times], dim=1)
    features = detector.encoder(prepare([frame]), support)
    size = prepare.resized_size(frame)
    scale = (size[0] / frame.shape[0], size[1] / frame.shape[1])
    return detector.head.detect(features, [size], [scale])[0]


def assert_same(found, expected):
    assert len(expected.scores) > 5
    assert_close(found.boxes_xyxy, expected.boxes_xyxy, atol=2e-3, rtol=1e-4)
    assert_close(found.scores, expected.scores, atol=2e-5, rtol=1e-4)
    assert torch.equal(found.labels, expected.labels)


@pytest.mark.parametrize("sampler", [*STREAMED, VideoUniformSampler(4), None])
def test_every_frame_has_the_detections_of_its_support_frames(model, sampler):
    inference, videos = make_inference(model, sampler)
    found = inference.videos(videos, [0])[0]
    assert len(found) == 9
    for index, frame in enumerate(found):
        assert_same(frame, detect_offline(inference, videos, 0, index))


def test_support_frames_of_another_video_are_those_of_the_next_one(model):
    inference, videos = make_inference(model, STREAMED[0])
    swapped = replace(inference, support_video="other")
    for number, found in enumerate(swapped.videos(videos, [0, 1])):
        for index, frame in enumerate(found):
            expected = detect_offline(inference, videos, number, index, support=1 - number)
            assert_same(frame, expected)


def test_another_video_is_the_next_of_its_size_and_length(tiny):
    videos = tiny.MovingSquares(((3, 64, 96), (4, 64, 96), (3, 96, 64), (3, 64, 96), (4, 64, 96)))
    assert [another_video(videos, number) for number in (0, 1, 3, 4)] == [3, 4, 0, 1]
    with pytest.raises(ValueError, match="no other video has the size and length of v2"):
        another_video(videos, 2)
    with pytest.raises(ValueError, match="no other video"):
        another_video(tiny.MovingSquares(((3, 64, 96),)), 0)


def test_a_video_without_another_is_named_before_the_first_group(model, tiny):
    videos = tiny.MovingSquares(((3, 64, 96), (3, 64, 96), (4, 64, 96)))
    assert other_videos(tiny.MovingSquares(((3, 64, 96),) * 3)) == {0: 1, 1: 2, 2: 0}
    swapped = replace(make_inference(model, STREAMED[0])[0], support_video="other")
    with pytest.raises(ValueError, match="no other video has the size and length of v2"):
        swapped.videos(videos, [0, 1])


def test_a_stream_has_no_other_video(model):
    inference, videos = make_inference(model, STREAMED[0])
    with pytest.raises(ValueError, match="a stream has no other video"):
        next(replace(inference, support_video="other").stream([[videos.frame(0, 0)]]))


def test_support_frames_matter(model):
    with_prompts, videos = make_inference(model, STREAMED[0])
    without, _ = make_inference(model, None)
    one, other = (run.videos(videos, [0])[0][4] for run in (with_prompts, without))
    assert one.scores.shape != other.scores.shape or not torch.allclose(one.scores, other.scores)


@pytest.mark.parametrize("sampler", [STREAMED[0], VideoUniformSampler(3), None])
def test_videos_in_lock_step_are_as_one_by_one(model, sampler):
    inference, videos = make_inference(model, sampler)
    together = inference.videos(videos, [1, 0])
    for number, video in zip((1, 0), together, strict=True):
        for found, expected in zip(video, inference.videos(videos, [number])[0], strict=True):
            assert_same(found, expected)


@pytest.mark.parametrize("sampler", [*STREAMED, VideoUniformSampler(4), None])
@pytest.mark.parametrize("numbers", [[0], [1, 0]])
def test_frames_that_go_together_are_as_one_by_one(model, sampler, numbers):
    inference, videos = make_inference(model, sampler)
    together = replace(inference, frames_per_pass=4).videos(videos, numbers)
    for number, video in zip(numbers, together, strict=True):
        assert len(video) == 9
        for index, found in enumerate(video):
            assert_same(found, detect_offline(inference, videos, number, index))


def test_a_stream_yields_a_frame_as_soon_as_its_support_frames_are_there(model):
    inference, videos = make_inference(model, WindowSampler(1, 2))
    camera = queue.Queue()  # gives a frame when it is there, and not before
    found = inference.stream(iter(partial(camera.get, timeout=60), None))
    for index in range(9):
        camera.put([videos.frame(0, index)])
        if index >= 2:
            assert len(next(found)) == 1
    camera.put(None)
    assert len(list(found)) == 2


def test_a_frame_of_another_size_is_named(model):
    inference, videos = make_inference(model, STREAMED[0])
    frames = [[videos.frame(0, 0)], [videos.frame(0, 1).repeat(2, 0).repeat(2, 1)]]
    with pytest.raises(ValueError, match="frame 1 is 192x128, the frames before it 96x64"):
        list(inference.stream(frames))


@pytest.mark.parametrize("sampler", [STREAMED[0], VideoUniformSampler(3), None])
def test_a_video_whose_frames_change_their_size_is_named(model, tiny, sampler):
    class Zooming(tiny.MovingSquares):
        def frame(self, video, index):
            pixels = super().frame(video, index)
            return pixels if index < 2 else pixels.repeat(2, 0)

    inference, _ = make_inference(model, sampler)
    with pytest.raises(ValueError, match=r"v0: frame \d is 96x128, the video 96x64"):
        inference.videos(Zooming(((5, 64, 96),)), [0])


def test_frames_of_another_size_are_named_where_a_video_is_read_at_any_time(model):
    inference, videos = make_inference(model, VideoUniformSampler(2))
    large = videos.frame(0, 1).repeat(2, 0)

    def read(index):
        return [large if index == 1 else videos.frame(0, index)]

    with pytest.raises(ValueError, match="frame 1 is 96x128, the frames before it 96x64"):
        list(inference.whole(map(read, range(3)), 3, read))
    frames = [[videos.frame(0, index)] for index in range(3)]
    with pytest.raises(ValueError, match="frame 0 is 96x128, the frames before it 96x64"):
        list(inference.whole(frames, 3, lambda t: [large]))
    with pytest.raises(ValueError, match="a video of 4 frames ended after 3"):
        list(inference.whole(frames, 4, lambda t: frames[0]))
    assert list(inference.whole([], 0, read)) == []


def test_videos_of_two_sizes_do_not_go_together(model, tiny):
    inference, _ = make_inference(model, None)
    videos = tiny.MovingSquares(((3, 64, 96), (3, 80, 96)))
    with pytest.raises(ValueError, match="must be of one size, got 96x64, 96x80"):
        inference.videos(videos, [0, 1])


@pytest.mark.parametrize("batch_size", [0, -1])
def test_no_videos_side_by_side_are_refused(model, batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {batch_size}"):
        group_videos(model[2], batch_size)


@pytest.mark.parametrize("together", [0, -1])
def test_no_frames_in_a_pass_are_refused(model, together):
    inference, _ = make_inference(model, VideoUniformSampler(3))
    with pytest.raises(ValueError, match=f"frames_per_pass must be at least 1, got {together}"):
        replace(inference, frames_per_pass=together)


def test_boxes_are_in_pixels_of_the_original(model):
    inference, videos = make_inference(model, None)
    found = inference.videos(videos, [0])[0][0]
    frame = videos.frame(0, 0)
    features = inference.detector.encoder(inference.prepare([frame]), None)
    small = inference.detector.head.detect(features, [(32, 48)])[0]  # 64 x 96 at short side 32
    # NMS sees boxes of another size, but the same overlaps: the same boxes win.
    assert_close(found.boxes_xyxy, 2 * small.boxes_xyxy, atol=1e-3, rtol=1e-4)
    assert found.boxes_xyxy[:, 2].max() > 48
    assert (found.boxes_xyxy[:, 2:] <= torch.tensor([96.0, 64.0])).all()


def test_a_sampler_of_the_whole_video_cannot_stream(model):
    inference, videos = make_inference(model, VideoUniformSampler(3))
    with pytest.raises(ValueError, match='cannot be streamed: choose the test_sampler "window"'):
        next(inference.stream([[videos.frame(0, 0)]]))


def test_preparation_resizes_normalises_and_pads(model):
    videos = model[2]
    prepare = FramePreparation(size=30, max_size=40, size_divisor=16)
    frames = [videos.frame(0, 0), videos.frame(1, 0)]
    assert prepare.resized_size(frames[0]) == (27, 40)  # 64 x 96, cut by the long side
    batch = prepare(frames)
    assert batch.shape == (2, 3, 32, 48)
    assert (batch[:, :, 27:] == 0).all()
    assert (batch[:, :, :, 40:] == 0).all()
    red = torch.from_numpy(resize_pixels(frames[1], (27, 40)))[..., 0] / 255
    assert_close(batch[1, 0, :27, :40], (red - 0.485) / 0.229)


@given(
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from([32, 64]), st.just(32)), max_size=12),
    st.integers(1, 4),
)
def test_groups_hold_every_video_once_and_only_equal_ones(tiny, shapes, batch_size):
    videos = tiny.MovingSquares(tuple(shapes))
    groups = group_videos(videos, batch_size)
    assert sorted(number for group in groups for number in group) == list(range(len(shapes)))
    for group in groups:
        assert 1 <= len(group) <= batch_size
        assert len({shapes[number] for number in group}) == 1
    lengths = [shapes[group[0]][0] for group in groups]
    assert lengths == sorted(lengths, reverse=True)


def test_evaluation_takes_key_frames_only_and_splits_by_condition(tiny):
    recipe, videos = tiny.recipe(), tiny.MovingSquares(((4, 64, 96), (3, 64, 96), (4, 64, 96)))
    object.__setattr__(videos.videos[1], "key_frames", (1,))
    inference, _ = make_inference((recipe, tiny.detector(recipe), videos), STREAMED[0])
    evaluations = [
        evaluate_detector(
            inference,
            videos,
            accelerator=make_accelerator("cpu"),
            batch_size=batch_size,
            progress=False,
        )
        for batch_size in (1, 2)
    ]
    for evaluation in evaluations:
        assert evaluation.num_frames == 4 + 1 + 4
        assert evaluation.precision.keys() == {"all", "clean", "deteriorated"}
        assert {n: len(found) for n, found in evaluation.detections.items()} == {0: 4, 1: 3, 2: 4}
    one, two = (evaluation.precision["all"].ap50 for evaluation in evaluations)
    assert one == pytest.approx(two, abs=1e-3)
    assert 0 <= one <= 1
