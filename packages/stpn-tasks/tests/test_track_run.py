import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from stpn_data import CausalSampler, DataError, GOT10k
from stpn_tasks.engine import make_accelerator
from stpn_tasks.metrics.got10k import clipped_iou
from stpn_tasks.tracking.evaluation import evaluate_results, write_evaluation
from stpn_tasks.tracking.options import TrackerOptions
from stpn_tasks.tracking.results_layout import read_results, results_folder
from stpn_tasks.tracking.run import MADE_BY_FILE, run_tracker, track_sequence
from stpn_tasks.tracking.tracker import OnlineTracker

OPTIONS = TrackerOptions(
    template_size=16, search_size=32, update_interval=3, support=CausalSampler(2, 2)
)


@pytest.fixture
def tracker(tiny_tracking):
    return OnlineTracker(tiny_tracking.ToyNetwork(prompted=True).eval(), OPTIONS)


@pytest.fixture
def dataset(tiny_tracking):
    return tiny_tracking.MovingTargets()


def run(tracker, dataset, root, **options):
    accelerator = make_accelerator("cpu")
    return run_tracker(
        tracker, dataset, root, "Own", accelerator=accelerator, progress=False, **options
    )


def test_results_are_what_the_tracker_gives_frame_by_frame(tracker, dataset, tmp_path):
    assert run(tracker, dataset, tmp_path) == 2
    for number, one in enumerate(dataset.sequences):
        (found,) = read_results(tmp_path, "Own", one.name, one.num_frames)
        frames = list(dataset.frames(number))
        tracker.init(frames[0], one.boxes_xywh[0].tolist())
        boxes = [one.boxes_xywh[0], *[tracker.track(frame).box_xywh for frame in frames[1:]]]
        np.testing.assert_allclose(found.boxes_xywh, boxes, atol=5.1e-4)
        assert (found.times > 0).all()


def test_a_run_goes_on_where_it_was_broken_off(tracker, dataset, tmp_path):
    whole = tmp_path / "whole"
    run(tracker, dataset, whole)
    broken = tmp_path / "broken"
    frame = dataset.frame

    def damaged(sequence, index):
        if (sequence, index) == (1, 3):
            raise DataError("s1: frame 3 is damaged")
        return frame(sequence, index)

    dataset.frame = damaged
    with pytest.raises(DataError, match="frame 3 is damaged"):
        run(tracker, dataset, broken)
    assert not results_folder(broken, "Own", "s1").exists()
    dataset.frame = frame
    dataset.read.clear()
    assert run(tracker, dataset, broken) == 1
    assert {sequence for sequence, index in dataset.read if index > 0} == {1}
    for name in ("s0", "s1"):
        file = Path("GOT-10k", "Own", name, f"{name}_001.txt")
        assert (broken / file).read_bytes() == (whole / file).read_bytes()
    assert run(tracker, dataset, broken) == 0


@pytest.mark.parametrize("file", ["s0_001.txt", "s0_time.txt"])
def test_a_sequence_without_whole_files_is_tracked_again(tracker, dataset, tmp_path, file):
    run(tracker, dataset, tmp_path)
    path = results_folder(tmp_path, "Own", "s0") / file
    text = path.read_text()
    path.write_text(text[: text.index("\n") + 1])
    assert run(tracker, dataset, tmp_path) == 1
    path.unlink()
    assert run(tracker, dataset, tmp_path) == 1
    assert len(path.read_text().splitlines()) == 5


def test_results_of_something_else_are_not_taken_for_ours(
    tracker, dataset, tmp_path, tiny_tracking
):
    run(tracker, dataset, tmp_path, made_by={"weights": "a"})
    assert run(tracker, dataset, tmp_path, made_by={"weights": "a"}) == 0
    with pytest.raises(ValueError, match=r"something else \(weights differ\)"):
        run(tracker, dataset, tmp_path, made_by={"weights": "b"})
    other = OnlineTracker(tracker.network, TrackerOptions(template_size=16, search_size=32))
    with pytest.raises(ValueError, match=r"\(options differ\)"):
        run(other, dataset, tmp_path, made_by={"weights": "a"})
    (results_folder(tmp_path, "Own") / MADE_BY_FILE).unlink()
    with pytest.raises(ValueError, match="does not tell what made them"):
        run(tracker, dataset, tmp_path, made_by={"weights": "a"})


