import doctest
from pathlib import Path


def test_the_example_of_the_readme(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    readme = Path(__file__).parents[1] / "README.md"
    failures, examples = doctest.testfile(str(readme), module_relative=False)
    assert examples > 5
    assert failures == 0
