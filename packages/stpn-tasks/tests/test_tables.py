import math
import subprocess

import pytest
import torch
from rich.console import Console

from stpn_tasks import tables
from stpn_tasks.metrics import AveragePrecision, VidPrecision
from stpn_tasks.tables import (
    environment,
    precision_json,
    precision_table,
    print_table,
    vid_json,
    vid_table,
)

NAN = math.nan
BASELINE = {"all": AveragePrecision(0.12345, 0.5, 0.25, NAN, 0.1, 1.0, (1.0, 0.98766))}
STPN = {**BASELINE, "clean": AveragePrecision(0.2, 0.6, NAN, NAN, NAN, NAN)}


def rendered(table):
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_the_table_has_a_row_per_split_in_percent_and_a_dash_for_what_is_not_there():
    table = precision_table({"baseline": BASELINE, "STPN": STPN}, ("all", "clean"))
    text = rendered(table)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()]
    rows = {tuple(row[:2]): row[2:] for row in rows if row}
    assert rows["all", "baseline"] == ["12.3", "50.0", "25.0", "–", "10.0", "100.0"]
    assert rows["all", "STPN"] == rows["all", "baseline"]
    assert rows["clean", "baseline"] == ["–"] * 6
    assert rows["clean", "STPN"] == ["20.0", "60.0", "–", "–", "–", "–"]


def test_a_wide_table_is_whole_where_the_output_is_no_terminal(capsys):
    name = "a name of many words that would not fit into eighty columns with the numbers"
    print_table(precision_table({name: STPN}, ("all", "deteriorated")))
    text = capsys.readouterr().out
    assert "deteriorated" in text
    assert name in text


VID = {
    "all": VidPrecision(0.5, {"cat": 0.5, "dog": NAN}, {"cat": 1200, "dog": 0}, 0.0),
    "slow": VidPrecision(NAN, {"cat": NAN, "dog": NAN}, {"cat": 0, "dog": 0}, 0.25),
}


def test_the_table_of_imagenet_vid_has_a_row_per_motion_group():
    text = rendered(vid_table({"baseline": {"all": VID["all"]}, "STPN": VID}))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()]
    assert [row for row in rows if row] == [
        ["all", "0.0 to 1.0", "baseline", "1,200", "50.0"],
        ["all", "0.0 to 1.0", "STPN", "1,200", "50.0"],
        ["slow", "0.9 to 1.0", "STPN", "0", "–"],
    ]


def test_json_of_imagenet_vid_has_every_class_and_group():
    assert vid_json(VID) == {
        "all": {
            "ap50": 50.0,
            "by_class": {"cat": 50.0, "dog": None},
            "num_objects": {"cat": 1200, "dog": 0},
            "empty_weight": 0.0,
        },
        "slow": {
            "ap50": None,
            "by_class": {"cat": None, "dog": None},
            "num_objects": {"cat": 0, "dog": 0},
            "empty_weight": 0.25,
        },
    }


def test_json_has_percent_and_null_where_there_is_no_object():
    values = precision_json(STPN)
    assert values["all"] == {
        "ap": 12.345,
        "ap50": 50.0,
        "ap75": 25.0,
        "ap_small": None,
        "ap_medium": 10.0,
        "ap_large": 100.0,
        "curve50": [100.0, 98.77],
    }
    assert values["clean"]["ap75"] is None
    assert values["clean"]["curve50"] == []


def test_a_number_says_where_it_was_measured():
    values = environment(torch.device("cpu"))
    assert values["device"] == "cpu"
    assert values["torch"] == torch.__version__
    assert values["threads"] == torch.get_num_threads()
    assert values.keys() == {"commit", "device", "processor", "threads", "python", "torch"}


@pytest.mark.parametrize("error", [OSError("no git"), subprocess.CalledProcessError(128, "git")])
def test_without_git_there_is_no_commit(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(tables.subprocess, "run", fail)
    assert environment("cpu")["commit"] is None


def test_the_commit_is_not_that_of_another_project_around_the_installed_package(
    monkeypatch, tmp_path
):
    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", "-C", tmp_path, *who, *arguments], check=True, capture_output=True)

    git("init")
    installed = tmp_path / "venv" / "tables.py"
    installed.parent.mkdir()
    installed.touch()
    (tmp_path / ".gitignore").write_text("venv\n")
    git("add", ".gitignore")
    git("commit", "-m", "Begin")
    monkeypatch.setattr(tables, "__file__", str(installed))
    assert environment("cpu")["commit"] is None
    git("add", "--force", "venv/tables.py")
    git("commit", "-m", "Be the project itself")
    commit = environment("cpu")["commit"]
    assert commit is not None
    assert not commit.endswith("-dirty")
