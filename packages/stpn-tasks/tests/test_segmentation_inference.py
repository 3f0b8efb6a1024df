"""Segmentation of whole videos: streams, support frames, controls, and what a user gets."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch.testing import assert_close

from stpn_data import VideoReader, VideoWriter
from stpn_tasks.cli import main
from stpn_tasks.draw import COLOURS
from stpn_tasks.recipes import SupportOptions
from stpn_tasks.segmentation.build import build_segmenter
from stpn_tasks.segmentation.checkpoint import SavedSegmenter, save_segmenter
from stpn_tasks.segmentation.draw import draw_masks
from stpn_tasks.segmentation.inference import build_inference
from stpn_tasks.segmentation.predict import predict_video
from stpn_tasks.segmentation.video_output import VideoOutput

CPU = torch.device("cpu")
POLICIES = ["window", "grid", "causal", "uniform"]


@pytest.fixture(scope="module")
def videos(tiny_segmentation, tmp_path_factory):
    return tiny_segmentation.videos(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def saved(tiny_segmentation, videos):
    recipe = tiny_segmentation.recipe()
    return SavedSegmenter(tiny_segmentation.segmenter(recipe), recipe, videos.classes)


@pytest.fixture
def clip(videos, tmp_path):
    """The first video as a folder of frames, which loses nothing."""
    import cv2

    folder = tmp_path / "clip"
    folder.mkdir()
    for t in range(8):
        cv2.imwrite(str(folder / f"{t:03d}.png"), videos.frame(0, t)[..., ::-1])
    return folder


def run(saved, videos, numbers=(0,), **options):
    together = options.pop("frames_per_pass", 1)
    inference = build_inference(saved, CPU, SupportOptions(**options), together)
    return list(inference.videos(videos, list(numbers)))


def baseline_of(saved, tiny_segmentation):
    """Return plain MinVIS with the weights of STPN."""
    recipe = tiny_segmentation.recipe("none")
    plain = build_segmenter(recipe, 6).eval()
    own = plain.state_dict()
    plain.load_state_dict({k: v for k, v in saved.segmenter.state_dict().items() if k in own})
    return SavedSegmenter(plain, recipe, saved.classes)


def differ(one, other):
    return max(float((a.masks - b.masks).abs().max()) for a, b in zip(one, other, strict=True))


@torch.no_grad()
def offline(saved, videos, index, sampler, source=0):
    """Segment a frame by the encoder's own definition: the frame and its support frames."""
    inference = build_inference(saved, CPU, SupportOptions(test_sampler=sampler))
    prepare, sample = inference.encoding.prepare, inference.encoding.sampler
    support = [prepare([videos.frame(source, t)]) for t in sample(index, 8)]
    frame = prepare([videos.frame(0, index)])
    encoder = saved.segmenter.encoder
    return saved.segmenter.segment(encoder(frame, torch.stack(support, dim=1)))


@pytest.mark.parametrize("frames_per_pass", [1, 3])
@pytest.mark.parametrize("policy", POLICIES)
def test_every_frame_is_segmented_with_its_support_frames(saved, videos, policy, frames_per_pass):
    found = run(saved, videos, test_sampler=policy, frames_per_pass=frames_per_pass)
    assert [frame.index for frame in found] == list(range(8))
    for frame in found:
        expected = offline(saved, videos, frame.index, policy)
        assert_close(frame.masks, expected.masks, atol=1e-3, rtol=1e-3)
        assert_close(frame.logits, expected.logits, atol=1e-3, rtol=1e-3)
        assert_close(frame.embeddings, expected.embeddings, atol=1e-3, rtol=1e-3)
        assert frame.sizes.padded == (48, 64)


@pytest.mark.parametrize("policy", POLICIES)
def test_videos_in_lock_step_are_as_one_by_one(saved, videos, policy):
    together = run(saved, videos, (0, 1), test_sampler=policy)
    for number in (0, 1):
        alone = run(saved, videos, (number,), test_sampler=policy)
        for both, one in zip(together, alone, strict=True):
            assert_close(both.masks[number], one.masks[0], atol=1e-3, rtol=1e-3)


def test_without_prompts_it_is_the_baseline_with_the_same_weights(saved, videos, tiny_segmentation):
    off = run(saved, videos, off=True)
    baseline = run(baseline_of(saved, tiny_segmentation), videos)
    assert differ(off, baseline) == 0
    assert differ(off, run(saved, videos)) > 1e-3


def test_support_frames_of_another_video_come_in_by_prompts_alone(saved, videos, tiny_segmentation):
    other = run(saved, videos, support_video="other")
    assert differ(other, run(saved, videos)) > 1e-3
    expected = offline(saved, videos, 3, "window", source=1)
    assert_close(other[3].masks, expected.masks, atol=1e-3, rtol=1e-3)
    baseline = baseline_of(saved, tiny_segmentation)
    assert differ(run(baseline, videos, support_video="other"), run(baseline, videos)) == 0


