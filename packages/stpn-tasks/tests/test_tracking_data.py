import cv2
import numpy as np
import pytest

from stpn_data import DataError, OwnSequences
from stpn_tasks.tracking.data import open_sequences


def write_sequence(folder):
    folder.mkdir(parents=True)
    for index in (1, 2):
        cv2.imwrite(str(folder / f"{index:08d}.jpg"), np.zeros((8, 9, 3), np.uint8))
    (folder / "groundtruth.txt").write_text("1,1,4,4\n")


def test_a_missing_list_of_got10k_is_named(tmp_path):
    write_sequence(tmp_path / "test" / "one")
    with pytest.raises(DataError, match=r"/test/list\.txt: the list of this split .* missing"):
        open_sequences(str(tmp_path), "test")
    (tmp_path / "test/list.txt").write_text("one\n")
    assert [one.name for one in open_sequences(str(tmp_path), "test").sequences] == ["one"]
    with pytest.raises(DataError, match=r"/val/list\.txt: the list of this split .* missing"):
        open_sequences(str(tmp_path), "val")


def test_a_split_given_for_the_folder_of_got10k_is_told(tmp_path):
    write_sequence(tmp_path / "test" / "one")
    (tmp_path / "test/list.txt").write_text("one\n")
    with pytest.raises(DataError, match=r"test/val/list\.txt is missing: give .* looks like one"):
        open_sequences(str(tmp_path / "test"), "val")


def test_own_sequences_may_be_called_like_splits_and_lists(tmp_path):
    write_sequence(tmp_path / "train")
    write_sequence(tmp_path / "list")
    (tmp_path / "list/groundtruth.txt").rename(tmp_path / "list.txt")
    (tmp_path / "val").mkdir()
    (tmp_path / "test.txt").write_text("1,1,4,4\n")
    write_sequence(tmp_path / "test")
    (tmp_path / "test/groundtruth.txt").unlink()
    sequences = open_sequences(str(tmp_path), "train")
    assert isinstance(sequences, OwnSequences)
    write_sequence(tmp_path / "val" / "not taken")
    sequences = open_sequences(str(tmp_path), "val")
    assert [one.name for one in sequences.sequences] == ["list", "test", "train"]


def test_an_own_sequence_may_have_a_list_of_its_own(tmp_path):
    write_sequence(tmp_path / "one")
    (tmp_path / "one/list.txt").write_text("00000001.jpg\n00000002.jpg\n")
    assert len(open_sequences(str(tmp_path / "one"), "val").sequences) == 1
