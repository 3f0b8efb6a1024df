"""Generated tracking sequences: equal objects, one attribute, true boxes, the same from a seed."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import cv2
import numpy as np
import pytest

from stpn_data.deteriorated.layers import background_layer
from stpn_data.deteriorated.options import KINDS
from stpn_data.deteriorated.random import Stream
from stpn_data.deteriorated.tracking_looks import Wardrobe
from stpn_data.deteriorated.tracking_options import ATTRIBUTES, TrackingOptions
from stpn_data.deteriorated.tracking_render import RenderedSequence, render_sequence
from stpn_data.deteriorated.tracking_scene import TrackingScene, draw_tracking_scene

OPTIONS = TrackingOptions(num_frames=(24, 28))
GOLDEN = ["f621594db8a2f828", "3737481b191b4d84"]
GOLDEN_BOXES = [[7.0, 54.0, 32.0, 92.0], [12.0, 1.0, 38.0, 39.0], [58.0, 6.0, 84.0, 44.0]]


def scene_of(options: TrackingOptions, index: int) -> TrackingScene:
    return draw_tracking_scene(options, Stream(0, "train", index, "scene"))


def wardrobe_of(options: TrackingOptions, scene: TrackingScene) -> Wardrobe:
    rng = np.random.default_rng(0)
    background = background_layer(options.of_frames(scene.num_frames), rng)
    return Wardrobe(scene, options, background, rng)


def digest(sequence: RenderedSequence) -> str:
    a = sequence.annotations
    parts = [a.boxes_xyxy.tobytes(), a.new_look.tobytes()]
    parts.append(repr((a.target, a.decoy, a.attribute, a.kinds)).encode())
    return hashlib.sha256(b"|".join(parts)).hexdigest()[:16]


def target_centers(scene: TrackingScene) -> np.ndarray:
    return scene.objects.tracks[scene.target].centers


def test_same_seed_renders_same_bits() -> None:
    first, second = (render_sequence(OPTIONS, 7, "train", 5) for _ in range(2))
    assert np.array_equal(first.frames, second.frames)
    assert digest(first) == digest(second)


def test_annotations_are_those_of_every_machine() -> None:
    # Written down once. If these change, so must TRACKING_VERSION.
    late = TrackingOptions(change_start=(0.55, 0.75), leaving=0.5)
    sequences = [render_sequence(late, 0, "train", i) for i in range(2)]
    assert [digest(one) for one in sequences] == GOLDEN
    a = render_sequence(TrackingOptions(), 0, "train", 0).annotations
    assert a.boxes_xyxy[:3, a.target].tolist() == GOLDEN_BOXES


def test_seed_split_and_index_all_matter() -> None:
    sequences = [(0, "train", 0), (1, "train", 0), (0, "val", 0), (0, "test", 0), (0, "train", 1)]
    rendered = [render_sequence(OPTIONS, *one) for one in sequences]
    assert len({digest(one) for one in rendered}) == len(sequences)
    assert len({one.frames.tobytes() for one in rendered}) == len(sequences)


def test_other_deteriorations_show_the_same_scene() -> None:
    base = render_sequence(OPTIONS, 0, "train", 0)
    clean = render_sequence(replace(OPTIONS, deteriorated=0.0), 0, "train", 0)
    assert np.array_equal(base.annotations.boxes_xyxy, clean.annotations.boxes_xyxy, equal_nan=True)
    assert base.annotations.kinds.count(None) < len(base.frames)
    for t, kind in enumerate(base.annotations.kinds):
        assert np.array_equal(base.frames[t], clean.frames[t]) == (kind is None)


def test_first_frame_is_clean_and_shows_the_whole_target() -> None:
    kinds = set()
    for i in range(6):
        a = render_sequence(replace(OPTIONS, leaving=1.0), 0, "val", i).annotations
        assert not np.isnan(a.boxes_xyxy[0]).any()
        assert a.kinds[0] is None
        kinds |= set(a.kinds)
    assert len(kinds & set(KINDS)) >= 3


def test_boxes_enclose_what_is_seen_of_an_object_exactly() -> None:
    options = replace(OPTIONS, leaving=0.5, crossing=1.0)
    partly, hidden = 0, 0
    for i in range(3):
        scene = scene_of(options, i)
        boxes = render_sequence(options, 0, "train", i).annotations.boxes_xyxy
        x, y = scene.objects.tracks[0].outline.T
        whole = abs((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2
        for t in range(scene.num_frames):
            masks = scene.objects.visible_masks(t, *options.size)
            for mask, box, track in zip(masks, boxes[t], scene.objects.tracks, strict=True):
                area = whole * np.linalg.det(track.matrices[t])
                if np.isnan(box).all():
                    assert mask.sum() < 0.26 * area
                    hidden += 1
                    continue
                assert mask.sum() > 0.24 * area
                partly += mask.sum() < 0.8 * area
                rows, columns = np.nonzero(mask)
                tightest = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert box.tolist() == tightest
    assert partly > 0
    assert hidden > 0


def test_boxes_are_where_the_objects_are_drawn() -> None:
    options = replace(OPTIONS, deteriorated=0.0, attributes=("period",))
    for i in range(3):
        rendered = render_sequence(options, 0, "train", i)
        masks = scene_of(options, i).objects.visible_masks(9, *options.size)
        inside = cv2.erode(masks.any(axis=0).astype(np.uint8), np.ones((5, 5))) > 0
        outside = cv2.dilate(masks.any(axis=0).astype(np.uint8), np.ones((7, 7))) == 0
        gray = cv2.GaussianBlur(rendered.frames[9].astype(np.float32), (0, 0), 1.0)
        edges = abs(cv2.Laplacian(gray, cv2.CV_32F)).mean(axis=2)
        assert edges[inside].mean() > 3 * edges[outside].mean()


def test_objects_differ_in_exactly_one_attribute() -> None:
    options, seen = replace(OPTIONS, attributes=ATTRIBUTES), set()
    for i in range(12):
        scene = scene_of(options, i)
        tracks = scene.objects.tracks
        assert 5 <= len(tracks) <= 7
        for track in tracks:
            assert track.label == tracks[0].label
            assert np.array_equal(track.outline, tracks[0].outline)
            assert np.array_equal(track.matrices, tracks[0].matrices)
        looks = wardrobe_of(options, scene).first_looks
        swings, periods = looks[:, :3], looks[:, 3]
        if scene.attribute == "colors":
            assert len(set(periods)) == 1
            directions = swings / np.linalg.norm(swings, axis=1, keepdims=True)
            likeness = abs(directions @ directions.T) - np.eye(len(tracks))
            assert likeness.max() < 0.95
        else:
            assert np.ptp(swings, axis=0).max() == 0
            assert np.diff(np.sort(periods)).min() > np.log(1.1)
        seen.add(scene.attribute)
    assert seen == set(ATTRIBUTES)


def test_objects_that_differ_in_colors_have_the_same_pattern() -> None:
    options = replace(OPTIONS, attributes=("colors",))
    scene = scene_of(options, 0)
    wardrobe = wardrobe_of(options, scene)
    patterns = []
    for layer, look in zip(wardrobe.layers(0), wardrobe.first_looks, strict=True):
        whole = layer.picture[layer.picture[:, :, 3] == 1]  # (pixels, 4)
        patterns.append((whole[:, :3] - whole[:, :3].mean(axis=0)) @ look[:3])
    assert np.corrcoef(patterns).min() > 0.999


def test_objects_that_differ_in_period_have_it_in_the_same_direction_and_phase() -> None:
    options = replace(OPTIONS, attributes=("period",), periods=(9.0, 9.001))
    first, *others = wardrobe_of(options, scene_of(options, 0)).layers(0)
    for layer in others:
        assert abs(layer.picture - first.picture).max() < 2


def test_camera_shakes_background_and_objects_alike() -> None:
    clean = replace(OPTIONS, deteriorated=0.0, num_distractors=(1, 1))
    options = replace(clean, jumps=0.0, swaps=0.0, wander=0.0, shake=14.0)
    scene, rendered = scene_of(options, 0), render_sequence(options, 0, "train", 0)
    for track in scene.objects.tracks:
        still = track.centers - scene.camera
        assert abs(still - still[0]).max() < 1e-9
    followed, ignored = [], []
    for t in range(8):
        x, y = scene.camera[t + 1] - scene.camera[t]
        before, after = (
            cv2.GaussianBlur(rendered.frames[i].astype(np.float32), (0, 0), 2.0) for i in (t, t + 1)
        )
        moved = cv2.warpAffine(before, np.array([[1, 0, x], [0, 1, y]]), options.size[::-1])
        covered = sum(
            scene.objects.visible_masks(i, *options.size).any(axis=0).astype(np.uint8)
            for i in (t, t + 1)
        )
        inner = np.zeros(options.size, bool)
        inner[30:-30, 30:-30] = True
        free = inner & (cv2.dilate(covered, np.ones((31, 31))) == 0)
        followed.append(abs(moved - after)[free].mean())
        ignored.append(abs(before - after)[free].mean())
    assert np.mean(followed) < 0.5 * np.mean(ignored)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_a_distractor_takes_the_look_that_the_target_gives_up(attribute: str) -> None:
    options = replace(OPTIONS, attributes=(attribute,))
    for i in range(4):
        scene = scene_of(options, i)
        wardrobe, last = wardrobe_of(options, scene), scene.num_frames - 1
        assert scene.target != scene.decoy
        assert scene.new_look[0] == 0
        first = wardrobe.look(scene.target, 0)
        assert np.array_equal(wardrobe.look(scene.decoy, last), first)
        now = wardrobe.look(scene.target, last)
        numbers = set(range(len(scene.objects.tracks))) - {scene.target}
        for j in numbers:
            assert np.linalg.norm(now - wardrobe.look(j, 0)) > 0.1
            assert np.linalg.norm(now - wardrobe.look(j, last)) > 0.1
        for j in numbers - {scene.decoy}:
            assert np.array_equal(wardrobe.look(j, 0), wardrobe.look(j, last))


def test_every_sequence_ends_in_the_new_look() -> None:
    scenes = [scene_of(TrackingOptions(), i) for i in range(60)]
    assert all(scene.new_look[0] == 0 for scene in scenes)
    assert all(scene.new_look[-1] == 1 for scene in scenes)
    share = np.mean(np.concatenate([scene.new_look == 0 for scene in scenes]))
    assert 0.35 < share < 0.55


@pytest.mark.parametrize(("tint", "is_left"), [(0.0, False), (0.6, True)])
def test_blur_leaves_nothing_to_tell_objects_by_but_the_tint(tint: float, is_left: bool) -> None:
    options = replace(OPTIONS, deteriorated=0.0, attributes=("colors",), tint=tint)
    inner, means = [], []
    for i in range(4):
        rendered = render_sequence(options, 0, "train", i)
        masks = scene_of(options, i).objects.visible_masks(0, *options.size)
        colors = [
            rendered.frames[0][cv2.erode(m.astype(np.uint8), np.ones((5, 5))) > 0] for m in masks
        ]
        inner.append(np.mean([c.std(axis=0).mean() for c in colors]))
        means.append(np.std([c.mean(axis=0) for c in colors], axis=0).mean())
    assert (np.mean(means) > 0.25 * np.mean(inner)) == is_left


def test_target_jumps_within_reach_and_is_everywhere_alike() -> None:
    options = TrackingOptions(jumps=1.0, wander=0.0, shake=0.0, num_distractors=(4, 6))
    ends = []
    for i in range(150):
        centers = target_centers(scene_of(options, i))
        steps = abs(np.diff(centers, axis=0)).max(axis=1)
        assert steps.max() <= options.reach
        ends.append(tuple(np.floor(centers[-1] / 48).astype(int)))
    counts = [ends.count((x, y)) for x in range(3) for y in range(3)]
    assert min(counts) >= 6  # 150 / 9 are expected
    assert counts[4] <= 30


def test_without_jumps_and_swaps_nobody_leaves_its_place() -> None:
    options = replace(OPTIONS, jumps=0.0, swaps=0.0)
    for track in scene_of(options, 0).objects.tracks:
        assert np.ptp(track.centers, axis=0).max() <= 2 * (options.wander + options.shake)


def test_crossing_objects_walk_and_hide_each_other() -> None:
    options = replace(OPTIONS, jumps=0.0, swaps=1.0, crossing=1.0, shake=0.0, wander=0.0)
    hidden = 0
    for i in range(6):
        scene = scene_of(options, i)
        steps = abs(np.diff(target_centers(scene), axis=0)).max(axis=1)
        assert 0 < steps.max() <= options.reach / 6
        hidden += np.isnan(scene.boxes(options.size)).any()
    assert hidden >= 2


def test_leaving_objects_are_absent_for_some_frames_and_come_back() -> None:
    options = replace(OPTIONS, leaving=1.0, crossing=0.0)
    for i in range(6):
        scene = scene_of(options, i)
        absent = np.isnan(scene.boxes(options.size)[:, :, 0])
        for one in absent.T:
            assert 2 <= one.sum() <= 9
            assert not one[0]
            assert not one[-1]
    stays = scene_of(replace(options, leaving=0.0), 0)
    assert not np.isnan(stays.boxes(options.size)).any()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_frames", (8, 20)),
        ("num_distractors", (0, 4)),
        ("attributes", ("shape",)),
        ("textures", ()),
        ("periods", (2.0, 9.0)),
        ("change_start", (0.8, 0.2)),
        ("jumps", 1.5),
        ("leaving", float("nan")),
        ("reach", -1.0),
        ("shake", 100.0),
        ("object_size", (4.0, 9.0)),
        ("strength", 2.0),
    ],
)
def test_wrong_options_are_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        replace(TrackingOptions(), **{field: value})  # type: ignore[arg-type]


def test_fingerprint_follows_options_and_seed() -> None:
    prints = {OPTIONS.fingerprint(0), OPTIONS.fingerprint(1), TrackingOptions().fingerprint(0)}
    assert len(prints) == 3
    assert OPTIONS.fingerprint(0) == TrackingOptions(num_frames=(24, 28)).fingerprint(0)