def test_predict_says_of_a_stream_what_is_found_in_the_whole_video(saved, videos, clip, tmp_path):
    inference = build_inference(saved, CPU, SupportOptions())
    prediction = predict_video(
        inference, VideoReader(clip), saved.classes, tmp_path / "out", threshold=0.0, progress=False
    )
    assert prediction.num_frames == 8
    assert prediction.failure is None
    assert len(list(VideoReader(prediction.video))) == 8
    output = None
    for frame in inference.videos(videos, [0]):
        output = output or VideoOutput(frame.sizes)
        output.push(frame.logits, frame.masks, frame.embeddings)
    written = json.loads(prediction.tracks.read_text())
    assert (written["height"], written["width"], written["num_frames"]) == (48, 64, 8)
    expected = output.best_of_each_track()
    assert len(written["tracks"]) == len(expected) == 5
    for one, other in zip(written["tracks"], expected, strict=True):
        assert one["track"] == other.track
        assert one["label"] == saved.classes[other.label]
        assert one["score"] == pytest.approx(other.score, abs=1e-4)
        assert one["segmentations"] == list(other.masks)
    assert any(coco_mask.area(list(track["segmentations"])).any() for track in written["tracks"])


@pytest.mark.parametrize("policy", ["window", "uniform"])
def test_a_video_that_breaks_off_is_written_up_to_there(saved, clip, tmp_path, policy):
    (clip / "005.png").write_bytes(b"no picture")
    support = SupportOptions(test_sampler=policy)
    inference = build_inference(saved, CPU, support)
    prediction = predict_video(
        inference, VideoReader(clip), saved.classes, tmp_path / "out", progress=False
    )
    assert prediction.num_frames == 5
    assert "005.png" in str(prediction.failure)
    assert json.loads(prediction.tracks.read_text())["num_frames"] == 5


def test_predict_on_the_command_line_and_what_it_refuses(
    saved, tiny_segmentation, videos, tmp_path, capsys
):
    weights = tmp_path / "run" / "model.safetensors"
    weights.parent.mkdir()
    save_segmenter(weights, saved.segmenter, saved.recipe, saved.classes)
    with VideoWriter(tmp_path / "clip.mp4", 10, (48, 64)) as writer:
        for t in range(8):
            writer.write(videos.frame(1, t))
    command = ("predict", "segmentation", tmp_path / "clip.mp4", "--weights", weights)
    main([*map(str, command), "--output", str(tmp_path / "out"), "--device", "cpu"])
    assert "8 frames" in capsys.readouterr().out
    assert (tmp_path / "out" / "clip.json").is_file()
    for options, message in (
        (("--output", tmp_path), "is the video itself: choose another output folder"),
        (("--support.support-video", "other"), "a stream has no other video"),
        (("--frames-per-pass", 0), "frames_per_pass must be at least 1"),
    ):
        with pytest.raises(SystemExit):
            main([*map(str, command), *map(str, options), "--device", "cpu"])
        assert message in capsys.readouterr().err


def test_static_prompts_cannot_be_off(tiny_segmentation, videos):
    recipe = tiny_segmentation.recipe("static", centre_clips=0)
    saved = SavedSegmenter(build_segmenter(recipe, 6).eval(), recipe, videos.classes)
    assert len(run(saved, videos)) == 8
    with pytest.raises(ValueError, match=r"support.off is for prompts of support frames"):
        run(saved, videos, off=True)


def test_an_object_keeps_its_colour_and_an_empty_mask_is_not_drawn():
    image = np.full((60, 80, 3), 128, np.uint8)
    masks = np.zeros((3, 60, 80), bool)
    masks[0, 20:40, 10:30] = masks[1, 20:40, 50:70] = True
    drawn = draw_masks(image, masks, [3, 11, 4], ["a", "b", "c"])
    assert (image == 128).all()
    for row, column, number in ((30, 20, 3), (30, 60, 1)):
        mixed = 0.55 * 128 + 0.45 * np.array(COLOURS[number])
        assert np.abs(drawn[row, column] - mixed).max() <= 1
    assert (drawn[50] == 128).all()
    again = draw_masks(image, masks[:1], [3], ["a"])
    assert (again[30, 20] == drawn[30, 20]).all()
    assert (draw_masks(image, masks[:0], [], []) == image).all()


@pytest.mark.parametrize(("window_size", "rows"), [(4, 49), (6, 121)])
def test_windows_are_as_large_as_the_recipe_says(tiny_segmentation, window_size, rows):
    recipe = tiny_segmentation.recipe("none")
    backbone = replace(recipe.backbone, window_size=window_size)
    weights = build_segmenter(replace(recipe, backbone=backbone), 6).state_dict()
    tables = [key for key in weights if key.endswith("relative_position_bias_table")]
    assert {len(weights[key]) for key in tables} == {rows}
