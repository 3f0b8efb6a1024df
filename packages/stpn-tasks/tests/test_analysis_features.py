"""Features that analyses look at are those that the head sees; targets weigh them as they say."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from stpn_data.sampling import VideoUniformSampler
from stpn_data.videos import FrameObjects
from stpn_tasks.analysis.cam import Cam, focus, focus_by_condition, frame_cams, spread_frames
from stpn_tasks.analysis.frame_features import frame_features
from stpn_tasks.analysis.object_features import object_features, speed
from stpn_tasks.analysis.targets import detect_on_pyramid, target_value, weigh_by_target
from stpn_tasks.detection.build import build_preparation, build_test_sampler
from stpn_tasks.detection.detections import Detections
from stpn_tasks.detection.inference import VideoInference
from stpn_tasks.metrics import FrameDetections


def inference(tiny, predictor="transformer", detector="faster-rcnn", **prompts):
    recipe = replace(tiny.recipe(predictor, **prompts), detector=detector)
    prepare = build_preparation(recipe, torch.device("cpu"))
    return VideoInference(tiny.detector(recipe), build_test_sampler(recipe), prepare)


@pytest.fixture
def videos(tiny):
    return tiny.MovingSquares(((8, 64, 96), (8, 64, 96)))


@pytest.mark.parametrize("predictor", ["transformer", "none", "static"])
def test_features_of_chosen_frames_are_those_of_a_stream(tiny, videos, predictor):
    run = inference(tiny, predictor)
    stream = run.detector.encoder.stream(run.sampler)
    frames = [
        encoded for t in range(8) for encoded in stream.push(run.prepare([videos.frame(1, t)]))
    ]
    frames += stream.flush()
    chosen = list(frame_features(run, videos, 1, [0, 3, 4, 7]))
    assert [one.index for one in chosen] == [0, 3, 4, 7]
    for one in chosen:
        for mine, theirs in zip(one.features, frames[one.index].features, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_a_frame_or_support_frame_of_another_size_is_named(tiny):
    class Zooming(tiny.MovingSquares):
        def frame(self, video, index):
            pixels = super().frame(video, index)
            return pixels if index != 4 else pixels.repeat(2, 0)

    videos = Zooming(((8, 64, 96),))
    for index in (4, 2):  # 4 is a support frame of 2
        with pytest.raises(ValueError, match="v0: frame 4 is 96x128, the video 96x64"):
            list(frame_features(inference(tiny), videos, 0, [index]))


def test_support_frames_spread_over_the_video_or_of_another_one_are_followed(tiny, videos):
    run = inference(tiny)
    own = next(frame_features(run, videos, 0, [4])).features[-1]
    uniform = replace(run, sampler=VideoUniformSampler(4))
    spread = next(frame_features(uniform, videos, 0, [4])).features[-1]
    other = next(frame_features(replace(run, support_video="other"), videos, 0, [4])).features[-1]
    assert not torch.allclose(own, spread)
    assert not torch.allclose(own, other)
    support = uniform.sampler(4, 8)
    images = torch.stack([run.prepare([videos.frame(0, t)])[0] for t in support])
    with torch.no_grad():
        expected = run.detector.encoder(run.prepare([videos.frame(0, 4)]), images[None])
    torch.testing.assert_close(spread, expected[-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("detector", ["faster-rcnn", "selsa"])
def test_the_detections_that_are_explained_are_those_of_the_detector(tiny, videos, detector):
    run = inference(tiny, detector=detector)
    found = run.videos(videos, [1])[0][3]
    frame = next(frame_features(run, videos, 1, [3]))
    with torch.no_grad():
        pyramid = run.detector.head.pyramid(frame.features)
        again = detect_on_pyramid(run.detector, pyramid, frame)
    assert len(found.scores) > 0
    torch.testing.assert_close(again.boxes_xyxy, found.boxes_xyxy, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(again.scores, found.scores, rtol=1e-4, atol=1e-5)
    assert torch.equal(again.labels, found.labels)


DETECTIONS = Detections(
    torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 10], [50, 50, 60, 60]]),
    torch.tensor([0.9, 0.6, 0.2, 0.5]),
    torch.tensor([1, 0, 0, 0]),
)


def test_the_target_score_sums_the_scores_of_the_boxes_that_are_drawn():
    none = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    assert float(target_value("score", DETECTIONS, *none)) == pytest.approx(2.0)


def test_the_target_iou_counts_the_best_box_of_the_same_class():
    truth = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 100]])
    value = target_value("iou", DETECTIONS, truth, torch.tensor([0, 0]))
    assert float(value) == pytest.approx(0.8)  # not 1: too weak; not the 1 of another class
    assert target_value("iou", DETECTIONS, truth[1:], torch.tensor([0])) is None
    assert target_value("iou", DETECTIONS, truth[:0], torch.tensor([], dtype=torch.int64)) is None


def test_weights_are_the_gradient_of_the_target(tiny, videos):
    """Features scaled by 1 + ε change the target by ε times the sum of the weighted features."""
    run = inference(tiny)
    frame = next(frame_features(run, videos, 1, [3]))
    objects = videos.objects(1, 3)
    truth = torch.from_numpy(objects.boxes_xyxy), torch.from_numpy(objects.labels)
    levels, found = weigh_by_target(run.detector, frame, "score", *truth)
    assert len(found.scores) > 0
    assert levels is not None
    assert not levels[-1].any()  # serves proposals only
    with torch.no_grad():
        pyramid = run.detector.head.pyramid(frame.features)
        proposals = run.detector.head.rpn.propose(run.detector.head.rpn(pyramid), [frame.size])

        def value(factor):
            head = run.detector.head.roi_head
            scaled = [level * factor for level in pyramid[:-1]]
            logits, deltas = head(scaled, proposals)
            found = head.detect(logits, deltas, proposals, [frame.size], [frame.scale])[0]
            return float(found.scores[found.scores >= 0.3].sum())

        step = 1e-3
        slope = (value(1 + step) - value(1 - step)) / (2 * step)
    assert slope != 0
    assert float(sum(level.sum() for level in levels)) == pytest.approx(slope, rel=0.03)


@pytest.mark.parametrize("target", [None, "score", "iou"])
def test_maps_have_the_size_of_the_finest_level_without_padding(tiny, videos, target):
    run = inference(tiny)
    (cam,) = frame_cams(run, videos, {1: [3]}, target)
    assert (cam.video, cam.frame) == (1, 3)
    if cam.heat is not None:
        assert cam.heat.shape == (8, 12)  # 32 × 48 pixels, stride 4
        assert 0 <= cam.heat.min() <= cam.heat.max() <= 1
    assert target == "iou" or cam.heat is not None


def test_frames_are_spread_evenly(videos):
    assert spread_frames(videos, 4) == {0: [2, 6], 1: [2, 6]}
    assert spread_frames(videos, 1) == {1: [0]}
    assert spread_frames(videos, 99) == {0: list(range(8)), 1: list(range(8))}
    with pytest.raises(ValueError, match="num_frames must be at least 1"):
        spread_frames(videos, 0)


def cam(heat, frame=0):
    nothing = FrameDetections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
    return Cam(0, frame, heat, nothing)


def test_focus_is_the_share_of_a_map_in_boxes(videos):
    left, top, right, bottom = videos.objects(0, 0).boxes_xyxy[0].astype(int)
    inside = np.zeros((64, 96), np.float32)
    inside[top:bottom, left:right] = 1
    area = inside.mean()
    assert focus(videos, [cam(inside)]).in_boxes == 1
    assert focus(videos, [cam(1 - inside)]).in_boxes == 0
    for equal in (np.ones((64, 96), np.float32), np.zeros((4, 6), np.float32)):
        found = focus(videos, [cam(equal)])
        assert found.in_boxes == pytest.approx(area, rel=1e-5)
        assert found.area == pytest.approx(area)


def test_frames_without_a_map_are_counted_apart(videos):
    maps = [cam(np.ones((4, 6), np.float32)), cam(None, 2), cam(np.ones((4, 6), np.float32), 1)]
    found = focus_by_condition(videos, maps)
    assert list(found) == ["all", "deteriorated", "clean"]
    assert [(one.num_frames, one.num_without) for one in found.values()] == [(2, 1), (1, 0), (1, 1)]
    assert np.isnan(focus(videos, [cam(None)]).in_boxes)


def test_objects_are_pooled_from_the_maps_that_the_head_sees(tiny, videos):
    run = inference(tiny)
    objects = object_features(run, videos, {0: [1], 1: [2, 5]})
    assert objects.features.shape == (3, 16)
    assert objects.labels.tolist() == [0, 1, 1]
    assert objects.videos.tolist() == [0, 1, 1]
    assert objects.conditions == ({"deteriorated"}, {"clean"}, {"deteriorated"})
    frame = next(frame_features(run, videos, 1, [5]))
    head = run.detector.head
    with torch.no_grad():
        box = torch.from_numpy(videos.objects(1, 5).boxes_xyxy) / 2  # 64 × 96 become 32 × 48
        pooled = head.roi_head.pool(head.pyramid(frame.features)[:-1], [box])
    expected = pooled[0].mean((1, 2)).numpy()
    np.testing.assert_allclose(objects.features[2], expected, rtol=1e-4, atol=1e-5)


def test_objects_have_the_speed_of_their_tracks(tiny, videos):
    objects = object_features(inference(tiny, "none"), videos, {0: [1, 4]})
    assert set(objects.speeds) == {"fast"}  # 5 pixels a frame, of 21
    assert {"all", "fast"} <= objects.groups().keys()
    assert "slow" not in objects.groups()
    assert [speed(value) for value in (0.0, 0.69, 0.7, 0.89, 0.9, 1.0)] == [
        *("fast", "fast", "medium", "medium", "slow", "slow")
    ]


def test_without_tracks_no_speed_is_claimed(tiny, videos, monkeypatch):
    tracked = videos.objects

    def untracked(video, index):
        return replace(tracked(video, index), track_ids=np.array([index], np.int64))

    monkeypatch.setattr(videos, "objects", untracked)
    objects = object_features(inference(tiny, "none"), videos, {0: [1, 4]})
    assert set(objects.speeds) == {"unknown"}
    assert list(objects.groups()) == ["all", "deteriorated", "clean"]


def test_crowds_and_boxes_outside_the_frame_are_left_out(tiny, videos, monkeypatch):
    def objects(video, index):
        boxes = np.array([[8, 8, 40, 40], [0, 0, 30, 30], [200, 10, 220, 30]], np.float32)
        crowd = np.array([False, True, False])
        return FrameObjects(boxes, np.array([1, 0, 0]), np.array([1, 2, 3]), crowd)

    monkeypatch.setattr(videos, "objects", objects)
    found = object_features(inference(tiny, "none"), videos, {0: [1, 4]})
    assert found.labels.tolist() == [1, 1]


def test_features_that_are_not_finite_are_named(tiny, videos):
    run = inference(tiny, "none")
    with torch.no_grad():
        run.detector.head.fpn.layer_blocks[0][0].bias[0] = torch.nan
    with pytest.raises(ValueError, match="video v1 frame 2 are not finite"):
        object_features(run, videos, {1: [2]})


def test_frames_without_objects_are_refused(tiny, videos, monkeypatch):
    none = FrameObjects(
        np.zeros((0, 4), np.float32), *(np.zeros(0, np.int64),) * 2, np.zeros(0, np.bool_)
    )
    monkeypatch.setattr(videos, "objects", lambda video, index: none)
    with pytest.raises(ValueError, match="no object"):
        object_features(inference(tiny, "none"), videos, {1: [2]})
