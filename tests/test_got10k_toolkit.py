"""The numbers and files of tracking are those of the official toolkit of GOT-10k."""

import math
from pathlib import Path
from zipfile import ZipFile

import cv2
import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpn_data.got10k import GOT10k
from stpn_kernels.testing import shared_path
from stpn_tasks.metrics.got10k import TrackTruth, frames_per_second, got10k_success
from stpn_tasks.tracking.results_layout import (
    TrackRun,
    read_results,
    results_folder,
    write_results,
    zip_for_test_server,
)

mpl.use("Agg")  # before the toolkit asks for pyplot
from got10k.experiments import ExperimentGOT10k
from got10k.trackers import IdentityTracker

NAME = "Own"
SIZE = (40, 60)


class Experiment(ExperimentGOT10k):
    """The toolkit's experiment without its plot, which takes most of the time."""

    def plot_curves(self, report_files, tracker_names):
        pass


def our_report(data, results):
    """What we say of the results, in the toolkit's words."""
    truths, tracks, times = {}, {}, {}
    for one in data.sequences:
        runs = read_results(results, NAME, one.name, one.num_frames)
        truths[one.name] = TrackTruth(one.boxes_xywh, one.counted, one.size)
        tracks[one.name] = [run.boxes_xywh for run in runs]
        times[one.name] = np.stack([run.times for run in runs], axis=1).reshape(-1)
    report = got10k_success(truths, tracks)

    def said(success, of_times):
        return {
            "ao": success.ao,
            "sr": success.sr50,
            "succ_curve": list(success.curve),
            "sr75": success.sr75,
            "speed_fps": frames_per_second(of_times),
        }

    return {
        "overall": said(report.overall, np.concatenate(list(times.values()))),
        "seq_wise": {name: said(one, times[name]) for name, one in report.by_sequence.items()},
    }


def assert_same_report(root, results, reports, experiment=Experiment):
    data = GOT10k(root, "val")
    with mpl.rc_context():  # which the toolkit's plot changes
        toolkit = experiment(str(root), "val", str(results), str(reports)).report([NAME])[NAME]
    ours = our_report(data, results)
    toolkit["overall"]["sr75"] = toolkit["overall"]["succ_curve"][75]
    assert_same_numbers(ours["overall"], toolkit["overall"])
    assert list(ours["seq_wise"]) == list(toolkit["seq_wise"])
    for name, lengths in toolkit["seq_wise"].items():
        assert lengths.pop("length") == len(read_results_of(data, results, name)) - 1
        assert_same_numbers(ours["seq_wise"][name], lengths)


def read_results_of(data, results, name):
    (length,) = (one.num_frames for one in data.sequences if one.name == name)
    return read_results(results, NAME, name, length)[0].boxes_xywh


def assert_same_numbers(ours, toolkit):
    for key, value in toolkit.items():
        value = math.nan if key == "speed_fps" and value == -1 else value  # no time was positive
        # Repetitions come in any order there, which the last bit of a mean may feel.
        assert ours[key] == pytest.approx(value, rel=1e-13, abs=1e-15, nan_ok=True), key


@pytest.mark.parametrize("repetitions", [1, 3])
def test_the_report_on_real_sequences_is_the_toolkits(tmp_path, repetitions):
    root = shared_path("real/vot")
    random = np.random.default_rng(0)
    for one in GOT10k(root, "val").sequences:
        noise = random.normal(0, 8, (repetitions, one.num_frames, 4))
        runs = [
            TrackRun(one.boxes_xywh + of_run, random.uniform(0, 0.1, one.num_frames))
            for of_run in noise
        ]
        write_results(tmp_path, NAME, one.name, runs)
    # With its plot, and everything else that its report does.
    assert_same_report(root, tmp_path, tmp_path / "reports", ExperimentGOT10k)
    overall = our_report(GOT10k(root, "val"), tmp_path)["overall"]
    assert 0.3 < overall["ao"] < 0.95
    assert 0 < overall["sr75"] < overall["sr"] < 1


