import base64
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from stpn_data.videos import FrameObjects
from stpn_tasks.detection.build import build_preparation, build_test_sampler
from stpn_tasks.detection.detections import Detections
from stpn_tasks.detection.inference import VideoInference
from stpn_tasks.metrics import AveragePrecision, FrameDetections, FrameTruth
from stpn_tasks.report.attention import (
    attention_maps,
    draw_attention,
    has_attention,
    most_different,
)
from stpn_tasks.report.gallery import load_sections, picture_sections, save_sections
from stpn_tasks.report.pictures import Cell, Line, Pictures, encode, grid, thumbnail
from stpn_tasks.report.strips import choose_strips, pick, rank_frames
from stpn_tasks.results import Model, Results, Run

LABELS = {"baseline": "Baseline", "stpn": "STPN"}
NOTHING = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))


def perfect(dataset, number, frame):
    objects = dataset.objects(number, frame)
    boxes, labels = torch.from_numpy(objects.boxes_xyxy), torch.from_numpy(objects.labels)
    return Detections(boxes, torch.full((len(labels),), 0.9), labels)


def detections(dataset, right):
    """Right in the frames for which ``right(video, frame)`` says so, nothing in the others."""
    return {
        number: [
            perfect(dataset, number, t) if right(number, t) else NOTHING
            for t in range(video.num_frames)
        ]
        for number, video in enumerate(dataset.videos)
    }


def results(names=tuple(LABELS)):
    run = Run(0, {"test": {"all": AveragePrecision(*[0.5] * 6)}})
    return Results("Title", {}, tuple(Model(name, LABELS[name], name, (run,)) for name in names))


def inference(tiny, recipe, sampler=...):
    detector = tiny.detector(recipe)
    chosen = build_test_sampler(recipe) if sampler is ... else sampler
    return VideoInference(detector, chosen, build_preparation(recipe, torch.device("cpu")))


@pytest.fixture
def dataset(tiny):
    return tiny.MovingSquares(((6, 64, 96), (6, 64, 96), (6, 64, 96)))


@pytest.fixture
def pictures(tiny, dataset):
    """STPN is right where t is even, the baseline in the first video and at the last frames."""
    by_model = {
        "baseline": detections(dataset, lambda number, t: number == 0 or t == 5),
        "stpn": detections(dataset, lambda _, t: t % 2 == 0),
    }
    return Pictures(dataset, by_model, inference(tiny, tiny.recipe()))


def images(markup):
    found = re.findall(r'<img src="data:image/webp;base64,([^"]+)" alt="([^"]*)"', markup)
    return [(_decoded(data), alt) for data, alt in found]


def _decoded(data):
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)[
        ..., ::-1
    ]


def with_conditions(tiny, *videos):
    """A data set whose frames have the conditions given, one string of letters per video."""
    names = {"c": {"clean"}, "b": {"deteriorated", "blur"}, "d": {"deteriorated", "dark"}}

    class Named(tiny.MovingSquares):
        def conditions(self, video, index):
            return frozenset(names[videos[video][index]])

    return Named(tuple((len(kinds), 64, 96) for kinds in videos))


def test_strips_show_the_longest_deteriorated_run_and_every_condition_before_the_second(tiny):
    data = with_conditions(tiny, "cccccccc", "cdccbbbc", "ccccccbb", "ddcccccc", "cccccbbb")
    strips = choose_strips(data)
    assert [(strip.video, strip.centre) for strip in strips] == [(1, 5), (3, 1), (2, 7), (4, 6)]
    assert [list(strip.frames) for strip in strips][:2] == [[*range(2, 8)], [*range(6)]]
    assert list(strips[2].frames) == [2, 3, 4, 5, 6, 7]
    assert all(strip.centre in strip.frames for strip in strips)


def test_short_and_clean_video_has_strips_too(tiny):
    strips = choose_strips(with_conditions(tiny, "ccc", "cccccccccc"))
    assert [(s.video, s.centre, len(s.frames)) for s in strips] == [(0, 1, 3), (1, 5, 6)]


