"""Data sets are found by their layout; what is missing is named."""

import pytest

from planar3d.errors import DatasetError
from planar3d.scans.datasets import find_cases


def _touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize("above", ["", "TrainingDataset_MSSEG/", "Unprocessed training dataset/TrainingDataset_MSSEG/"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_msseg_as_first_distributed(tmp_path, above, suffix):
    for patient in ("01016SACH", "07001MOEL"):
        _touch(tmp_path, f"{above}{patient}/3DFLAIR.nii{suffix}", f"{above}{patient}/Consensus.nii{suffix}")
    dataset = find_cases(tmp_path)
    assert [(case.id, case.group) for case in dataset.cases] == [("01016SACH", "01"), ("07001MOEL", "07")]
    assert all(case.scan.is_file() and case.mask.is_file() for case in dataset.cases)


@pytest.mark.parametrize("above", ["", "Training/"])
def test_msseg_of_the_shanoir_portal_keeps_its_own_names(tmp_path, above):
    patient = tmp_path / above / "Center_07" / "Patient_03"
    _touch(patient, "Raw_Data/FLAIR.nii.gz", "Masks/Consensus.nii.gz", "Preprocessed_Data/FLAIR_preprocessed.nii.gz")
    (case,) = find_cases(tmp_path).cases
    assert (case.id, case.group) == ("Center_07_Patient_03", "Center_07")
    assert case.scan == patient / "Raw_Data/FLAIR.nii.gz"


def test_bids_takes_sites_as_groups(tmp_path):
    for subject in ("sub-01", "sub-02"):
        _touch(tmp_path, f"{subject}/anat/{subject}_FLAIR.nii.gz")
        _touch(tmp_path, f"derivatives/manual/{subject}/anat/{subject}_label-lesion_mask.nii.gz")
    (tmp_path / "participants.tsv").write_text("participant_id\tsite\nsub-01\toslo\nsub-02\tbrno\n")
    assert {case.id: case.group for case in find_cases(tmp_path).cases} == {"sub-01": "oslo", "sub-02": "brno"}


def test_bids_with_sessions_keeps_them_apart(tmp_path):
    for session in ("ses-1", "ses-2"):
        _touch(tmp_path, f"sub-01/{session}/anat/sub-01_{session}_FLAIR.nii.gz")
        _touch(tmp_path, f"derivatives/m/sub-01/{session}/anat/sub-01_{session}_label-lesion_mask.nii.gz")
    cases = find_cases(tmp_path).cases
    assert [case.id for case in cases] == ["sub-01_ses-1", "sub-01_ses-2"]
    assert all(case.id.split("_")[1] in str(case.mask) for case in cases)


def test_a_csv_table_names_files_beside_itself(tmp_path):
    _touch(tmp_path, "a/f.nii.gz", "a/m.nii.gz", "b/f.nii.gz", "b/m.nii.gz")
    table = tmp_path / "scans.csv"
    table.write_text("scan,mask,group\na/f.nii.gz,a/m.nii.gz,x\nb/f.nii.gz,b/m.nii.gz,y\n")
    assert [(case.id, case.group) for case in find_cases(table).cases] == [("a_f", "x"), ("b_f", "y")]
    table.write_text("scan,group\na/f.nii.gz,x\n")
    with pytest.raises(DatasetError, match="needs scan, mask, group"):
        find_cases(table)
    table.write_text("scan,mask,group\nabsent.nii.gz,a/m.nii.gz,x\n")
    with pytest.raises(DatasetError, match=r"line 2.*absent.nii.gz does not exist"):
        find_cases(table)


def test_a_missing_empty_or_unknown_folder_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        find_cases(tmp_path / "absent")
    with pytest.raises(DatasetError, match="is empty"):
        find_cases(tmp_path)
    _touch(tmp_path, "something/else.txt")
    with pytest.raises(DatasetError, match="no layout that is known"):
        find_cases(tmp_path)


def test_a_scan_without_its_mask_is_named(tmp_path):
    _touch(tmp_path, "01016SACH/3DFLAIR.nii.gz", "01016SACH/Consensus.nii.gz", "01038PAGU/3DFLAIR.nii.gz")
    with pytest.raises(DatasetError, match=r"1 of 2 scans.*01038PAGU"):
        find_cases(tmp_path)


@pytest.mark.real
def test_the_real_bids_folder(real_data):
    dataset = find_cases(real_data / "data/ms_flair")
    assert dataset.layout == "BIDS" and len(dataset.cases) == 9
    assert {case.group for case in dataset.cases} == {"tabriz"}
