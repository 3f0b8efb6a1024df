"""Generated clips for segmentation: crossing, vanishing and leaving objects, from a seed."""

import hashlib
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from stpn_data.deteriorated import DeterioratedSegmentation, DeterioratedVideo, SegmentationOptions
from stpn_data.deteriorated.random import Stream
from stpn_data.deteriorated.render import render_scene
from stpn_data.deteriorated.segmentation_scene import (
    draw_segmentation_scene,
    draw_segmentation_schedule,
)
from stpn_data.videos import VideoDataset

OPTIONS = SegmentationOptions(size=(48, 64), num_frames=8, object_size=(16.0, 22.0))
CLIPS = 30


def make(cache_dir, num_videos=3, options=OPTIONS, **changes):
    return DeterioratedSegmentation(
        cache_dir,
        num_videos=num_videos,
        options=replace(options, **changes),
        num_workers=0,
        progress=False,
    )


def scenes(**changes):
    options = replace(SegmentationOptions(), **changes)
    return options, [
        draw_segmentation_scene(options, Stream(0, "train", i, "scene")) for i in range(CLIPS)
    ]


def digest(dataset):
    sha = hashlib.sha256()
    for v, video in enumerate(dataset.videos):
        for t in range(video.num_frames):
            objects = dataset.objects(v, t)
            for array in (dataset.frame(v, t), *vars(objects).values()):
                sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def digest_of(cache_dir):
    return digest(make(cache_dir))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make(tmp_path_factory.mktemp("clips"), CLIPS)


def test_offers_the_protocol_with_masks_boxes_and_identities(clips):
    assert isinstance(clips, VideoDataset)
    assert clips.videos[0].num_frames == 8
    for v in range(CLIPS):
        for t in range(8):
            objects = clips.objects(v, t)
            assert objects.masks.shape == (len(objects), 48, 64)
            assert objects.masks.sum(axis=0).max() <= 1
            for mask, box in zip(objects.masks, objects.boxes_xyxy.astype(int), strict=True):
                rows, columns = np.nonzero(mask)
                assert len(rows) >= 30
                tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert box.tolist() == tight


def test_clips_are_the_same_in_every_process(tmp_path):
    code = "import runpy, sys; print(runpy.run_path(sys.argv[1])['digest_of'](sys.argv[2]))"
    command = [sys.executable, "-c", code, __file__, str(tmp_path / "a")]
    elsewhere = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert elsewhere.stdout.split() == [digest_of(tmp_path / "b")]
    assert elsewhere.stdout.split() == [digest_of(tmp_path / "a")]
    assert digest(make(tmp_path / "a", min_area=200)) != digest_of(tmp_path / "a")


def test_options_have_folders_of_their_own(tmp_path):
    folders = {
        make(tmp_path).store.folder,
        make(tmp_path, min_area=31).store.folder,
        DeterioratedVideo(
            tmp_path, num_videos=1, options=OPTIONS, num_workers=0, progress=False
        ).store.folder,
    }
    assert len(folders) == 3


def test_objects_cross_and_the_nearer_one_covers():
    options, drawn = scenes(num_objects=(3, 3), vanishing=0.0, leaving=0.0)
    covered = 0
    for scene in drawn:
        for t in range(options.num_frames):
            nearest = scene.visible_masks(t, *options.size)[-1]
            alone = replace(scene, tracks=scene.tracks[-1:]).visible_masks(t, *options.size)[0]
            assert np.array_equal(nearest, alone)
            farthest = scene.visible_masks(t, *options.size)[0]
            whole = replace(scene, tracks=scene.tracks[:1]).visible_masks(t, *options.size)[0]
            assert not (farthest & ~whole).any()
            covered += int(farthest.sum() < whole.sum())
    assert covered > 0.2 * CLIPS * options.num_frames


def test_an_object_that_is_absent_covers_nothing():
    options, drawn = scenes(num_objects=(2, 2))
    track = replace(drawn[0].tracks[0], absent=frozenset({3}))
    scene = replace(drawn[0], tracks=(drawn[0].tracks[0], track))  # at the same place
    assert scene.visible_masks(2, *options.size).any(axis=(1, 2)).tolist() == [False, True]
    assert scene.visible_masks(3, *options.size).any(axis=(1, 2)).tolist() == [True, False]