@pytest.mark.parametrize("change", ["box", "frame", "length"])
def test_results_of_other_data_with_the_same_names_are_refused(
    tracker, dataset, tmp_path, tiny_tracking, change
):
    run(tracker, dataset, tmp_path)
    before = contents(tmp_path)
    other = tiny_tracking.MovingTargets((5, 8) if change == "length" else (5, 7))
    if change == "box":
        other.sequences[1].boxes_xywh[0, 0] += 0.001
    if change == "frame":
        frame = other.frame
        other.frame = lambda sequence, index: frame(sequence, index) + np.uint8(sequence == 1)
    with pytest.raises(ValueError, match=r"made_by\.json: the results of s1 .* of other data"):
        run(tracker, other, tmp_path)
    assert contents(tmp_path) == before


def contents(root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_results_of_several_data_sets_lie_side_by_side(tracker, dataset, tmp_path, tiny_tracking):
    other = tiny_tracking.MovingTargets((6,))
    other.sequences = [replace(other.sequences[0], name="other")]
    assert run(tracker, dataset, tmp_path) == 2
    assert run(tracker, other, tmp_path) == 1
    assert run(tracker, dataset, tmp_path) == run(tracker, other, tmp_path) == 0


def test_results_of_data_that_nothing_tells_of_are_refused(tracker, dataset, tmp_path):
    run(tracker, dataset, tmp_path)
    path = results_folder(tmp_path, "Own") / MADE_BY_FILE
    path.write_text(json.dumps({"options": json.loads(path.read_text())["options"]}))  # as once
    with pytest.raises(ValueError, match=r"made_by\.json does not tell of which data .* s0 "):
        run(tracker, dataset, tmp_path)


def test_results_that_begin_at_another_box_are_tracked_again(tracker, dataset, tmp_path):
    run(tracker, dataset, tmp_path)
    path = results_folder(tmp_path, "Own", "s0") / "s0_001.txt"
    whole = path.read_text()
    path.write_text("10.002" + whole[whole.index(",") :])
    assert run(tracker, dataset, tmp_path) == 1
    assert path.read_text() == whole


@pytest.mark.parametrize("added", [0.0004, 1 / 3, 0.0005])
def test_first_boxes_are_compared_as_files_have_them(tracker, dataset, tmp_path, added):
    for one in dataset.sequences:
        one.boxes_xywh[:] += added
    assert run(tracker, dataset, tmp_path) == 2
    assert run(tracker, dataset, tmp_path) == 0


def test_a_run_without_any_result_claims_nothing(tracker, dataset, tmp_path, tiny_tracking):
    frames, dataset.frames = dataset.frames, lambda sequence: 1 / 0
    with pytest.raises(ZeroDivisionError):
        run(tracker, dataset, tmp_path, made_by={"weights": "a"})
    assert (results_folder(tmp_path, "Own") / MADE_BY_FILE).exists()
    dataset.frames = frames
    dataset.sequences[0].boxes_xywh[0, 0] += 1
    assert run(tracker, dataset, tmp_path, made_by={"weights": "b"}) == 2
    assert run(tracker, dataset, tmp_path, made_by={"weights": "b"}) == 0


def test_names_are_checked_before_anything_is_written(tracker, dataset, tmp_path):
    dataset.sequences[1] = replace(dataset.sequences[1], name="a/b")
    with pytest.raises(ValueError, match="'a/b' cannot be a folder"):
        run(tracker, dataset, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_sequence_without_a_first_box_is_named(tracker, dataset, tmp_path):
    dataset.sequences[1].boxes_xywh[0] = np.nan
    dataset.sequences[1].visible[0] = False
    with pytest.raises(DataError, match="s1: the first frame has no box"):
        run(tracker, dataset, tmp_path)


def test_evaluation_counts_the_frames_after_the_first(tracker, dataset, tmp_path):
    dataset.sequences[1].counted[4:] = False
    run(tracker, dataset, tmp_path)
    evaluation = evaluate_results(dataset, tmp_path, "Own")
    overlaps = []
    for one, stop in zip(dataset.sequences, (5, 4), strict=True):
        (found,) = read_results(tmp_path, "Own", one.name, one.num_frames)
        overlaps.append(
            clipped_iou(found.boxes_xywh[1:stop], one.boxes_xywh[1:stop], one.size).mean()
        )
    report = evaluation.report
    assert report.overall.num_frames == 7
    assert report.overall.ao == pytest.approx((4 * overlaps[0] + 3 * overlaps[1]) / 7)
    assert report.by_sequence["s1"].ao == pytest.approx(overlaps[1])
    assert evaluation.frames_per_second > 0

    path = write_evaluation(tmp_path / "reports", "Own", evaluation)
    values = json.loads(path.read_text())["Own"]
    assert values["overall"]["ao"] == report.overall.ao
    assert values["overall"]["sr75"] == report.overall.sr75 == values["overall"]["succ_curve"][75]
    assert values["seq_wise"].keys() == {"s0", "s1"}
    assert path.with_name("success_plot.png").stat().st_size > 0


def test_a_sequence_that_is_never_seen_has_null_for_numbers(tracker, dataset, tmp_path):
    dataset.sequences[0].counted[1:] = False
    run(tracker, dataset, tmp_path)
    values = evaluate_results(dataset, tmp_path, "Own").to_json()["seq_wise"]["s0"]
    assert values["ao"] is None
    assert values["num_frames"] == 0


def test_sequences_without_labels_are_not_evaluated(tracker, dataset, tmp_path):
    for one in dataset.sequences:
        one.counted[1:] = False
    run(tracker, dataset, tmp_path)
    with pytest.raises(ValueError, match="no frame of these sequences counts"):
        evaluate_results(dataset, tmp_path, "Own")


@pytest.fixture
def got10k(tmp_path, dataset):
    """The split val with the frames of the sequences, some of s1 covered."""
    for number, one in enumerate(dataset.sequences):
        folder = tmp_path / "data" / "val" / one.name
        folder.mkdir(parents=True)
        for index, frame in enumerate(dataset.frames(number)):
            cv2.imwrite(str(folder / f"{index + 1:08d}.jpg"), frame[..., ::-1])
        rows = "".join(",".join(map(str, box)) + "\n" for box in one.boxes_xywh.tolist())
        (folder / "groundtruth.txt").write_text(rows)
        covers = [8] * one.num_frames
        covers[3] = 8 - 8 * number
        (folder / "cover.label").write_text("".join(f"{cover}\n" for cover in covers))
        for stem in ("absence", "cut_by_image"):
            (folder / f"{stem}.label").write_text("0\n" * one.num_frames)
        meta = "[METAINFO]\nurl: x\nanno_fps: 10Hz\nresolution: (50, 40)\n"
        (folder / "meta_info.ini").write_text(meta)
    (tmp_path / "data/val/list.txt").write_text("s0\ns1\n")
    return tmp_path / "data"


def test_the_toolkit_runs_the_tracker_and_reports_our_numbers(
    tracker, got10k, tmp_path, monkeypatch
):
    pytest.importorskip("got10k")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    from got10k.experiments import ExperimentGOT10k

    from stpn_tasks.tracking.adapter import ToolkitTracker

    experiment = ExperimentGOT10k(
        str(got10k), "val", str(tmp_path / "results"), str(tmp_path / "reports")
    )
    experiment.run(ToolkitTracker(tracker, "Toolkit"))
    theirs = experiment.report(["Toolkit"])["Toolkit"]
    dataset = GOT10k(got10k, "val")
    ours = evaluate_results(dataset, tmp_path / "results", "Toolkit").to_json()
    for name in ("ao", "sr", "speed_fps", "succ_curve"):
        assert ours["overall"][name] == pytest.approx(theirs["overall"][name], rel=1e-9), name
    for one in dataset.sequences:
        (found,) = read_results(tmp_path / "results", "Toolkit", one.name, one.num_frames)
        files = sorted((got10k / "val" / one.name).glob("*.jpg"))
        frames = [np.asarray(Image.open(file)) for file in files]
        expected = track_sequence(tracker, frames, one.boxes_xywh[0].tolist())
        np.testing.assert_allclose(found.boxes_xywh, expected.boxes_xywh, atol=5.1e-4)
        assert not math.isclose(found.boxes_xywh[-1, 0], found.boxes_xywh[0, 0])


def test_the_toolkit_may_feed_grey_images(tracker, tiny_tracking):
    pytest.importorskip("got10k")
    from stpn_tasks.tracking.adapter import ToolkitTracker

    grey = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50)).astype(np.uint8))
    adapted = ToolkitTracker(tracker, "Grey")
    adapted.init(grey, np.array([10.0, 8.0, 12.0, 10.0]))
    assert adapted.is_deterministic
    assert adapted.update(grey).shape == (4,)