def test_results_that_the_toolkit_writes_are_read_and_written_alike(tmp_path):
    boxes = np.array([(1.5 + index, 2.25, 20, 10) for index in range(6)])
    for name in ("one", "two"):
        write_sequence(tmp_path / "val" / name, boxes, np.full(6, 8), SIZE)
    (tmp_path / "val/list.txt").write_text("one\ntwo\n")
    tracker = IdentityTracker()  # which stays at the first box
    tracker.name = NAME
    Experiment(str(tmp_path), "val", str(tmp_path / "theirs")).run(tracker)
    for name in ("one", "two"):
        (run,) = read_results(tmp_path / "theirs", NAME, name, 6)
        assert run.boxes_xywh.tolist() == boxes[[0] * 6].tolist()
        assert (run.times >= 0).all()
        write_results(tmp_path / "ours", NAME, name, [run])
        ours, theirs = (
            {file.name: file.read_bytes() for file in results_folder(root, NAME, name).iterdir()}
            for root in (tmp_path / "ours", tmp_path / "theirs")
        )
        assert ours == theirs
    assert_same_report(tmp_path, tmp_path / "ours", tmp_path / "reports")


def test_the_zip_has_the_files_of_the_toolkits(tmp_path):
    for name in ("one", "two"):
        write_sequence(tmp_path / "test" / name, np.full((5, 4), 2.0), np.full(5, 8), SIZE)
        write_results(tmp_path / "results", NAME, name, [TrackRun(np.ones((5, 4)), np.ones(5))])
    (tmp_path / "test/list.txt").write_text("one\ntwo\n")
    Experiment(str(tmp_path), "test", str(tmp_path / "results")).report([NAME])
    ours = zip_for_test_server(
        tmp_path / "results", NAME, GOT10k(tmp_path, "test"), tmp_path / "ours.zip"
    )
    assert contents(ours) == contents(tmp_path / "results" / "GOT-10k" / f"{NAME}.zip")


def contents(path):
    with ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name[-1] != "/"}


def write_sequence(folder: Path, boxes, cover, size):
    """A sequence in the toolkit's layout."""
    folder.mkdir(parents=True)
    image = cv2.imencode(".jpg", np.zeros((*size, 3), np.uint8))[1].tobytes()
    for index in range(len(boxes)):
        (folder / f"{index + 1:08d}.jpg").write_bytes(image)
    np.savetxt(folder / "groundtruth.txt", boxes, "%.4f", ",")
    np.savetxt(folder / "cover.label", cover, "%d")
    for stem in ("absence", "cut_by_image"):
        np.savetxt(folder / f"{stem}.label", cover == 0, "%d")
    (folder / "meta_info.ini").write_text(f"[METAINFO]\nresolution: ({size[1]}, {size[0]})\n")


random_sets = st.fixed_dictionaries(
    {
        "lengths": st.lists(st.integers(2, 12), min_size=1, max_size=4),
        "repetitions": st.integers(1, 3),
        "noise": st.sampled_from([0.0, 2.0, 30.0]),
        "covered": st.sampled_from([0.0, 0.5, 0.9, 1.0]),
        "timed": st.sampled_from([0.0, 0.7, 1.0]),
        "seed": st.integers(0, 2**32 - 1),
    }
)


@settings(max_examples=40, deadline=None)
@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
@given(random_sets)
def test_the_report_on_random_results_is_the_toolkits(tmp_path_factory, drawn):
    root = tmp_path_factory.mktemp("random")
    random = np.random.default_rng(drawn["seed"])
    names = [f"sequence-{number}" for number in range(len(drawn["lengths"]))]
    for name, length in zip(names, drawn["lengths"], strict=True):
        height, width = size = tuple(random.integers(20, 90, 2).tolist())
        boxes = random.uniform((-10, -10, -2, -2), (width, height, width, height), (length, 4))
        cover = np.where(random.random(length) < drawn["covered"], random.integers(1, 9, length), 0)
        written = boxes.copy()
        written[cover == 0] = random.choice([0.0, math.nan])
        write_sequence(root / "val" / name, written, cover, size)
        runs = []
        for _ in range(drawn["repetitions"]):
            times = np.where(random.random(length) < drawn["timed"], random.random(length), 0)
            noise = random.normal(0, 1, (length, 4)) * drawn["noise"]
            runs.append(TrackRun(boxes + noise, times))
        write_results(root / "results", NAME, name, runs)
    (root / "val" / "list.txt").write_text("\n".join(names))
    assert_same_report(root, root / "results", root / "reports")