def test_frames_are_ranked_by_the_lead_of_the_second_model_and_then_in_order(pictures):
    ranked = [(one.lead, one.video, one.frame) for one in rank_frames(pictures)]
    assert ranked == sorted(ranked, key=lambda one: (-one[0], one[1], one[2]))
    assert [lead for lead, *_ in ranked] == [1.0] * 6 + [0.0] * 7 + [-1.0] * 5
    assert ranked[0] == (1.0, 1, 0)


def test_a_single_model_is_ranked_by_its_own_score(pictures):
    alone = replace(pictures, detections={"stpn": pictures.detections["stpn"]})
    assert [one.lead for one in rank_frames(alone)] == [1.0] * 9 + [0.0] * 9


def test_frames_are_picked_from_different_videos_where_there_are_enough(pictures):
    ranked = rank_frames(pictures)
    picked = [(one.video, one.frame) for one in pick(ranked, num_videos=3)]
    assert picked == [(1, 0), (1, 2), (2, 0), (2, 2)]  # at most two of a video
    assert len({one.video for one in pick(ranked, num_videos=100)}) == 3


def test_the_sections_show_truth_and_both_models(pictures):
    strips, ranked, attention = picture_sections(results(), pictures)
    assert [s.title for s in (strips, ranked, attention)] == [
        "Consecutive frames",
        "Best and worst frames",
        "Where the prompts look",
    ]
    alts = [alt for _, alt in images("".join(strips.body))]
    assert len(alts) == 3 * 6 * 3
    assert alts[:6] == [
        "video v0, frame 0, truth: bright",
        "video v0, frame 0, Baseline: bright 0.90",
        "video v0, frame 0, STPN: bright 0.90",
        "video v0, frame 1, truth: bright",
        "video v0, frame 1, Baseline: bright 0.90",
        "video v0, frame 1, STPN: no boxes",
    ]
    markup = "".join(ranked.body)
    assert "STPN has a higher F1 than Baseline on 6, a lower one on 5, and the same on 7." in markup
    assert "frame by frame: +1.00, +1.00, +1.00, +1.00." in markup
    assert "frame by frame: −1.00, −1.00, −1.00, −1.00." in markup
    alts = [alt for _, alt in images(markup)]
    best, worst = alts[:12], alts[12:]
    assert [alt for alt in best if "Baseline" in alt] == [
        f"video v{v}, frame {t}, Baseline: no boxes" for v, t in ((1, 0), (1, 2), (2, 0), (2, 2))
    ]
    assert all("no boxes" in alt for alt in worst if "STPN" in alt)
    assert "0/1 found" in markup


def test_where_no_frame_is_worse_the_page_says_so(pictures):
    always = detections(pictures.dataset, lambda *_: True)
    better = replace(pictures, detections={**pictures.detections, "stpn": always})
    markup = "".join(picture_sections(results(), better)[1].body)
    assert markup.count("There is no such frame.") == 1


def test_one_model_has_best_and_worst_frames(pictures):
    alone = replace(pictures, detections={"stpn": pictures.detections["stpn"]})
    markup = "".join(picture_sections(results(["stpn"]), alone)[1].body)
    assert "F1, frame by frame: 1.00, 1.00, 1.00, 1.00." in markup
    assert "F1, frame by frame: 0.00, 0.00, 0.00, 0.00." in markup


def test_video_without_objects_is_shown(tiny, pictures):
    class Empty(tiny.MovingSquares):
        def objects(self, video, index):
            nothing = np.zeros(0, np.int64)
            return FrameObjects(
                np.zeros((0, 4), np.float32), nothing, nothing, nothing.astype(bool)
            )

    empty = Empty(((6, 64, 96), (2, 48, 48)))
    none = {number: [NOTHING] * v.num_frames for number, v in enumerate(empty.videos)}
    strips, ranked, _ = picture_sections(
        results(), Pictures(empty, {"baseline": none, "stpn": none})
    )
    assert "0/0 found" in "".join(strips.body)
    assert "the same on 8." in "".join(ranked.body)


