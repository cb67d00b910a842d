"""Folds test every scan once, one of each center a round, and never share a scan."""

import json

import pytest

from planar3d.errors import FoldsError
from planar3d.scans.folds import choose_rounds, group_folds, msseg_folds, read_folds

MSSEG = (
    *("01016SACH", "01038PAGU", "01039VITE", "01040VANE", "01042GULE"),
    *("07001MOEL", "07003SATH", "07010NABO", "07040DORE", "07043SEME"),
    *("08002CHJE", "08027SYBR", "08029IVDI", "08031SEVE", "08037ROGU"),
)


def test_round_1_tests_the_scans_of_the_released_weights():
    folds = msseg_folds(reversed(MSSEG))
    assert folds[0].test == ("01042GULE", "07043SEME", "08037ROGU")
    assert folds[0].validation == ("08031SEVE",)
    assert folds[4].test == ("01016SACH", "07001MOEL", "08002CHJE")


def _partitions(folds, ids):
    assert sorted(scan for fold in folds for scan in fold.test) == sorted(ids)
    for fold in folds:
        assert sorted((*fold.train, *fold.validation, *fold.test)) == sorted(ids)


def test_msseg_rounds_test_each_scan_once_and_train_on_eleven():
    folds = msseg_folds(MSSEG)
    _partitions(folds, MSSEG)
    assert {(len(f.train), len(f.validation), len(f.test)) for f in folds} == {(11, 1, 3)}
    assert all({scan[:2] for scan in fold.test} == {"01", "07", "08"} for fold in folds)


def test_msseg_folds_that_do_not_exist_are_an_error():
    with pytest.raises(FoldsError, match="five scans of each center"):
        msseg_folds(MSSEG[:-1])


@pytest.mark.parametrize("rounds", [None, 2, 3, 4])
def test_groups_of_unequal_size_still_test_each_scan_once(rounds):
    groups = {f"s{i}": "a" if i < 4 else "b" for i in range(7)}
    _partitions(group_folds(groups, rounds), groups)


def test_one_small_group_leaves_one_out():
    groups = dict.fromkeys("abcdefghi", "tabriz")
    assert [fold.test for fold in group_folds(groups)] == [(s,) for s in "ihgfedcba"]
    assert [len(fold.test) for fold in group_folds(groups, 3)] == [3, 3, 3]


@pytest.mark.parametrize("rounds", [1, 10])
def test_impossible_numbers_of_rounds_are_refused(rounds):
    with pytest.raises(FoldsError, match="from 2 to 9"):
        group_folds(dict.fromkeys("abcdefghi", "x"), rounds)


def test_a_user_s_own_folds_are_honoured_or_refused(tmp_path):
    path = tmp_path / "folds.json"
    path.write_text(json.dumps({"folds": [{"train": ["c"], "validation": ["a"], "test": ["b"]}]}))
    assert read_folds(path, "abc")[0].train == ("c",)
    for row, sentence in (
        ({"train": ["c"], "validation": ["a"], "test": ["z"]}, "z are not in the data set"),
        ({"train": ["c", "b"], "validation": ["a"], "test": ["b"]}, "used twice"),
        ({"train": ["c"], "validation": ["a"], "test": []}, "at least one scan"),
        ({"train": ["c"]}, "holds no folds"),
    ):
        path.write_text(json.dumps({"folds": [row]}))
        with pytest.raises(FoldsError, match=sentence):
            read_folds(path, "abc")
    with pytest.raises(FoldsError, match="does not exist"):
        read_folds(tmp_path / "absent.json", "abc")


def test_rounds_are_chosen_by_number():
    assert choose_rounds("4,2", 5) == [2, 4]
    assert choose_rounds(None, 3) == [1, 2, 3]
    for only in ("6", "0", "x"):
        with pytest.raises(FoldsError):
            choose_rounds(only, 5)
