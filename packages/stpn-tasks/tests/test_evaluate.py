from pathlib import Path

import pytest

from stpn_tasks.evaluate import model_names


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/model.safetensors", "b/model.safetensors"], ["a", "b"]),
        (["x/a/one.safetensors", "x/a/two.safetensors"], None),
        (["x/a/model.safetensors", "y/a/model.safetensors"], None),
    ],
)
def test_models_are_named_by_folders_that_differ_or_by_whole_paths(files, names):
    assert model_names([Path(file) for file in files]) == (files if names is None else names)


def test_a_file_is_not_compared_with_itself():
    files = [Path("a/model.safetensors"), Path("a/../a/model.safetensors")]
    with pytest.raises(ValueError, match=r"compared with itself: a/model\.\w+ and a/\.\./a/model"):
        model_names(files)