def test_names_of_classes_and_videos_are_escaped(tiny, pictures):
    class Hostile(tiny.MovingSquares):
        classes = ('<b>"x"</b>', "<i>")

    hostile = Hostile(((6, 64, 96), (6, 64, 96), (6, 64, 96)))
    hostile.videos = [replace(video, name=f"<u>{video.name}") for video in hostile.videos]
    sections = picture_sections(results(), replace(pictures, dataset=hostile))
    markup = "".join(part for section in sections for part in section.body)
    assert not re.search("<[biu]>", markup)
    assert "&lt;b&gt;&quot;x&quot;&lt;/b&gt; 0.90" in markup


def test_small_frames_are_enlarged_and_large_ones_shrunk_with_their_boxes():
    for size, expected in (
        ((112, 112), (336, 336)),
        ((720, 1280), (252, 448)),
        ((300, 400), (300, 400)),
        ((1280, 720), (448, 252)),
        ((2, 900), (1, 448)),
    ):
        image = np.full((*size, 3), 128, np.uint8)
        assert thumbnail(image).shape == (*expected, 3)
    boxes = FrameDetections(
        np.array([[640, 360, 1200, 700], [0, 0, 300, 300]], np.float32),
        np.array([0.3, 0.29], np.float32),
        np.zeros(2, np.int64),
    )
    drawn = thumbnail(np.full((720, 1280, 3), 128, np.uint8), boxes, ["a"])
    assert tuple(drawn[200, 224]) == (230, 25, 75)  # the left edge, at 0.35 of its place
    assert (drawn[:100, :200] == 128).all()  # a score below 0.3 is not drawn


def test_crowds_are_not_drawn():
    crowd = FrameTruth(
        np.array([[5, 5, 60, 60]], np.float32), np.zeros(1, np.int64), np.ones(1, bool)
    )
    assert (thumbnail(np.full((112, 112, 3), 9, np.uint8), crowd, ["a"]) == 9).all()


def test_an_encoded_image_is_the_image():
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 32:] = (250, 20, 90)
    decoded = _decoded(encode(image).partition(",")[2])
    assert np.abs(decoded.astype(int) - image).mean() < 4


def test_a_grid_has_one_order_of_cells_for_phone_and_screen():
    image = np.zeros((4, 4, 3), np.uint8)
    lines = [Line(str(t), "x", (Cell(image, f"a{t}"), Cell(None))) for t in range(2)]
    markup = grid(["one", "two"], lines)
    assert re.findall(r'class="(\w+)"', markup)[1:] == [
        *("corner", "label", "label"),
        *("what", "cell", "empty") * 2,
    ]
    assert "--rows:2;--least:5.5rem" in markup
    wide = [Line("0", "", (Cell(np.zeros((9, 16, 3), np.uint8)),))]
    assert "--least:9.5rem" in grid(["one"], wide)


def test_incomplete_detections_are_named(pictures):
    lacking = {**pictures.detections["stpn"], 1: [NOTHING] * 5}
    with pytest.raises(
        ValueError, match="stpn has detections of 5 frames of video v1, which has 6"
    ):
        replace(pictures, detections={"stpn": lacking})
    with pytest.raises(ValueError, match="one model or two"):
        replace(pictures, detections={})
    with pytest.raises(KeyError, match="no model 'baseline'"):
        picture_sections(results(["stpn"]), pictures)


@pytest.mark.parametrize("predictor", ["transformer", "attention"])
def test_attention_is_that_of_the_encoder(tiny, pictures, predictor):
    recipe = tiny.recipe(predictor)
    mine = replace(pictures, inference=inference(tiny, recipe))
    maps = attention_maps(mine, 1, 2)
    encoder, prepare = mine.inference.detector.encoder, mine.inference.prepare
    assert maps.support == tuple(mine.inference.sampler(2, 6))
    assert maps.video == 1
    frames = prepare([mine.dataset.frame(1, t) for t in maps.support])
    with torch.no_grad():
        expected = encoder.predictor.attention_map(encoder.embed(frames)[None])[0]
    assert maps.weights.shape == (3, 4, *encoder.backbone.grid_size(*frames.shape[-2:]))
    np.testing.assert_allclose(maps.weights.reshape(3, 4, -1), expected.numpy(), rtol=1e-5)
    np.testing.assert_allclose(maps.weights.sum((1, 2, 3)), 1, rtol=1e-5)


