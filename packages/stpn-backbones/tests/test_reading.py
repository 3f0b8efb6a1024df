"""Files of weights are read as they are or refused in words, and nothing in them is run."""

import os
from collections import OrderedDict
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stpn_backbones import read_state_dict

# As mmcv writes them: weights, and beside them plain values and the optimiser's state.
CHECKPOINT = {
    "meta": {"epoch": 9, "CLASSES": ("cat", "dog"), "config": "lr = 1", "time": "Mon Aug 2"},
    "state_dict": OrderedDict(a=torch.arange(3000.0), b=torch.ones(2, dtype=torch.int64)),
    "optimizer": {
        "state": {0: {"step": 3, "exp_avg": torch.zeros(2)}},
        "param_groups": [{"lr": 1}],
    },
}


class RunsCode:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_checkpoint_of_mmcv_gives_its_weights(tmp_path, is_zip):
    path = tmp_path / "epoch_9.pth"
    torch.save(CHECKPOINT, path, _use_new_zipfile_serialization=is_zip)
    found = read_state_dict(path)
    assert list(found) == ["a", "b"]
    assert all(torch.equal(found[key], value) for key, value in CHECKPOINT["state_dict"].items())


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize(
    ("value", "name"),
    [(RunsCode, "mkdir"), (lambda _: np.float64(1), "multiarray.scalar"), (Path, "Path")],
)
def test_a_file_with_code_is_named_with_the_code_and_nothing_runs(tmp_path, value, name, is_zip):
    path, folder = tmp_path / "code.pth", tmp_path / "made"
    checkpoint = {**CHECKPOINT, "meta": value(folder)}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ValueError, match=rf"code\.pth is not read: it asks to run \S*{name},"):
        read_state_dict(path)
    assert not folder.exists()


class Settings:
    """As a tracker's trainer keeps beside its weights."""

    def __init__(self):
        self.batch_size = 32
        self.host = Path("here")

    def __setstate__(self, state):
        raise AssertionError("the file's class was run")


def test_objects_beside_the_weights_of_a_tracker_are_read_past_if_asked(tmp_path):
    path = tmp_path / "MixFormer_ep0300.pth.tar"
    stats = OrderedDict(train=OrderedDict(loss=np.float64(1)))
    checkpoint = {"net": CHECKPOINT["state_dict"], "settings": Settings(), "stats": stats}
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r"asks to run \S+\.\w+,"):
        read_state_dict(path)
    found = read_state_dict(path, skip_objects=True)
    assert list(found) == ["a", "b"]
    assert torch.equal(found["a"], CHECKPOINT["state_dict"]["a"])
    with pytest.raises(ValueError, match="asks to run"):  # nothing stays allowed
        read_state_dict(path)


@pytest.mark.parametrize("place", ["net", "settings"])
def test_code_is_never_run_even_where_objects_are_read_past(tmp_path, place):
    path, folder = tmp_path / "code.pth", tmp_path / "made"
    torch.save({**CHECKPOINT, place: RunsCode(folder)}, path)
    with pytest.raises(ValueError, match="it asks to run"):  # os is refused outright
        read_state_dict(path, skip_objects=True)
    assert not folder.exists()


class CallsEval:
    """Unpickled, it evaluates text."""

    def __init__(self, text):
        self.text = text

    def __reduce__(self):
        return eval, (self.text,)


def test_a_function_becomes_inert_where_objects_are_read_past(tmp_path):
    path, folder = tmp_path / "code.pth", tmp_path / "made"
    code = CallsEval(f"__import__('os').mkdir({str(folder)!r})")
    torch.save({"net": CHECKPOINT["state_dict"], "settings": code}, path)
    assert list(read_state_dict(path, skip_objects=True)) == ["a", "b"]
    assert not folder.exists()
    torch.save({"net": {"a": code}}, path)
    with pytest.raises(ValueError, match="'a' has a _Inert"):
        read_state_dict(path, skip_objects=True)
    assert not folder.exists()


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_a_part_of_a_file_is_named(tmp_path, kept, is_zip):
    path = tmp_path / "part.pth"
    torch.save(CHECKPOINT, path, _use_new_zipfile_serialization=is_zip)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ValueError, match=r"part\.pth is not a whole PyTorch checkpoint: \w+"):
        read_state_dict(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_file_is_read_or_refused_in_words(tmp_path):
    path, refused = tmp_path / "damaged.pth", 0
    torch.save(CHECKPOINT, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for seed in range(300):
        random, data = Random(seed), bytearray(whole)
        for _ in range(3):
            data[random.randrange(1500)] = random.randrange(256)
        path.write_bytes(data)
        try:
            read_state_dict(path)
        except ValueError as error:
            refused += 1
            assert str(path) in str(error), seed  # noqa: PT017
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
    assert refused > 100


def test_a_page_in_place_of_a_checkpoint_is_named(tmp_path):
    path = tmp_path / "page.pth"
    path.write_text("<html>Not found</html>")
    with pytest.raises(ValueError, match=r"page\.pth is not a whole PyTorch checkpoint"):
        read_state_dict(path)


def test_a_damaged_safetensors_file_is_named(tmp_path):
    path = tmp_path / "part.safetensors"
    save_file({"a": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"part\.safetensors is not a whole safetensors file"):
        read_state_dict(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "missing.pth", tmp_path):
        with pytest.raises(ValueError, match=f"{path} is not a file"):
            read_state_dict(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "got a list"),
        ({"a": torch.zeros(1), "epoch": 9}, "'epoch' has a int"),
        ({"state_dict": {3: torch.zeros(1)}}, "3 has a Tensor"),
    ],
)
def test_what_is_no_state_dict_is_named(tmp_path, content, message):
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(ValueError, match=rf"other\.pth: expected a state dict, .* {message}"):
        read_state_dict(path)
