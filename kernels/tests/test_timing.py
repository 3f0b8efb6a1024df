import json
import sys
from pathlib import Path

import pytest
import torch

from stpn_kernels.timing import (
    BenchmarkOptions,
    median_seconds,
    parse_benchmark_options,
    peak_bytes,
    write_record,
)

THREADS = torch.get_num_threads()


def options(output=None, threads=1):
    return BenchmarkOptions(True, threads, torch.device("cpu"), output)


def test_runs_take_turns_after_a_first_turn_that_is_not_timed():
    called = []
    runs = {name: lambda name=name: called.append(name) for name in "ab"}
    times = median_seconds(runs, options(), at_least=3, budget=0.0)
    assert "".join(called) == "ab" * 4
    assert times.keys() == runs.keys()
    median_seconds(runs, options(), at_least=1, budget=0.0, warm_up=False)
    assert "".join(called) == "ab" * 5


def test_the_median_leaves_out_an_outlier(monkeypatch):
    seconds = iter([1.0, 50.0, 2.0])
    monkeypatch.setattr(BenchmarkOptions, "seconds", lambda self, run: next(seconds))
    assert median_seconds({"a": int}, options(), at_least=3, budget=0.0) == {"a": 2.0}


@pytest.mark.parametrize("threads", [1, 2])
def test_work_takes_longer_than_nothing(threads):
    clock = options(threads=threads).seconds
    assert clock(lambda: sum(range(10**6))) > clock(int) >= 0


def test_the_peak_counts_what_is_held_at_one_time():
    held = torch.zeros(1000, 1000)

    def three_of_which_two_at_a_time():
        first = held + 1
        second = first + 1
        del first
        return second + 1

    assert peak_bytes(three_of_which_two_at_a_time, torch.device("cpu")) == pytest.approx(8e6, 1e-3)
    assert peak_bytes(lambda: None, torch.device("cpu")) == 0


def test_a_record_says_how_the_rows_came_about(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmarks/bench_it.py", "--output", "a b"])
    write_record(options(tmp_path / "new"), [{"ratio": 1.5}])
    (file,) = (tmp_path / "new").iterdir()
    record = json.loads(file.read_text())
    assert file.name == "bench_it.json"
    assert record["command"] == "python benchmarks/bench_it.py --output 'a b'"
    assert record["rows"] == [{"ratio": 1.5}]
    assert torch.__version__.partition("+")[0] in record["machine"]
    assert "commit" in record


def test_without_output_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_record(options(), [{"ratio": 1.5}])
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_sets_the_threads(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--quick", "--threads", "2", "--output", "folder"])
    try:
        parsed = parse_benchmark_options("A benchmark.")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(THREADS)
    assert parsed == options(Path("folder"), threads=2)


@pytest.mark.parametrize(
    ("device", "message"),
    [("gpu", "no device is called 'gpu'"), ("cuda", "PyTorch finds no CUDA device here")],
)
def test_a_device_that_is_not_there_is_refused_in_words(monkeypatch, capsys, device, message):
    monkeypatch.setattr("sys.argv", ["bench", "--device", device])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        parse_benchmark_options("A benchmark.")
    assert message in capsys.readouterr().err
