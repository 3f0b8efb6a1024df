"""The kernel benchmark: its providers compute the same numbers, and a run says what it did."""

import csv
import importlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
CPU = torch.device("cpu")


@pytest.fixture
def benchmark_module(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run the benchmark of the cheapest shapes; return what it printed and its folder."""
    output = tmp_path_factory.mktemp("bench")
    command = [sys.executable, BENCHMARKS / "bench_kernels.py", "--quick", "--device", "cpu"]
    command += ["--only", "n: Swin-T 384x640 stage 4", "pool:", "--output", output]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder,) = (output / "kernels").iterdir()
    return done.stdout, folder


def test_a_run_writes_every_time_with_where_it_comes_from(run):
    with (run[1] / "timings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["operator"] for row in rows} == {
        "prompted_window_attention",
        "support_pool",
    }
    for row in rows:
        assert all(row[name] for name in ("device", "driver", "torch", "triton", "commit", "dtype"))
        assert row["failed"] == "no"
        numbers = [float(row[f"{quantile}_ms"]) for quantile in ("p20", "p50", "p80")]
        assert numbers == sorted(numbers)
        numbers += [float(row[name]) for name in ("times_ours", "gb_per_s", "percent_of_floor")]
        numbers += [float(row[name]) for name in ("floor_ms", "peak_mb", "minimal_mb", "gflop")]
        assert all(0 < number < float("inf") for number in numbers)
        if row["provider"] == "ours (reference)":
            assert row["times_ours"] == "1"
    providers = {row["provider"] for row in rows}
    assert providers >= {"ours (reference)", "official order, eager", "SDPA, concat + dense mask"}
    assert {row["direction"] for row in rows} == {"forward", "backward", "both"}


def test_predictions_are_called_predictions(run):
    summary = (run[1] / "summary.md").read_text()
    for text in (run[0], summary):
        assert "PREDICTED for an NVIDIA H200, not measured" in text
        assert "Compiled for GPUs, not run" in text
        assert "geometric means over the shapes" in text
        assert "nan" not in text.lower().split()


def test_a_run_draws_its_times(run):
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    assert (run[1] / "prompted-window-attention.png").stat().st_size > 0
    assert (run[1] / "support-pool.png").stat().st_size > 0


def test_providers_of_window_attention_equal_the_reference(benchmark_module):
    problem = benchmark_module("problem")
    for case in benchmark_module("window_providers").problems("cpu", True):
        shape = replace(case.shapes[0], batch=2, height=9, width=16, heads=2, head_width=4)
        checked = 0
        for shifted in (shape, replace(shape, shift=0)):
            for provider in case.providers:
                if provider.gpu_only or provider.name.startswith("timm"):
                    continue
                own = provider.change(shifted)
                problem.check(provider, own, problem.expect(case, own, CPU, torch.float32))
                checked += 1
        assert checked == 2 * 4


def test_timm_equals_the_layer_without_prompts_on_whole_windows(benchmark_module):
    pytest.importorskip("timm", reason="a peer that is installed for development only")
    problem = benchmark_module("problem")
    _, layer = benchmark_module("window_providers").problems("cpu", True)
    shape = replace(layer.shapes[0], batch=2, height=9, width=16, heads=2, head_width=4, prompts=0)
    for provider in layer.providers[-2:]:
        whole = provider.check_at(shape)
        problem.check(provider, whole, problem.expect(layer, whole, CPU, torch.float32))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_computes_the_same_output(benchmark_module, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    for case in benchmark_module("window_providers").problems("cpu", True):
        shape = replace(case.shapes[0], batch=2, height=9, width=16, heads=2, head_width=4)
        (provider,) = [p for p in case.providers if p.name == "FlexAttention"]
        inputs = case.draw(shape, CPU, torch.float32)
        with torch.no_grad():  # on a CPU it has no backward
            out = provider.build(shape, inputs)()
            torch.testing.assert_close(out, case.reference(shape, *inputs))


def test_providers_of_the_support_operators_equal_the_reference(benchmark_module):
    problem = benchmark_module("problem")
    for case in benchmark_module("support_providers").problems("cpu", True):
        shape = replace(case.shapes[0], clips=2, tokens=5, channels=16, support_frames=3)
        for provider in case.providers:
            if not provider.gpu_only:
                problem.check(provider, shape, problem.expect(case, shape, CPU, torch.float32))


def test_a_wrong_provider_is_found(benchmark_module):
    problem = benchmark_module("problem")
    case = benchmark_module("support_providers").problems("cpu", True)[0]
    shape = replace(case.shapes[0], tokens=2, channels=8)
    wrong = problem.provider("wrong", lambda shape, *inputs: 1.01 * case.reference(shape, *inputs))
    with pytest.raises(AssertionError, match="output differs from the reference by 1.0e-02"):
        problem.check(wrong, shape, problem.expect(case, shape, CPU, torch.float32))


def test_where_nothing_is_padded_the_bias_has_no_gradient(benchmark_module):
    problem = benchmark_module("problem")
    operator, _ = benchmark_module("window_providers").problems("cpu", True)
    shape = replace(operator.shapes[0], height=14, width=7, heads=2, head_width=4)
    expected = problem.expect(operator, shape, CPU, torch.float32)
    assert expected.grads[1].norm() == 0
    problem.check(operator.providers[0], shape, expected)


def test_what_fails_has_a_row_that_says_why(benchmark_module, monkeypatch):
    bench = benchmark_module("bench_kernels")
    cost = importlib.import_module("stpn_kernels.cost")
    timing = importlib.import_module("stpn_kernels.timing")
    case = benchmark_module("support_providers").problems("cpu", True)[0]

    def broken(shape, *inputs):
        raise RuntimeError("out of luck\nand more")

    ours, peer = case.providers[0], benchmark_module("problem").provider("broken", broken)
    case = replace(case, providers=[ours, peer])
    shape = replace(case.shapes[0], tokens=2, channels=8)
    options = timing.BenchmarkOptions(True, 1, CPU, None)
    rows = bench.time_shape(case, shape, options, cost.H200)
    assert [row.note for row in rows if row.provider == "broken"] == ["RuntimeError: out of luck"]
    assert sum(row.times is not None for row in rows) == 3
