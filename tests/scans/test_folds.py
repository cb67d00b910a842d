"""Folds test every scan once, one of each center a fold, and never share a scan."""

import json

import numpy as np
import pytest

from planar3d.errors import FoldsError
from planar3d.scans.case import patient_of
from planar3d.scans.folds import Fold, choose_folds, everything, group_folds, msseg_folds, read_folds, shared_patients

MSSEG = (
    *("01016SACH", "01038PAGU", "01039VITE", "01040VANE", "01042GULE"),
    *("07001MOEL", "07003SATH", "07010NABO", "07040DORE", "07043SEME"),
    *("08002CHJE", "08027SYBR", "08029IVDI", "08031SEVE", "08037ROGU"),
)


def test_fold_1_tests_the_scans_of_the_released_weights():
    folds = msseg_folds(reversed(MSSEG))
    assert folds[0].test == ("01042GULE", "07043SEME", "08037ROGU")
    assert folds[0].validation == ("08031SEVE",)
    assert folds[4].test == ("01016SACH", "07001MOEL", "08002CHJE")


def _partitions(folds, ids):
    assert sorted(scan for fold in folds for scan in fold.test) == sorted(ids)
    for fold in folds:
        assert sorted((*fold.train, *fold.validation, *fold.test)) == sorted(ids)


def test_msseg_folds_test_each_scan_once_and_train_on_eleven():
    folds = msseg_folds(MSSEG)
    _partitions(folds, MSSEG)
    assert {(len(f.train), len(f.validation), len(f.test)) for f in folds} == {(11, 1, 3)}
    assert all({scan[:2] for scan in fold.test} == {"01", "07", "08"} for fold in folds)


def test_msseg_folds_that_do_not_exist_are_an_error():
    with pytest.raises(FoldsError, match="five scans of each center"):
        msseg_folds(MSSEG[:-1])


@pytest.mark.parametrize("folds", [None, 2, 3, 4])
def test_groups_of_unequal_size_still_test_each_scan_once(folds):
    groups = {f"s{i}": "a" if i < 4 else "b" for i in range(7)}
    _partitions(group_folds(groups, folds), groups)


def test_a_patient_who_is_left_alone_is_for_training():
    groups = dict.fromkeys("bca", "tabriz")
    assert group_folds(groups, 2) == [Fold(("b",), (), ("a", "c")), Fold(("a",), ("c",), ("b",))]
    assert group_folds(dict.fromkeys("ab", "tabriz")) == [Fold(("a",), (), ("b",)), Fold(("b",), (), ("a",))]


def test_one_small_group_leaves_one_out():
    groups = dict.fromkeys("abcdefghi", "tabriz")
    assert [fold.test for fold in group_folds(groups)] == [(s,) for s in "ihgfedcba"]
    assert [len(fold.test) for fold in group_folds(groups, 3)] == [3, 3, 3]


@pytest.mark.parametrize(("sizes", "folds"), [((10,), 10), ((11,), 5), ((10, 1), 5), ((4, 3), 4)])
def test_by_default_folds_are_five_or_one_for_each_patient_of_few(sizes, folds):
    groups = {f"{group}{one}": str(group) for group, size in enumerate(sizes) for one in range(size)}
    assert len(group_folds(groups)) == folds


@pytest.mark.parametrize(
    ("number", "why"), [(None, "Folds cannot be made: "), (3, "The number of folds cannot be 3: ")]
)
def test_groups_of_one_patient_each_need_other_folds(number, why):
    with pytest.raises(FoldsError, match=f"{why}the largest group has 1 patient. Join groups"):
        group_folds({"a": "1", "b": "2", "c": "3"}, number)


@pytest.mark.parametrize("seed", range(20))
def test_all_visits_of_a_patient_are_for_one_purpose(seed):
    rng = np.random.default_rng(seed)
    visits = rng.integers(1, 6, rng.integers(6, 15))
    grade = {f"BraTS-GLI-{number:05d}": "HGG" if rng.random() < 0.5 else "LGG" for number in range(len(visits))}
    cases = {f"{who}-{n:03d}": who for who, count in zip(grade, visits, strict=True) for n in range(count)}
    assert {case: patient_of(case) for case in cases} == cases
    groups = {case: grade[who] for case, who in cases.items()}
    most = max(list(grade.values()).count(one) for one in ("HGG", "LGG"))
    folds = group_folds(groups, int(rng.integers(2, most + 1)), cases)
    _partitions(folds, cases)
    for fold in [*folds, everything(cases)]:
        parts = [{cases[case] for case in part} for part in (fold.train, fold.validation, fold.test)]
        assert sum(map(len, parts)) == len(grade), "a patient is in two parts"
        assert len(parts[1]) == 1


def test_visits_of_one_patient_alone_cannot_be_cross_validated():
    visits = dict.fromkeys(("sub-01_ses-1", "sub-01_ses-2", "sub-01_ses-3"), "sub-01")
    for scans, found in ((visits, "1 patient"), ({}, "0 patients")):
        with pytest.raises(FoldsError, match=f"{found} cannot be cross-validated"):
            group_folds(dict.fromkeys(scans, "all"), None, scans)
    assert everything(visits) == Fold(tuple(visits), (), ())
    assert everything({**visits, "sub-02": "sub-02"}) == Fold(tuple(visits), ("sub-02",), ())