def test_padding_is_cut_off_a_map(tiny, pictures):
    recipe = tiny.recipe()
    recipe = replace(recipe, images=replace(recipe.images, test_size=33, max_size=64))
    maps = attention_maps(replace(pictures, inference=inference(tiny, recipe)), 0, 3)
    height, width = (33, round(33 * 96 / 64))
    assert maps.shown == pytest.approx((height / 48, width / 64), abs=0.02)


def test_attention_follows_support_frames_of_another_video(pictures):
    other = replace(pictures, inference=replace(pictures.inference, support_video="other"))
    assert [attention_maps(other, number, 2).video for number in range(3)] == [1, 2, 0]
    own, foreign = attention_maps(pictures, 1, 2), attention_maps(other, 0, 2)
    np.testing.assert_allclose(own.weights, foreign.weights, rtol=1e-5)
    assert "<strong>0</strong> v1" in draw_attention(other, 0, 2)


def test_the_brightest_place_of_a_map_is_that_of_its_strongest_token(pictures, monkeypatch):
    weights = np.full((3, 4, 8, 12), 1e-5, np.float32)
    weights[:, 2, 1, 9] = 1
    maps = attention_maps(pictures, 0, 2)
    fake = replace(maps, weights=weights, shown=(1.0, 1.0))
    monkeypatch.setattr("stpn_tasks.report.attention.attention_maps", lambda *_: fake)
    markup = draw_attention(pictures, 0, 2)
    shown = [image for image, alt in images(markup) if "attention of all prompts" in alt]
    assert len(shown) == 4
    brightness = [image.astype(int)[..., 0] - image[..., 2] for image in shown]
    assert max(range(4), key=lambda i: brightness[i].max()) == 2
    y, x = np.unravel_index(brightness[2].argmax(), brightness[2].shape)
    height, width = brightness[2].shape
    assert (y / height, x / width) == pytest.approx((1.5 / 8, 9.5 / 12), abs=0.05)
    assert max(b.max() for i, b in enumerate(brightness) if i != 2) < 40
    assert "1/384 and every frame 25 %" in markup


def test_of_many_support_frames_those_of_largest_share_are_shown(tiny, pictures):
    many = replace(pictures, inference=inference(tiny, tiny.recipe(test_support=10, stride=1)))
    markup = draw_attention(many, 0, 3)
    assert "its 10 support frames" in markup
    assert "Shown are the 6 frames of largest share." in markup
    assert markup.count("a support frame") == 6


def test_the_two_prompts_that_differ_most_are_chosen():
    weights = np.zeros((4, 1, 2, 2), np.float32)
    weights[0, 0, 0, 0] = weights[2, 0, 0, 0] = 1
    weights[1] = 0.25
    weights[3, 0, 1, 1] = 1
    assert most_different(weights) == [0, 3]
    assert most_different(weights[:1]) == [0]


def test_without_attention_the_page_says_so(tiny, pictures):
    recipe = tiny.recipe("mixer")
    assert has_attention(pictures.inference)
    for without in (
        inference(tiny, recipe),
        inference(tiny, tiny.recipe("none")),
        inference(tiny, tiny.recipe(), sampler=None),
    ):
        assert not has_attention(without)
        section = picture_sections(results(), replace(pictures, inference=without))[-1]
        assert "Nothing to show here" in "".join(section.body)
    section = picture_sections(results(), replace(pictures, inference=None))[-1]
    assert "Nothing to show here" in "".join(section.body)


def test_kept_sections_are_read_back_and_other_files_named(pictures, tmp_path):
    sections = picture_sections(results(), pictures)
    save_sections(tmp_path / "kept.json", sections)
    assert load_sections(tmp_path / "kept.json") == sections
    for text in ("{", "[]", '{"sections": [{"title": "x"}]}'):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(ValueError, match=r"other.json is not a file of pictures"):
            load_sections(tmp_path / "other.json")
