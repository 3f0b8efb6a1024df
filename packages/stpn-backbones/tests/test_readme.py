import doctest
from pathlib import Path

import pytest


@pytest.mark.compile
def test_the_readme_example_is_true() -> None:
    readme = Path(__file__).parents[1] / "README.md"
    result = doctest.testfile(str(readme), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0