@pytest.mark.parametrize(
    ("case", "patient"),
    [
        ("BraTS-GLI-00003-001", "BraTS-GLI-00003"),
        ("BraTS-MET-00101-000", "BraTS-MET-00101"),
        ("training01_02", "training01"),
        ("training_training01_preprocessed_training01_02_flair_pp", "training_training01_preprocessed_training01"),
        ("training_001_02", "training_001_02"),
        ("Brats17_TCIA_201_1", "Brats17_TCIA_201"),
        ("BraTS19_2013_10_1", "BraTS19_2013_10"),
        ("BraTS20_Training_001", "BraTS20_Training_001"),
        ("BraTS2021_00000", "BraTS2021_00000"),
        ("sub-01_ses-2_run-1", "sub-01"),
        ("sub-01", "sub-01"),
        ("oslo_sub-01_ses-2_anat_sub-01_ses-2_FLAIR", "oslo_sub-01"),
        ("01016SACH", "01016SACH"),
        ("BRATS_001", "BRATS_001"),
    ],
)
def test_patients_are_told_by_the_names_of_their_visits(case, patient):
    assert patient_of(case) == patient


def test_a_number_of_numpy_is_a_number_of_folds():
    groups = dict.fromkeys("abcde", "x")
    assert group_folds(groups, np.int64(3)) == group_folds(groups, 3)


@pytest.mark.parametrize("folds", [1, 10])
def test_impossible_numbers_of_folds_are_refused(folds):
    with pytest.raises(FoldsError, match="Choose 2 to 9 folds"):
        group_folds(dict.fromkeys("abcdefghi", "x"), folds)


def test_a_user_s_own_folds_are_honoured_or_refused(tmp_path):
    path = tmp_path / "folds.json"
    path.write_text(json.dumps({"folds": [{"train": ["c"], "validation": ["a"], "test": ["b"]}]}))
    assert read_folds(path, "abc")[0].train == ("c",)
    path.write_text(json.dumps({"folds": [{"train": ["c", "a"], "validation": [], "test": ["b"]}]}))
    assert read_folds(path, "abc")[0].validation == ()
    path.write_text(json.dumps([{"train": ["\u00e9", "a"], "validation": [], "test": ["b"]}]))
    assert read_folds(path, ["a", "b", "e\u0301"])[0].train == ("e\u0301", "a")  # as the file of the scan spells it
    assert read_folds(path, ["a", "b", "e\u0301", "\u00e9"])[0].train == ("\u00e9", "a")
    for row, sentence in (
        ({"train": ["c"], "validation": ["a"], "test": ["z"]}, "fold 1: z is not in the data set"),
        ({"train": ["c", "b"], "validation": ["a"], "test": ["b"]}, "fold 1: b is listed twice"),
        ({"train": ["c"], "validation": ["a"], "test": []}, "at least one scan"),
        ({"train": [], "validation": ["a"], "test": ["c"]}, "at least one scan"),
        ({"train": "c", "validation": [], "test": ["a"]}, "a list of scan names is needed, found 'c'"),
        ({"train": [3], "validation": [], "test": ["a"]}, r"a list of scan names is needed, found \[3\]"),
        ({"train": ["c"]}, r"has no folds \(a fold lacks validation, test\)"),
        (3, r"has no folds \(found 3 for a fold\)"),
    ):
        path.write_text(json.dumps({"folds": [row]}))
        with pytest.raises(FoldsError, match=sentence):
            read_folds(path, "abc")
    for content in ([], {"folds": []}, {"folds": 3}, {}):
        path.write_text(json.dumps(content))
        with pytest.raises(FoldsError, match="has no folds"):
            read_folds(path, "abc")
    path.write_text("scan,fold\na,1\n")
    with pytest.raises(FoldsError, match=r"json has no folds \(Expecting value: line 1 column 1 .*\); exp"):
        read_folds(path, "abc")


def test_folds_are_chosen_by_number():
    assert choose_folds("5,1", 5) == choose_folds([1, 5], 5) == [1, 5]
    assert choose_folds(None, 3) == [1, 2, 3]
    for only in ("6", "0", "x", ""):
        with pytest.raises(FoldsError):
            choose_folds(only, 5)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("P1_T1", "P1_T2"),
        ("P1", "P1_T2"),
        ("013_flair_time01", "013_flair_time02"),
        ("p4_study1_F", "p4_study2_F"),
        ("7-bl", "7-followup"),
        ("ses-1_sub-01_FLAIR", "ses-2_sub-01_FLAIR"),
    ],
)
def test_names_tell_visits_whose_patient_nobody_named(one, other):
    folds = [Fold((other, "x1"), (), ("x2",)), Fold((other, "x1"), (), ("x2", one))]
    alone = {scan: patient_of(scan) for scan in (one, other, "x1", "x2")}
    (sentence,) = shared_patients(folds, alone)
    assert f"{one} and {other} count as different patients, and fold 2 trains" in sentence
    assert "column patient" in sentence
    assert shared_patients(folds[:1], alone) == []
    assert shared_patients(folds, alone | {one: "a", other: "b"}) == []
    assert shared_patients(folds, alone | {one: "a", other: "a"}) == [
        f"Fold 2 tests {one}, but trains or validates on other scans of the same patients; scores on new patients "
        "would be lower."
    ]


@pytest.mark.parametrize(("one", "other"), [("MS_001", "MS_002"), ("m1", "m2"), ("t1", "t2"), ("01_001", "01_002")])
def test_numbers_of_patients_are_no_visits(one, other):
    assert shared_patients([Fold((one,), (), (other,))], {one: one, other: other}) == []
