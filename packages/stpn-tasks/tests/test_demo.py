import pytest

from stpn_tasks.comparison.options import ComparisonOptions
from stpn_tasks.demo import run_demo
from stpn_tasks.results import load_results


@pytest.mark.slow
def test_the_smoke_demo_runs_in_two_processes(tmp_path, capsys):
    options = ComparisonOptions(
        output=tmp_path / "demo", smoke=True, device="cpu", cache=tmp_path / "cache"
    )
    page = run_demo(options)
    results = load_results(tmp_path / "demo" / "results.json")
    assert results.about["command"] == "stpn demo --smoke --device cpu"
    assert results.about["finetune_steps"] == options.scale.finetune_steps
    text = page.read_text()
    assert "Where the prompts look" in text
    assert text.count("data:image/") > 20
    assert "Average precision" in capsys.readouterr().out
