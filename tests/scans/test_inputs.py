"""Whatever is given, it is found which scans are meant, each gets a name of its own, and the rest is explained."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from planar3d.errors import ScanError
from planar3d.scans.inputs import find_inputs, outputs_of, read_input

AFFINE = np.diag([-1.0, -1.0, 3.0, 1.0])
VOXELS = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


def _touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def _names(*inputs):
    return [item.name for item in find_inputs(inputs)]


@pytest.fixture
def write_series():
    """The writer of `dicom_series`; the test is skipped where DICOM cannot be read."""
    pytest.importorskip("pydicom", reason="needs the extra dicom")
    pytest.importorskip("dcm2niix", reason="needs the extra dicom")
    from dicom_series import write_series

    return write_series


def test_files_are_taken_as_they_are():
    items = find_inputs([Path("/d/01A/3DFLAIR.nii.gz"), "/d/01B/3DFLAIR.nii"])
    assert [item.name for item in items] == ["01A_3DFLAIR", "01B_3DFLAIR"]
    assert [item.files for item in items] == [(Path("/d/01A/3DFLAIR.nii.gz"),), (Path("/d/01B/3DFLAIR.nii"),)]
    assert _names("/d/01A/3DFLAIR.nii.gz") == ["3DFLAIR"]


@pytest.mark.parametrize("second", ["a.nii", "./a.nii", "b/../a.nii"])
def test_a_scan_is_given_once(second):
    with pytest.raises(ScanError, match="given twice"):
        find_inputs(["a.nii", second])


def test_two_files_of_one_name_in_one_place_are_refused():
    with pytest.raises(ScanError, match=r"a.nii and a.nii.gz would have masks of one name"):
        find_inputs(["a.nii", "a.nii.gz"])


def test_of_a_folder_flair_files_are_taken_but_no_hidden_ones_and_no_masks(tmp_path):
    _touch(tmp_path, "x/a_FLAIR.nii", "b_flair_2.nii.gz", "T1.nii.gz", "FLAIR.txt", "._c_FLAIR.nii", ".h/d_FLAIR.nii")
    _touch(tmp_path, *(f"a_FLAIR_{output}.nii.gz" for output in ("mask", "probability", "label-lesion_probseg")))
    assert _names(tmp_path) == ["b_flair_2", "a_FLAIR"]


def test_links_are_named_by_themselves(tmp_path):
    (tmp_path / "MD5E-s1--0").touch()
    for name in ("a_FLAIR.nii", "b_FLAIR.nii"):
        (tmp_path / name).symlink_to(tmp_path / "MD5E-s1--0")
    assert _names(tmp_path) == ["a_FLAIR", "b_FLAIR"]


def test_a_folder_without_scans_is_refused(tmp_path):
    _touch(tmp_path, "T1.nii.gz", "notes.txt")
    with pytest.raises(ScanError, match=r"no \.nii or .nii.gz file with FLAIR in its name and no DICOM files"):
        find_inputs([tmp_path])


def test_absent_and_foreign_files_are_left_to_their_reading(tmp_path):
    _touch(tmp_path, "notes.txt")
    absent, foreign = find_inputs([tmp_path / "absent_FLAIR.nii", tmp_path / "notes.txt"])
    with pytest.raises(ScanError, match="does not exist"):
        read_input(absent)
    with pytest.raises(ScanError, match=r"not a \.nii or .nii.gz file"):
        read_input(foreign)


def test_a_table_names_scans_beside_itself(tmp_path):
    _touch(tmp_path, "a/f.nii.gz", "b/f.nii.gz")
    table = tmp_path / "scans.csv"
    table.write_text("scan,mask,group,id\na/f.nii.gz,a/m.nii.gz,x,\nb/f.nii.gz,b/m.nii.gz,y,second\n")
    assert [(item.name, item.path) for item in find_inputs([table])] == [
        ("f", tmp_path / "a/f.nii.gz"),
        ("second", tmp_path / "b/f.nii.gz"),
    ]
    table.write_text("\ufeffname,scan\nfirst,a/f.nii.gz\n,b/f.nii.gz\n", encoding="utf-8")
    assert _names(table) == ["first", "f"]
    table.write_text(f"scan\na/f.nii.gz\n{tmp_path}/b/f.nii.gz\n")
    assert _names(table) == ["a_f", "b_f"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no column “scan”, or no lines"),
        ("scan\n", "no column “scan”, or no lines"),
        ("path\na.nii\n", "no column “scan”"),
        ("scan,name\n,x\n", "line 2: scan is empty"),
        ("scan\na.nii\nabsent.nii\n", "line 3: .*absent.nii does not exist"),
        ("scan,name\na.nii,../x\n", "line 2: “../x” cannot be part of a file name"),
        ("scan,name\na.nii,.x\n", "cannot be part of a file name"),
        ("scan\nscans.csv\n", "line 2: .*scans.csv is not a single scan"),
        ("scan\nmany\n", "line 2: .*many is not a single scan"),
        ("scan\na\x00.nii\n", "not readable as a CSV table|does not exist"),
        ("scan,name\na.nii,x\nmany/1_FLAIR.nii,x\n", "would have masks of one name"),
    ],
)
def test_a_table_that_cannot_be_followed_is_explained(tmp_path, text, sentence):
    _touch(tmp_path, "a.nii", "many/1_FLAIR.nii", "many/2_FLAIR.nii")
    (tmp_path / "scans.csv").write_text(text)
    with pytest.raises(ScanError, match=sentence):
        find_inputs([tmp_path / "scans.csv"])


def test_a_table_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "scans.csv").write_bytes("scan\nKöpfe.nii\n".encode("latin-1"))
    with pytest.raises(ScanError, match="UTF-8"):
        find_inputs([tmp_path / "scans.csv"])


def test_plain_outputs_lie_side_by_side_under_the_name(tmp_path):
    (item,) = find_inputs(["/d/a_FLAIR.nii.gz"])
    outputs = {field: path.name for field, path in vars(outputs_of(item, tmp_path)).items()}
    assert outputs == {
        "record": "a_FLAIR.json",
        "mask": "a_FLAIR_mask.nii.gz",
        "probability": "a_FLAIR_probability.nii.gz",
        "lesions": "a_FLAIR_lesions.csv",
        "overlay": "a_FLAIR_overlay.png",
        "report": "a_FLAIR_report.html",
    }
    assert outputs_of(item, tmp_path).mask.parent == tmp_path


def test_bids_is_given_alone(tmp_path):
    for dataset in ("one", "two"):
        _touch(tmp_path, f"{dataset}/sub-01/anat/sub-01_FLAIR.nii.gz")
    _touch(tmp_path, "FLAIR.nii")
    for other in ("two", "FLAIR.nii"):
        with pytest.raises(ScanError, match=r"is a BIDS data set.*give it alone"):
            find_inputs([tmp_path / "one", tmp_path / other])


def test_series_of_many_folders_are_told_apart(tmp_path, write_series):
    for patient in ("p1", "p2"):
        write_series(tmp_path / patient / "DICOM", VOXELS, AFFINE, "t1_se", 3, EchoTime=9, InversionTime=None)
        files = write_series(tmp_path / patient / "DICOM", VOXELS, AFFINE, "t2 FLAIR", 4, name="F{instance}")
        assert _names(tmp_path / patient) == ["DICOM_4_t2_FLAIR"]
    items = find_inputs([tmp_path])
    assert [item.name for item in items] == ["p1_DICOM_4_t2_FLAIR", "p2_DICOM_4_t2_FLAIR"]
    assert list(items[1].files) == files and items[1].path == files[0]
    assert outputs_of(items[1], tmp_path).mask.name == "p2_DICOM_4_t2_FLAIR_mask.nii.gz"


def test_files_without_suffix_are_read_and_their_index_is_not(tmp_path, write_series):
    from dicom_series import in_world
    from pydicom.fileset import FileSet

    files = write_series(tmp_path / "from", VOXELS, AFFINE, name="IM{instance}", PatientID="1", StudyID="1")
    index = FileSet()
    for path in files:
        index.add(path)
    index.write(tmp_path / "cd")
    assert (tmp_path / "cd/DICOMDIR").is_file()
    (tmp_path / "cd/README").write_text("Open with the viewer.")
    (item,) = find_inputs([tmp_path / "cd"])
    assert len(item.files) == VOXELS.shape[2]
    np.testing.assert_array_equal(in_world(read_input(item), VOXELS, AFFINE), VOXELS)


def test_one_file_stands_for_its_series(tmp_path, write_series, monkeypatch):
    write_series(tmp_path, VOXELS, AFFINE, "FLAIR", 4)
    other = write_series(tmp_path, VOXELS, AFFINE, "t1_se", 3, name="T{instance}", EchoTime=9, InversionTime=None)
    (item,) = find_inputs([other[2]])
    assert sorted(item.files) == sorted(other)
    assert "t1_se" in item.note and "not known as FLAIR" in item.note
    assert read_input(item).path == item.path
    monkeypatch.chdir(tmp_path)
    (again,) = find_inputs([item.path.name])
    assert again.name == item.name


def test_a_lone_series_is_taken_with_that_said(tmp_path, write_series):
    write_series(tmp_path, VOXELS, AFFINE, "brain", 3, EchoTime=None, InversionTime=None)
    (item,) = find_inputs([tmp_path])
    assert "taken as the only MR series" in item.note
    write_series(tmp_path / "more", VOXELS, AFFINE, "head", 4, EchoTime=None, InversionTime=None)
    with pytest.raises(ScanError, match=r"no series that is known as FLAIR.*3 “brain”.*4 “head”.*Name a file"):
        find_inputs([tmp_path])


def test_a_folder_of_both_kinds_is_explained(tmp_path, write_series):
    write_series(tmp_path / "dicom", VOXELS, AFFINE)
    _touch(tmp_path, "a_FLAIR.nii.gz")
    with pytest.raises(ScanError, match=r"holds NIfTI scans \(a_FLAIR.nii.gz …\) and DICOM files \(0001.dcm …\)"):
        find_inputs([tmp_path])
    assert len(find_inputs([tmp_path / "dicom", tmp_path / "a_FLAIR.nii.gz"])) == 2


def test_a_table_may_name_series(tmp_path, write_series):
    write_series(tmp_path / "p1", VOXELS, AFFINE)
    (tmp_path / "scans.csv").write_text("scan,name\np1,visit-1\n")
    (item,) = find_inputs([tmp_path / "scans.csv"])
    assert item.name == "visit-1" and len(item.files) == VOXELS.shape[2]


def test_nifti_needs_no_packages_for_dicom(tmp_path):
    _touch(tmp_path, "a_FLAIR.nii", "sub-01/anat/sub-01_FLAIR.nii", "README")
    program = f"""if True:
        import sys
        sys.modules |= {{"pydicom": None, "dcm2niix": None}}
        from planar3d.scans.inputs import find_inputs
        for folder in ({str(tmp_path / "sub-01")!r}, {str(tmp_path)!r}):
            assert find_inputs([folder])
    """
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.real
def test_the_real_folders(real_data):
    data = real_data / "data"
    assert len(find_inputs([data / "ms_flair"])) == 9
    assert all(item.dataset == data / "ms_flair" for item in find_inputs([data / "ms_flair"]))
    assert _names(data / "open_ms", data / "brats") == ["FLAIR", "BraTS2021_00006_flair"]