def test_absent_objects_are_not_painted():
    """Frames without the second object are those of the first one alone; others are not."""
    options = replace(OPTIONS, num_objects=(2, 2), vanishing=1.0, leaving=0.0, absence=(3, 3))
    scene = draw_segmentation_scene(options, Stream(0, "val", 1, "scene"))
    absent = scene.tracks[1].absent
    alone = replace(scene, tracks=scene.tracks[:1])
    both, one = (
        render_scene(drawn, [None] * 8, options, 0, "val", 1).frames for drawn in (scene, alone)
    )
    assert 1 <= len(absent) <= 3
    assert {t for t in range(8) if np.array_equal(both[t], one[t])} == absent


@pytest.mark.parametrize("way", ["vanishing", "leaving"])
def test_objects_vanish_and_reappear_with_their_identity(tmp_path, way):
    off = {"vanishing": 0.0, "leaving": 0.0}
    always = make(tmp_path, CLIPS, num_objects=(2, 2), num_frames=14, **off)
    often = make(tmp_path, CLIPS, num_objects=(2, 2), num_frames=14, **(off | {way: 1.0}))

    def gaps(dataset):
        count = 0
        for v in range(CLIPS):
            seen = defaultdict(list)
            for t in range(14):
                for track_id in dataset.objects(v, t).track_ids.tolist():
                    seen[track_id].append(t)
            count += sum(len(frames) <= frames[-1] - frames[0] for frames in seen.values())
        return count

    assert gaps(often) > 0.3 * CLIPS
    assert gaps(often) > 2 * gaps(always)


def test_small_rests_are_not_annotated():
    options, drawn = scenes()
    small = 0
    for scene in drawn:
        everything = replace(scene, min_area=1)
        for t in range(options.num_frames):
            pixels = everything.visible_masks(t, *options.size).sum(axis=(1, 2))
            kept = scene.visible_masks(t, *options.size).sum(axis=(1, 2))
            assert np.array_equal(kept, np.where(pixels >= 30, pixels, 0))
            small += ((pixels > 0) & (pixels < 30)).sum()
    assert small > 0


def test_clips_are_of_one_class_or_mixed_as_asked(tmp_path):
    def names(same_class):
        dataset = make(tmp_path, num_objects=(2, 3), same_class=same_class)
        return {
            name for v in range(3) for name in dataset.conditions(v, 0) if name.endswith("_class")
        }

    assert names(1.0) == {"same_class"}
    assert names(0.0) == {"mixed_class"}


def schedules(**changes):
    options = replace(SegmentationOptions(), **changes)
    return [
        [
            item is not None
            for item in draw_segmentation_schedule(
                options, i / 400, Stream(0, "train", i, "schedule")
            )
        ]
        for i in range(400)
    ]


def test_deterioration_has_its_share_and_leaves_a_clean_frame():
    drawn = np.array(schedules())
    assert 0.55 < drawn.mean() < 0.65
    assert not drawn.all(axis=1).any()
    assert drawn.mean(axis=1).std() > 0.2
    endless = np.array(schedules(run_frames=(12, 12)))
    assert (endless.sum(axis=1) == 11).sum() > 0
    assert not endless.all(axis=1).any()
    followed = np.array(schedules(deterioration_follows_speed=True)).mean(axis=1)
    assert followed[:100].mean() + 0.3 < followed[300:].mean()
    assert not np.array(schedules(deteriorated=0.0, spread=0.0)).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spread": 0.7}, "spread"),
        ({"deteriorated": 0.7, "spread": 0.4}, "spread"),
        ({"run_frames": (3, 2)}, "run_frames"),
        ({"absence": (0, 2)}, "absence"),
        ({"absence": (5, 4)}, "absence"),
        ({"min_area": 0}, "min_area"),
        ({"vanishing": 1.5}, "vanishing"),
        ({"leaving": float("nan")}, "leaving"),
        ({"num_objects": (0, 2)}, "num_objects"),
    ],
)
def test_options_out_of_range_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        SegmentationOptions(**changes)
