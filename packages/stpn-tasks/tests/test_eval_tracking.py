"""What `stpn eval tracking` does around the tracking, with a tracker that costs nothing."""

import json

import cv2
import numpy as np
import pytest

from stpn_data import OwnSequences
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
