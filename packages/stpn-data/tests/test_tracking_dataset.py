"""The generated tracking data set: what it offers, its cache, and that trackers can train on it."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest

from stpn_data import (
    CausalTrackSampler,
    DeterioratedTracking,
    TrackingDataset,
    TrackingOptions,
    TrackSamples,
    TridentTrackSampler,
)
from stpn_data.deteriorated.options import KINDS, Split
from stpn_data.deteriorated.tracking_render import render_sequence

OPTIONS = TrackingOptions(
    size=(96, 112), num_frames=(20, 22), object_size=(12.0, 16.0), leaving=0.5
)


def make(cache_dir: Path, count: int = 3, split: Split = "train") -> DeterioratedTracking:
    return DeterioratedTracking(
        cache_dir,
        split=split,
        num_sequences=count,
        options=OPTIONS,
        num_workers=0,
        progress=False,
    )


def all_frames(dataset: DeterioratedTracking) -> list[np.ndarray]:
    return [np.stack(list(dataset.frames(i))) for i in range(len(dataset.sequences))]


def equal(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_offers_the_protocol(tmp_path: Path) -> None:
    dataset = make(tmp_path)
    assert isinstance(dataset, TrackingDataset)
    assert [one.name for one in dataset.sequences] == [f"train-{i:06d}" for i in range(3)]
    for i, sequence in enumerate(dataset.sequences):
        assert 20 <= sequence.num_frames <= 22
        assert sequence.size == (96, 112)
        assert sequence.visible[0]
        assert dataset.frame(i, 3).shape == (96, 112, 3)
        assert len(list(dataset.frames(i))) == sequence.num_frames


def test_frames_without_the_target_have_no_box_and_are_not_counted(tmp_path: Path) -> None:
    dataset = make(tmp_path, 8)
    absent = 0
    for i, sequence in enumerate(dataset.sequences):
        known = dataset.annotations(i)
        left, top, right, bottom = known.boxes_xyxy[:, known.target].T
        expected = np.stack([left, top, right - left, bottom - top], axis=1)
        assert np.array_equal(sequence.boxes_xywh, expected, equal_nan=True)
        assert np.array_equal(np.isnan(sequence.boxes_xywh).any(axis=1), ~sequence.visible)
        assert np.array_equal(sequence.has_box, sequence.visible)
        assert np.array_equal(sequence.counted, sequence.visible)
        absent += (~sequence.visible).sum()
    assert absent > 0


def test_cached_sequences_are_the_rendered_ones(tmp_path: Path) -> None:
    make(tmp_path)
    dataset = make(tmp_path)
    for i in range(3):
        rendered, known = render_sequence(OPTIONS, 0, "train", i), dataset.annotations(i)
        assert np.array_equal(np.stack(list(dataset.frames(i))), rendered.frames)
        for field in ("target", "decoy", "attribute", "kinds"):
            assert getattr(known, field) == getattr(rendered.annotations, field)
        for field in ("new_look", "boxes_xyxy"):
            pair = getattr(known, field), getattr(rendered.annotations, field)
            assert np.array_equal(*pair, equal_nan=True)


def test_conditions_name_deterioration_look_and_attribute(tmp_path: Path) -> None:
    dataset = make(tmp_path)
    seen: set[str] = set()
    for i, sequence in enumerate(dataset.sequences):
        for t in range(sequence.num_frames):
            names = dataset.conditions(i, t)
            assert ("clean" in names) != ("deteriorated" in names)
            assert len(names & set(KINDS)) == ("deteriorated" in names)
            assert len(names & {"first_look", "changing_look", "new_look"}) == 1
            assert len(names & {"differ_in_colors", "differ_in_period"}) == 1
            seen |= names
    assert {"clean", "deteriorated", "first_look", "changing_look", "new_look"} <= seen


def test_sequences_are_rendered_once_and_do_not_depend_on_their_number(tmp_path: Path) -> None:
    few = all_frames(make(tmp_path, 2))
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.np[yz]")}
    assert len(stamps) == 4
    many = make(tmp_path, 4)
    assert equal(all_frames(many)[:2], few)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert len(list(tmp_path.rglob("*.np[yz]"))) == 8


def test_splits_are_disjoint(tmp_path: Path) -> None:
    splits: list[Split] = ["train", "val", "test"]
    frames = [one for split in splits for one in all_frames(make(tmp_path, 2, split))]
    assert len({one.tobytes() for one in frames}) == 6


def test_workers_render_the_same_bits(tmp_path: Path) -> None:
    DeterioratedTracking(
        tmp_path / "many", num_sequences=9, options=OPTIONS, num_workers=2, progress=False
    )
    make(tmp_path / "one", 9)
    one, many = (sorted((tmp_path / name).rglob("*.np[yz]")) for name in ("one", "many"))
    assert len(one) == 18
    assert [path.read_bytes() for path in one if path.suffix == ".npy"] == [
        path.read_bytes() for path in many if path.suffix == ".npy"
    ]


@pytest.mark.parametrize("damage", ["truncated", "empty", "overwritten", "garbage"])
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_damaged_sequence_is_rendered_again(tmp_path: Path, suffix: str, damage: str) -> None:
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
    with pytest.warns(UserWarning, match="000001.npz or its frames are damaged"):
        assert equal(all_frames(make(tmp_path)), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert equal(all_frames(make(tmp_path)), expected)


def test_dataset_can_be_sent_to_workers(tmp_path: Path) -> None:
    dataset = make(tmp_path, 2)
    assert equal(all_frames(pickle.loads(pickle.dumps(dataset))), all_frames(dataset))


@pytest.mark.parametrize(
    "sampler", [CausalTrackSampler(max_gap=10), TridentTrackSampler(max_gap=10)]
)
def test_trackers_can_train_on_it(
    tmp_path: Path, sampler: CausalTrackSampler | TridentTrackSampler
) -> None:
    dataset = make(tmp_path)
    samples = TrackSamples(dataset, sampler, num_samples=12)
    assert len(samples.usable) == 3
    for i in range(12):
        sample = samples[i]
        assert np.isfinite(sample.template.box_xywh).all()
        assert np.isfinite(sample.search.box_xywh).all()
        template = sample.template
        assert np.array_equal(template.pixels, dataset.frame(template.sequence, template.index))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "training"}, "split"),
        ({"num_sequences": 0}, "num_sequences"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_arguments_are_named(
    tmp_path: Path, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        DeterioratedTracking(tmp_path, **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_no_frame_beyond_the_end(tmp_path: Path) -> None:
    dataset = make(tmp_path)
    for method in (dataset.frame, dataset.conditions):
        for sequence, index in [(3, 0), (-1, 0), (0, 22), (0, -1)]:
            with pytest.raises(IndexError):
                method(sequence, index)
    with pytest.raises(IndexError):
        next(dataset.frames(3))
