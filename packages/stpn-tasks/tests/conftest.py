"""What the tests of this package share."""

import importlib.util
import sys
from pathlib import Path

import pytest


def _beside(name):
    """Import a module beside this file, which test modules cannot import."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # for dataclasses and for what is pickled
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny():
    """The module of that name beside this file."""
    return _beside("tiny")


@pytest.fixture(scope="session")
def tiny_tracking():
    """The module of that name beside this file."""
    return _beside("tiny_tracking")


@pytest.fixture(scope="session")
def tiny_segmentation():
    """The module of that name beside this file."""
    return _beside("tiny_segmentation")


@pytest.fixture(scope="session")
def released_layout():
    """The module of that name beside this file."""
    return _beside("released_layout")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Keep rendered video out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
