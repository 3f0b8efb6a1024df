import json
import stat

import pytest

from stpn_tasks.files import atomic_path, write_text
from stpn_tasks.tables import write_json


def test_a_file_appears_whole_in_a_new_folder_and_others_can_read_it(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    write_text(path, "größer")
    assert path.read_text(encoding="utf-8") == "größer"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with atomic_path(path) as partial:
        assert partial.parent == path.parent
        assert partial.suffix == ".txt"
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_an_error_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(OSError, match="disk is full"), atomic_path(path) as partial:
        _write_half(partial)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def _write_half(path):
    path.write_text("half")
    raise OSError("disk is full")


def test_values_that_json_cannot_hold_leave_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"path": tmp_path, "list": (1, 2)})
    assert json.loads(path.read_text()) == {"path": str(tmp_path), "list": [1, 2]}
    with pytest.raises(ValueError, match="nan"):
        write_json(path, {"ap": float("nan")})
    assert json.loads(path.read_text())["list"] == [1, 2]
