"""The generated data set: the cache, the `VideoDataset` it offers, and crops of its objects."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stpn_data.deteriorated import DeterioratedVideo, ObjectCrops, RenderOptions
from stpn_data.deteriorated.cache import ClipStore, default_cache_dir, write_atomically
from stpn_data.deteriorated.options import KINDS, Split
from stpn_data.deteriorated.render import render_clip
from stpn_data.videos import VideoDataset

OPTIONS = RenderOptions(size=(64, 80), num_frames=6, object_size=(16.0, 24.0), deteriorated=0.5)


def make(cache_dir: Path, num_videos: int = 3, split: Split = "train") -> DeterioratedVideo:
    return DeterioratedVideo(
        cache_dir,
        split=split,
        num_videos=num_videos,
        options=OPTIONS,
        num_workers=0,
        progress=False,
    )


def all_frames(dataset: DeterioratedVideo, num_videos: int = 3) -> np.ndarray:
    return np.stack([[dataset.frame(v, t) for t in range(6)] for v in range(num_videos)])


def open_in_process(cache_dir: Path) -> int:
    return int(all_frames(make(cache_dir)).astype(np.int64).sum())


def test_offers_the_protocol(tmp_path: Path) -> None:
    dataset = make(tmp_path)
    assert isinstance(dataset, VideoDataset)
    assert dataset.classes == OPTIONS.classes
    assert [video.name for video in dataset.videos] == [f"train-{i:06d}" for i in range(3)]
    assert dataset.videos[0].key_frames == (0, 1, 2, 3, 4, 5)
    frame, objects = dataset.frame(1, 2), dataset.objects(1, 2)
    assert (frame.shape, frame.dtype) == ((64, 80, 3), np.uint8)
    assert objects.masks is not None
    assert objects.masks.shape == (len(objects), 64, 80)
    assert len(objects) >= 1
    assert not objects.is_crowd.any()


def test_cached_clips_are_the_rendered_ones(tmp_path: Path) -> None:
    dataset = make(tmp_path)
    for v in range(3):
        clip = render_clip(OPTIONS, 0, "train", v)
        for t in range(6):
            assert np.array_equal(dataset.frame(v, t), clip.frames[t])
            rendered, read = clip.annotations.objects(t), dataset.objects(v, t)
            for field in ("boxes_xyxy", "labels", "track_ids", "masks"):
                assert np.array_equal(getattr(rendered, field), getattr(read, field))
            assert dataset.conditions(v, t) == clip.annotations.conditions(t)


def test_conditions_are_consistent(tmp_path: Path) -> None:
    dataset = make(tmp_path, num_videos=8)
    for v in range(8):
        for t in range(6):
            names = dataset.conditions(v, t)
            assert ("clean" in names) != ("deteriorated" in names)
            assert len(names & set(KINDS)) == ("deteriorated" in names)
            assert len(names & {"slow", "medium", "fast"}) == (len(dataset.objects(v, t)) > 0)
            assert len(names & {"same_class", "mixed_class"}) == 1
            assert "same_class" in names


def test_mixed_classes_are_named(tmp_path: Path) -> None:
    options = replace(OPTIONS, num_objects=(2, 2), same_class=0.0)
    dataset = DeterioratedVideo(tmp_path, num_videos=2, options=options, progress=False)
    assert "mixed_class" in dataset.conditions(0, 0)


def test_clips_do_not_depend_on_their_number_and_are_rendered_once(tmp_path: Path) -> None:
    few = all_frames(make(tmp_path), 2)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.np[yz]")}
    assert len(stamps) == 6
    many = make(tmp_path, num_videos=5)
    assert np.array_equal(all_frames(many, 2), few)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert len(list(tmp_path.rglob("*.np[yz]"))) == 10


def test_splits_are_disjoint(tmp_path: Path) -> None:
    train, val, test = (all_frames(make(tmp_path, split=s), 2) for s in ("train", "val", "test"))
    clips = [clip.tobytes() for split in (train, val, test) for clip in split]
    assert len(set(clips)) == 6


def test_workers_render_the_same_bits(tmp_path: Path) -> None:
    DeterioratedVideo(
        tmp_path / "many", num_videos=12, options=OPTIONS, num_workers=2, progress=False
    )
    make(tmp_path / "one", num_videos=12)
    one = sorted((tmp_path / "one").rglob("*.npy"))
    many = sorted((tmp_path / "many").rglob("*.npy"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in many]
    assert len(one) == 12


def test_two_processes_share_a_cache(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        sums = pool.map(open_in_process, [tmp_path, tmp_path])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sums == [open_in_process(tmp_path)] * 2
    left = [path.name for path in tmp_path.rglob("*") if path.name.startswith(".")]
    assert left == []


@pytest.mark.parametrize("suffix", ["npy", "npz"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "overwritten", "garbage"])
def test_damaged_clip_is_rendered_again(tmp_path: Path, suffix: str, damage: str) -> None:
    expected = all_frames(make(tmp_path))
    path = next(tmp_path.rglob(f"000001.{suffix}"))
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {
            "truncated": whole[:middle],
            "empty": b"",
            "overwritten": whole[:middle] + b"?" * 200 + whole[middle + 200 :],
            "garbage": b"nothing that numpy would know",
        }[damage]
    )
    dataset = make(tmp_path)
    assert np.array_equal(dataset.frame(0, 0), expected[0, 0])
    with pytest.warns(UserWarning, match="000001.npz or its frames are damaged"):
        dataset.frame(1, 0)
    assert np.array_equal(all_frames(dataset), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        all_frames(make(tmp_path))


def test_missing_file_is_rendered(tmp_path: Path) -> None:
    expected = all_frames(make(tmp_path))
    next(tmp_path.rglob("000000.npy")).unlink()
    next(tmp_path.rglob("000002.npz")).unlink()
    assert np.array_equal(all_frames(make(tmp_path)), expected)


def test_folder_tells_what_is_in_it(tmp_path: Path) -> None:
    make(tmp_path)
    (path,) = tmp_path.rglob("options.json")
    told = json.loads(path.read_text())
    assert told["seed"] == 0
    assert told["options"]["size"] == [64, 80]
    assert path.parent.name == OPTIONS.fingerprint(0)


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def fail(file: object) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_default_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "stpn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == Path.home() / ".cache" / "stpn"
    assert ClipStore(tmp_path, OPTIONS, 0, "val").folder.is_relative_to(tmp_path)


def test_dataset_can_be_sent_to_workers(tmp_path: Path) -> None:
    dataset = make(tmp_path)
    copy = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(all_frames(copy), all_frames(dataset))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "training"}, "split"),
        ({"num_videos": 0}, "num_videos"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_arguments_are_named(
    tmp_path: Path, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        DeterioratedVideo(tmp_path, **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("video", "index"), [(3, 0), (-1, 0), (0, 6), (0, -1)])
def test_no_frame_beyond_the_end(tmp_path: Path, video: int, index: int) -> None:
    dataset = make(tmp_path)
    for method in (dataset.frame, dataset.objects, dataset.conditions):
        with pytest.raises(IndexError, match=f"no frame {index} of video {video}"):
            method(video, index)


def test_crops_show_clean_objects_with_their_labels(tmp_path: Path) -> None:
    dataset = make(tmp_path, num_videos=6)
    crops = ObjectCrops(dataset, size=32)
    expected = [
        int(label)
        for v in range(6)
        for t in range(6)
        if "clean" in dataset.conditions(v, t)
        for label in dataset.objects(v, t).labels
    ]
    assert [crops[i][1] for i in range(len(crops))] == expected
    image, _ = crops[0]
    assert (image.shape, image.dtype) == ((3, 32, 32), torch.uint8)
    assert len(ObjectCrops(dataset, only=None)) > len(crops)
    deteriorated = ObjectCrops(dataset, only="deteriorated")
    assert len(deteriorated) + len(crops) == len(ObjectCrops(dataset, only=None))


def test_crop_is_the_square_around_the_box(tmp_path: Path) -> None:
    dataset = make(tmp_path)
    frame, objects = dataset.frame(0, 0), dataset.objects(0, 0)
    left, top, right, bottom = objects.boxes_xyxy[0].astype(int)
    side = max(right - left, bottom - top)
    crop, _ = ObjectCrops(dataset, size=int(side), only=None)[0]
    found = [
        np.array_equal(frame[y : y + side, x : x + side], crop.permute(1, 2, 0).numpy())
        for y in range(64 - side + 1)
        for x in range(80 - side + 1)
        if x <= left and y <= top and x + side >= right and y + side >= bottom
    ]
    assert any(found)


def test_no_crops_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="underwater"):
        ObjectCrops(make(tmp_path), only="underwater")
