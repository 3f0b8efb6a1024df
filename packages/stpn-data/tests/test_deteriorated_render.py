"""The renderer: what is drawn, that it is reproducible, and that deterioration deteriorates."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpn_data.deteriorated.deterioration import draw_schedule
from stpn_data.deteriorated.motion import motion_iou, speed_of
from stpn_data.deteriorated.options import KINDS, TEXTURES, RenderOptions
from stpn_data.deteriorated.random import Stream, unit_vector
from stpn_data.deteriorated.render import RenderedClip, render_clip
from stpn_data.deteriorated.scene import draw_scene
from stpn_data.deteriorated.shapes import SUBPIXELS, random_outline, rasterize
from stpn_data.deteriorated.textures import paint

OPTIONS = RenderOptions(num_objects=(2, 2))
GOLDEN = ["fa3cc8219180cd8e", "abb671d7e86d2a2c", "5efc727318eb5b76"]
GOLDEN_BOXES = [[38.0, 35.0, 65.0, 72.0], [36.0, 37.0, 63.0, 75.0], [35.0, 39.0, 62.0, 77.0]]


def digest(clip: RenderedClip) -> str:
    a = clip.annotations
    arrays = [a.frames, a.track_ids, a.labels, a.boxes_xyxy, a.packed_masks]
    parts = [np.ascontiguousarray(array).tobytes() for array in arrays]
    return hashlib.sha256(b"|".join([*parts, repr(a.kinds).encode()])).hexdigest()[:16]


def sharpness(frame: np.ndarray, box: np.ndarray) -> float:
    """Contrast at the wavelength of the textures in the middle of a box."""
    gray = frame.astype(np.float32)
    band = cv2.GaussianBlur(gray, (0, 0), 1.2) - cv2.GaussianBlur(gray, (0, 0), 4.0)
    x, y = ((box[:2] + box[2:]) / 2).astype(int)
    return float(band[y - 7 : y + 7, x - 7 : x + 7].std(axis=(0, 1)).mean())


def frames_by_kind(
    options: RenderOptions, num_clips: int
) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for i in range(num_clips):
        clip = render_clip(options, 3, "val", i)
        a = clip.annotations
        for t, box in zip(a.frames, a.boxes_xyxy, strict=True):
            found.setdefault(a.kinds[t] or "clean", []).append((clip.frames[t], box))
    return found


def test_same_seed_renders_same_bits() -> None:
    first, second = (render_clip(OPTIONS, 7, "train", 5) for _ in range(2))
    assert np.array_equal(first.frames, second.frames)
    assert digest(first) == digest(second)


def test_annotations_are_those_of_every_machine() -> None:
    # Written down once. If these change, so must RENDERER_VERSION.
    assert [digest(render_clip(OPTIONS, 0, "train", i)) for i in range(3)] == GOLDEN
    boxes = render_clip(RenderOptions(), 0, "train", 0).annotations.boxes_xyxy
    assert boxes[:3].tolist() == GOLDEN_BOXES


def test_seed_split_and_index_all_matter() -> None:
    clips = [(0, "train", 0), (1, "train", 0), (0, "val", 0), (0, "test", 0), (0, "train", 1)]
    digests = {digest(render_clip(OPTIONS, *clip)) for clip in clips}
    assert len(digests) == len(clips)


def test_other_deteriorations_show_the_same_scene() -> None:
    base = render_clip(OPTIONS, 0, "train", 0)
    clean = render_clip(replace(OPTIONS, deteriorated=0.0), 0, "train", 0)
    for field in ("frames", "labels", "boxes_xyxy", "packed_masks", "motion"):
        assert np.array_equal(getattr(base.annotations, field), getattr(clean.annotations, field))
    for t, kind in enumerate(base.annotations.kinds):
        assert np.array_equal(base.frames[t], clean.frames[t]) == (kind is None)


def test_boxes_enclose_masks_exactly_and_masks_are_disjoint() -> None:
    options = RenderOptions(num_objects=(3, 4), size=(96, 120), same_class=0.0)
    for i in range(4):
        a = render_clip(options, 0, "train", i).annotations
        for t in range(options.num_frames):
            objects = a.objects(t)
            assert objects.masks is not None
            assert objects.masks.shape[1:] == options.size
            assert objects.masks.sum(axis=0).max() <= 1
            for mask, box in zip(objects.masks, objects.boxes_xyxy, strict=True):
                rows, columns = np.nonzero(mask)
                tightest = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert box.tolist() == tightest


def test_mask_covers_what_is_drawn() -> None:
    options = RenderOptions(num_objects=(1, 1), deteriorated=0.0)
    for i in range(3):
        clip = render_clip(options, 0, "train", i)
        objects = clip.annotations.objects(8)
        assert objects.masks is not None
        inside = cv2.erode(objects.masks[0].astype(np.uint8), np.ones((5, 5))) > 0
        outside = cv2.dilate(objects.masks[0].astype(np.uint8), np.ones((5, 5))) == 0
        gray = cv2.GaussianBlur(clip.frames[8].astype(np.float32), (0, 0), 1.0)
        edges = abs(cv2.Laplacian(gray, cv2.CV_32F)).mean(axis=2)
        assert edges[inside].mean() > 3 * edges[outside].mean()


def test_tracks_keep_their_class_and_move_smoothly() -> None:
    for i in range(8):
        scene = draw_scene(OPTIONS, Stream(0, "train", i, "scene"))
        a = render_clip(OPTIONS, 0, "train", i).annotations
        for track_id, track in enumerate(scene.tracks):
            rows = a.track_ids == track_id
            assert set(a.labels[rows]) <= {track.label}
            assert len(set(a.frames[rows])) == rows.sum()
            steps = np.linalg.norm(np.diff(track.centers, axis=0), axis=1)
            assert steps.max() <= 1.2 * OPTIONS.speed[1] + 1e-9
            assert np.ptp(steps) < 1e-9


def test_classes_of_a_clip_agree_or_differ_as_asked() -> None:
    def number_of_classes(options: RenderOptions, i: int) -> int:
        scene = draw_scene(options, Stream(0, "train", i, "scene"))
        return len({track.label for track in scene.tracks})

    same = replace(OPTIONS, num_objects=(3, 3))
    assert {number_of_classes(same, i) for i in range(20)} == {1}
    assert {number_of_classes(replace(same, same_class=0.0), i) for i in range(20)} == {3}
    half = [number_of_classes(replace(same, same_class=0.5), i) for i in range(200)]
    assert 70 < half.count(1) < 130


def test_all_labels_occur_about_equally() -> None:
    labels = [
        draw_scene(OPTIONS, Stream(0, "train", i, "scene")).tracks[0].label for i in range(600)
    ]
    counts = np.bincount(labels, minlength=len(OPTIONS.classes))
    assert counts.min() > 70
    assert counts.max() < 130


@pytest.mark.parametrize("share", [0.0, 0.2, 0.45, 0.6])
def test_schedule_has_the_asked_share_in_runs(share: float) -> None:
    options = RenderOptions(deteriorated=share)
    schedules = [draw_schedule(options, 0.5, Stream(0, "train", i, "schedule")) for i in range(400)]
    got = np.mean([[item is not None for item in schedule] for schedule in schedules])
    assert abs(got - share) < 0.04
    for schedule in schedules:
        assert len(schedule) == options.num_frames
        assert schedule.count(None) >= options.num_frames / 4
    if share:
        kinds = {item.kind for schedule in schedules for item in schedule if item is not None}
        assert kinds == set(KINDS)


def test_share_can_follow_speed() -> None:
    options = RenderOptions(deterioration_follows_speed=True)

    def share(rank: float) -> float:
        schedules = [
            draw_schedule(options, rank, Stream(0, "val", i, "schedule")) for i in range(99)
        ]
        return float(np.mean([[item is not None for item in s] for s in schedules]))

    assert share(0.0) == 0.0
    assert 0.1 < share(0.25) < 0.35 < share(0.5) < 0.6 < share(0.9)


def test_every_deterioration_erases_texture_and_strength_orders_it() -> None:
    means: dict[str, list[float]] = {}
    for strength in (0.3, 0.6, 1.0):
        options = RenderOptions(strength=strength, deteriorated=0.75, num_objects=(1, 1))
        for kind, frames in frames_by_kind(options, 24).items():
            if kind != "occlusion":  # a mesh has a texture of its own
                values = [sharpness(frame, box) for frame, box in frames]
                means.setdefault(kind, []).append(float(np.mean(values)))
    clean = means.pop("clean")
    assert set(means) == set(KINDS) - {"occlusion"}
    for kind, (weak, medium, strong) in means.items():
        assert clean[0] > weak > medium > strong, kind
        assert strong < 0.15 * clean[2], kind


def test_mesh_hides_more_when_stronger_but_never_all() -> None:
    def hidden(strength: float) -> float:
        options = RenderOptions(
            strength=strength, deteriorated=0.75, kinds=("occlusion",), num_frames=8
        )
        clean = replace(options, deteriorated=0.0)
        shares = []
        for i in range(6):
            clip = render_clip(options, 0, "test", i)
            difference = abs(clip.frames.astype(int) - render_clip(clean, 0, "test", i).frames)
            shares += [
                (difference[t].max(axis=2) > 10).mean()
                for t in range(8)
                if clip.annotations.kinds[t]
            ]
        return float(np.mean(shares))

    weak, strong = hidden(0.4), hidden(1.0)
    assert 0.1 < weak < strong < 0.95


def test_deteriorated_objects_can_still_be_located() -> None:
    options = RenderOptions(deteriorated=0.75, num_objects=(1, 1))
    for i in range(16):
        clip = render_clip(options, 1, "train", i)
        a = clip.annotations
        for t, kind in enumerate(a.kinds):
            masks = a.objects(t).masks
            assert masks is not None
            near = cv2.dilate(masks[0].astype(np.uint8), np.ones((13, 13))) > 0
            inside = clip.frames[t][masks[0]].mean(axis=0)
            around = clip.frames[t][near & ~masks[0]].mean(axis=0)
            assert abs(inside - around).max() > 2.5, (i, t, kind)


@pytest.mark.parametrize("texture", TEXTURES)
def test_textures_have_one_wavelength_and_contrast(texture: str) -> None:
    rng = np.random.default_rng(0)
    u, v = np.meshgrid(np.arange(64.0) - 32, np.arange(64.0) - 32)
    for _ in range(8):
        pattern = paint(texture, u, v, 6.5, rng)  # type: ignore[arg-type]
        assert abs(pattern.mean()) < 1e-9
        assert 0.6 < pattern.std() < 0.9
        blurred = cv2.GaussianBlur(pattern, (0, 0), 4.0)[16:48, 16:48]
        assert blurred.std() < 0.15 * pattern.std()


def test_any_option_renders() -> None:
    odd = RenderOptions(
        size=(64, 90),
        num_frames=1,
        classes=("speckle",),
        num_objects=(5, 5),
        object_size=(8.0, 30.0),
        speed=(0.0, 16.0),
        same_class=0.0,
        kinds=("defocus",),
        strength=1.5,
        deteriorated=0.75,
    )
    clip = render_clip(odd, 0, "test", 0)
    assert clip.frames.shape == (1, 64, 90, 3)
    assert clip.annotations.kinds == (None,)
    long = replace(odd, num_frames=60, size=(120, 64), speed=(16.0, 16.0))
    a = render_clip(long, 0, "test", 0).annotations
    assert a.boxes_xyxy[:, 2].max() <= 64
    assert a.boxes_xyxy[:, 3].max() <= 120


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", (16, 112)),
        ("num_frames", 0),
        ("classes", ("stripes",)),
        ("classes", ()),
        ("classes", ("dots", "dots")),
        ("num_objects", (2, 1)),
        ("num_objects", (0, 1)),
        ("object_size", (24.0, 60.0)),
        ("speed", (-1.0, 1.0)),
        ("speed", (0.0, float("nan"))),
        ("same_class", 1.1),
        ("kinds", ("blur",)),
        ("strength", 0.0),
        ("strength", 2.0),
        ("deteriorated", 0.9),
    ],
)
def test_wrong_options_are_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        RenderOptions(**{field: value})  # type: ignore[arg-type]


def test_fingerprint_depends_on_everything() -> None:
    options = RenderOptions()
    others = [
        options.fingerprint(1),
        replace(options, strength=0.9).fingerprint(0),
        replace(options, classes=options.classes[:5]).fingerprint(0),
    ]
    assert options.fingerprint(0) == RenderOptions().fingerprint(0)
    assert len({options.fingerprint(0), *others}) == 4


def test_rasterized_square_and_hole() -> None:
    square = np.array([[1, 1], [4, 1], [4, 3], [1, 3]]) * SUBPIXELS
    mask = rasterize(square, 5, 6)
    assert mask.astype(int).tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    beyond = np.array([[-9, -9], [99, -9], [99, 99], [-9, 99]]) * SUBPIXELS
    assert rasterize(beyond, 5, 6).all()
    assert not rasterize(beyond + 200 * SUBPIXELS, 5, 6).any()


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_rasterized_area_and_tiling(index: int) -> None:
    stream = Stream(0, "train", index, "scene")
    outline = random_outline(stream) * 20 + (32, 32)
    polygon = np.floor(outline * SUBPIXELS).astype(np.int64)
    mask = rasterize(polygon, 64, 64)
    assert abs(mask.sum() - 400) < 40
    assert np.array_equal(mask, rasterize(polygon[::-1], 64, 64))  # either orientation
    # Two halves share an edge: every pixel of the whole is in exactly one of them.
    half = len(polygon) // 2
    first, second = polygon[: half + 1], np.concatenate([polygon[half:], polygon[:1]])
    parts = rasterize(first, 64, 64).astype(int) ^ rasterize(second, 64, 64)
    assert np.array_equal(parts, mask)


@given(st.floats(0, 1, exclude_max=True))
def test_unit_vectors_have_length_one(turn: float) -> None:
    x, y = unit_vector(turn)
    assert abs(x * x + y * y - 1) < 1e-12


def test_motion_iou_by_hand() -> None:
    # 10 wide, 5 pixels to the right each frame: IoU 5/15 with the next frame, 0 further away.
    boxes = np.array([[5.0 * t, 0, 5.0 * t + 10, 4] for t in range(4)])
    got = motion_iou(boxes, np.array([True, True, True, True]))
    assert np.allclose(got, [1 / 9, 2 / 9, 2 / 9, 1 / 9])
    absent = motion_iou(boxes, np.array([True, False, True, True]))
    assert np.allclose(absent[[0, 2, 3]], [0, 1 / 6, 1 / 6])
    assert motion_iou(boxes[:1], np.array([True])) == 1.0
    far = motion_iou(
        np.repeat(boxes[:1], 12, axis=0) + 100.0 * (np.arange(12) > 10)[:, None],
        np.ones(12, np.bool_),
    )
    assert far[0] == 1.0  # frame 11 is outside the window of frame 0
    assert far[1] < 1.0


def test_speed_names() -> None:
    assert [speed_of(iou) for iou in (0.95, 0.9, 0.7, 0.69)] == ["slow", "medium", "medium", "fast"]
