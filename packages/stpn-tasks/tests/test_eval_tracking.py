"""What `stpn eval tracking` does around the tracking, with a tracker that costs nothing."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from stpn_data import GOT10k, OwnSequences
from stpn_tasks.cli import main
from stpn_tasks.engine import make_accelerator
from stpn_tasks.tracking import command
from stpn_tasks.tracking.options import TrackerOptions
from stpn_tasks.tracking.tracker import OnlineTracker


@pytest.fixture
def evaluate(tmp_path, monkeypatch, tiny_tracking):
    """Evaluate a toy tracker on a data set, with the outputs below "out"."""
    network = tiny_tracking.ToyNetwork(prompted=False).eval()
    options = TrackerOptions(template_size=16, search_size=32, update_interval=3)
    monkeypatch.setattr(command, "load_tracker", lambda _: None)
    monkeypatch.setattr(command, "build_tracker", lambda *_: OnlineTracker(network, options))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")

    def evaluated(dataset, data, split="val", **options):
        return command.evaluate_saved(
            weights,
            dataset,
            tmp_path / "out",
            "Toy",
            accelerator=make_accelerator("cpu"),
            data=str(data),
            split=split,
            **options,
        )

    return evaluated


def write_own(folder, dataset, num_boxes=None):
    """The sequences of a data set as folders of images, each with some or all of its boxes."""
    for number, one in enumerate(dataset.sequences):
        (folder / one.name).mkdir(parents=True)
        for index, frame in enumerate(dataset.frames(number)):
            cv2.imwrite(str(folder / one.name / f"{index}.png"), frame)
        rows = one.boxes_xywh[:num_boxes]
        np.savetxt(folder / one.name / "groundtruth.txt", rows, "%g", ",")
    return folder


def report(tmp_path):
    path = tmp_path / "out" / "reports" / "GOT-10k" / "Toy" / "performance.json"
    return json.loads(path.read_text())["Toy"]


def test_the_report_says_of_which_data_it_is(evaluate, tmp_path, tiny_tracking):
    dataset = tiny_tracking.MovingTargets()
    table = evaluate(dataset, "generated", "train")
    assert table.title == "GOT-10k's protocol; generated (train)"
    assert (report(tmp_path)["data"], report(tmp_path)["split"]) == ("generated", "train")
    assert 0 <= report(tmp_path)["overall"]["ao"] <= 1


def test_own_sequences_have_no_split(evaluate, tmp_path, tiny_tracking, monkeypatch):
    folder = write_own(tmp_path / "own", tiny_tracking.MovingTargets())
    monkeypatch.chdir(folder)
    table = evaluate(OwnSequences.from_folder("."), ".")
    assert table.title == "GOT-10k's protocol; ."
    assert (report(tmp_path)["data"], report(tmp_path)["split"]) == (str(folder), None)


def test_own_folders_of_the_same_name_are_told_apart(evaluate, tmp_path, tiny_tracking):
    for name in "AB":
        dataset = tiny_tracking.MovingTargets((5,))
        if name == "B":
            dataset.sequences[0].boxes_xywh[:, 0] += 3
        write_own(tmp_path / name, dataset)
    evaluate(OwnSequences.from_folder(tmp_path / "A"), tmp_path / "A")
    with pytest.raises(ValueError, match="the results of s0 beside it are of other data"):
        evaluate(OwnSequences.from_folder(tmp_path / "B"), tmp_path / "B")
    assert report(tmp_path)["data"] == str(tmp_path / "A")


def cells(table):
    return [cell for column in table.columns for cell in column.cells]


@pytest.fixture
def got10k(tmp_path, tiny_tracking):
    """The folder of GOT-10k with the splits test and val."""
    dataset = tiny_tracking.MovingTargets()
    for split, num_boxes in (("test", 1), ("val", None)):
        folder = write_own(tmp_path / "got10k" / split, dataset, num_boxes)
        (folder / "list.txt").write_text("s0\ns1\n")
        for one in dataset.sequences:
            for index in range(one.num_frames):
                path = folder / one.name / f"{index}.png"
                cv2.imwrite(str(path.with_name(f"{index + 1:08d}.jpg")), cv2.imread(str(path)))
            for stem, value in (("cover", 8), ("absence", 0), ("cut_by_image", 0)):
                (folder / one.name / f"{stem}.label").write_text(f"{value}\n" * one.num_frames)
            (folder / one.name / "meta_info.ini").write_text("[METAINFO]\nresolution: (50, 40)\n")
    return tmp_path / "got10k"


def test_the_split_test_is_tracked_and_packed_if_asked_for(evaluate, got10k, tmp_path):
    dataset = GOT10k(got10k, "test")
    results, evaluation = cells(evaluate(dataset, got10k, "test"))
    assert results == str(tmp_path / "out" / "results" / "GOT-10k" / "Toy")
    assert evaluation.startswith("none: no frame after the first counts")
    assert (tmp_path / "out/results/GOT-10k/Toy/s1/s1_001.txt").is_file()
    assert not (tmp_path / "out/reports").exists()
    (packed,) = cells(evaluate(dataset, got10k, "test", zip_test=True))
    assert packed == f"{results}.zip"


def test_no_other_split_is_packed_and_nothing_is_tracked_for_it(evaluate, got10k, tmp_path):
    with pytest.raises(ValueError, match="--zip-test is for GOT-10k's split test"):
        evaluate(GOT10k(got10k, "val"), got10k, zip_test=True)
    assert not (tmp_path / "out").exists()


def test_own_sequences_to_be_tracked_need_one_box(evaluate, tmp_path, tiny_tracking):
    folder = write_own(tmp_path / "own", tiny_tracking.MovingTargets(), 1)
    results, _ = cells(evaluate(OwnSequences.from_folder(folder), folder))
    assert results == str(tmp_path / "out" / "results" / "GOT-10k" / "Toy")
    whole = tiny_tracking.MovingTargets((7, 6, 5))
    whole.sequences[:2] = []
    write_own(folder, whole)  # of several, those with boxes are evaluated
    evaluate(OwnSequences.from_folder(folder), folder)
    assert report(tmp_path)["overall"]["num_frames"] == 4


def test_an_own_sequence_is_evaluated_from_within_its_folder(
    evaluate, tmp_path, tiny_tracking, monkeypatch
):
    dataset = tiny_tracking.MovingTargets((5,))
    dataset.sequences = [replace(dataset.sequences[0], name="clip (1), cut")]
    monkeypatch.chdir(write_own(tmp_path / "own", dataset) / "clip (1), cut")
    evaluate(OwnSequences.from_folder("."), ".")
    folder = tmp_path / "out/results/GOT-10k/Toy/clip (1), cut"
    assert (folder / "clip (1), cut_001.txt").is_file()
    assert list(report(tmp_path)["seq_wise"]) == ["clip (1), cut"]


@pytest.mark.parametrize("words", [("eval", "tracking"), ("train", "tracking", "small")])
def test_help_says_what_a_split_is_of(words, capsys):
    with pytest.raises(SystemExit):
        main([*words, "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "without effect for own sequences" in text
