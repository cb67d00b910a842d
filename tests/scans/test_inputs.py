"""Whatever is given, it is found which scans are meant, each gets a name of its own, and the rest is explained."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from stored_scans import touch

from planar3d.errors import DatasetError, ScanError
from planar3d.scans import dicom
from planar3d.scans.inputs import find_inputs, outputs_of, read_input_images

AFFINE = np.diag([-1.0, -1.0, 3.0, 1.0])
VOXELS = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


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


@pytest.mark.parametrize(("one", "other"), [("a.hdr", "a.img"), ("a.img", "a.hdr"), ("a.mhd", "a.raw")])
def test_the_two_files_of_a_scan_are_named_as_such_and_not_asked_to_be_renamed(tmp_path, one, other):
    nib.Nifti1Pair(np.zeros((2, 2, 2), np.int16), np.eye(4)).to_filename(tmp_path / "a.hdr")
    (tmp_path / "a.mhd").write_text("ObjectType = Image\nNDims = 3\nElementDataFile = a.raw\n")
    (tmp_path / "a.raw").write_bytes(bytes(16))
    with pytest.raises(ScanError, match=rf"{other} is a file of the scan .*{one}; name only one of them"):
        find_inputs([tmp_path / one, tmp_path / other])


def test_two_files_of_one_name_in_one_place_are_refused():
    with pytest.raises(ScanError, match=r"a.nii and a.nii.gz would have masks with the same name"):
        find_inputs(["a.nii", "a.nii.gz"])


@pytest.mark.parametrize(("one", "other"), [("A", "a"), ("\u00e9", "e\u0301")])
def test_names_differ_in_more_than_capitals_and_kinds_of_accents_which_some_file_systems_ignore(tmp_path, one, other):
    touch(tmp_path, f"p1/{one}_FLAIR.nii", f"p2/{other}_FLAIR.nii")
    assert _names(tmp_path) == [f"p1_{one}_FLAIR", f"p2_{other}_FLAIR"]
    table = f"scan,name\np1/{one}_FLAIR.nii,{one}\np2/{other}_FLAIR.nii,{other}\n"
    (tmp_path / "t.csv").write_text(table, encoding="utf-8")
    with pytest.raises(ScanError, match="would have masks with the same name"):
        find_inputs([tmp_path / "t.csv"])


@pytest.mark.parametrize("bids", [True, False])
def test_two_files_of_one_name_in_a_folder_fail_alone(tmp_path, bids):
    touch(tmp_path, *(f"sub-0{i}/{'anat/' * bids}sub-0{i}_FLAIR.nii{end}" for i, end in ((1, ""), (1, ".gz"), (2, ""))))
    (failed, good) = find_inputs([tmp_path])
    assert (failed.path.name, good.name, good.problem) == ("sub-01_FLAIR.nii.gz", "sub-02_FLAIR", "")
    assert "sub-01_FLAIR.nii would have masks with the same name; remove one" in failed.problem
    assert (good.dataset is None) != bids
    with pytest.raises(ScanError, match="would have masks with the same name"):
        find_inputs([tmp_path / "sub-01"])


@pytest.mark.parametrize("anat", ["anat/", ""])
def test_phases_and_other_parts_of_complex_images_are_no_scans(tmp_path, anat):
    touch(tmp_path, *(f"sub-1/{anat}sub-1_part-{part}_FLAIR.nii.gz" for part in ("mag", "phase", "real", "imag")))
    assert _names(tmp_path) == ["sub-1_part-mag_FLAIR"]


def test_of_a_folder_flair_files_are_taken_but_no_hidden_ones_and_no_masks(tmp_path):
    touch(tmp_path, "x/a_FLAIR.nii", "b_flair_2.nii.gz", "T1.nii.gz", "FLAIR.txt", "._c_FLAIR.nii", ".h/d_FLAIR.nii")
    touch(tmp_path, *(f"a_FLAIR_{output}.nii.gz" for output in ("mask", "probability", "label-lesion_probseg")))
    assert _names(tmp_path) == ["b_flair_2", "a_FLAIR"]


def test_of_folders_images_without_flair_in_their_names_are_told_once(tmp_path):
    touch(tmp_path, "a/1_FLAIR.nii", "a/2.nii.gz", "a/2.nrrd", "a/1_FLAIR_mask.nii", "a/1_mask.nii", "a/about.txt")
    touch(tmp_path, "b/3_FLAIR.nii", "b/4.mgz")
    first, second = find_inputs([tmp_path / "a", tmp_path / "b"])
    assert f"(2, the first is {tmp_path / 'a/2.nii.gz'})" in first.note and not second.note
    (tmp_path / "a/2.nrrd").unlink()
    (tmp_path / "a/2.nii.gz").rename(tmp_path / "a/2_FLAIR.nii.gz")
    assert [item.note for item in find_inputs([tmp_path / "a"])] == ["", ""]


@pytest.mark.parametrize(
    "names",
    [
        ("01A/3DFLAIR.nii.gz", "01A/3DT1.nii.gz", "01A/Consensus.nii.gz"),
        ("BraTS19_A_1_1/BraTS19_A_1_1_flair.nii.gz", "BraTS19_A_1_1/BraTS19_A_1_1_t1.nii.gz"),
        ("x/BraTS19_A_1_1_flair.nii.gz", "x/BraTS19_A_1_1_t1.nii.gz", "x/BraTS19_A_1_1_t1.nii"),
        ("sub-1/anat/sub-1_FLAIR.nii", "sub-1/anat/sub-1_T1w.nii"),
    ],
)
def test_other_contrasts_of_a_layout_are_not_told(tmp_path, names):
    touch(tmp_path, *names)
    assert [item.note for item in find_inputs([tmp_path])] == [""]


def test_of_a_folder_everything_that_looks_like_flair_is_among_the_inputs(tmp_path):
    usable = ("a_FLAIR.NII.GZ", "b_flair.Nii", "p1/e_FLAIR.nii", "p2/f_FLAIR.nii")
    others = ("c_FLAIR.mgz", "p1/e_FLAIR.img", "p2/f_FLAIR.hdr", "d_FLAIR.nii.bz2", "a_FLAIR.nrrd")
    touch(tmp_path, *usable, *others, "a_FLAIR_mask.NII.GZ", "p1/e_FLAIR.hdr", "p1/._e_FLAIR.nii.gz", "T1.mgz")
    (tmp_path / "a_FLAIR.nii").symlink_to(".git/annex/objects/a")
    (tmp_path / "p1/notes.txt").symlink_to("annexed")
    (tmp_path / "linked").symlink_to(tmp_path / "p2")
    (tmp_path / "p1/back").symlink_to(tmp_path)
    items = find_inputs([tmp_path])
    assert {item.path.relative_to(tmp_path).as_posix(): item.name for item in items if not item.problem} == {
        "a_FLAIR.NII.GZ": "a_FLAIR",
        "b_flair.Nii": "b_flair",
        "p1/e_FLAIR.nii": "e_FLAIR",
        "p2/f_FLAIR.nii": "f_FLAIR",
    }
    lost = {item.path.relative_to(tmp_path).as_posix(): item for item in items if item.problem}
    assert set(lost) == {"a_FLAIR.nii", "c_FLAIR.mgz", "d_FLAIR.nii.bz2"}  # beside the others lie NIfTI files
    assert "annex get" in lost["a_FLAIR.nii"].problem and "it is empty" in lost["c_FLAIR.mgz"].problem
    for item in lost.values():
        with pytest.raises(ScanError, match=item.path.name):
            read_input_images(item)["flair"]


@pytest.mark.parametrize("name", ["sub-01_FLAIR.mgz", "scan_FLAIR.nii", "0001.dcm"])
def test_a_folder_of_nothing_that_can_be_read_is_explained(tmp_path, name):
    if name.endswith("mgz"):
        touch(tmp_path, name)
    else:
        (tmp_path / name).symlink_to("annexed")
    with pytest.raises(ScanError, match=rf"{name} is (not a NIfTI file: it is empty|a link to annexed)"):
        find_inputs([tmp_path])


def test_a_closed_folder_is_among_the_inputs(tmp_path, close_folder):
    touch(tmp_path, "a_FLAIR.nii", "closed/b_FLAIR.nii")
    close_folder(tmp_path / "closed")
    assert [item.problem and item.path.name for item in find_inputs([tmp_path])] == ["", "closed"]


def test_of_bids_everything_that_is_called_flair_is_among_the_inputs(tmp_path):
    usable = [
        f"sub-0{i}/anat/sub-0{i}_{rest}" for i, rest in enumerate(("flair.NII.GZ", "FLAIR.Nii", "run-1_Flair.nii"))
    ]
    others = ["sub-03/anat/sub-03_FLAIR.mgz", "sub-03/anat/FLAIR.nii", "loose/FLAIR.nii.gz"]
    passed = [
        "sub-01/anat/sub-01_FLAIR.mgz",
        "sub-00/anat/sub-00_FLAIR.json",
        "sub-00/anat/sub-00_acq-FLAIR_T1w.nii",
        "derivatives/x/sub-00_FLAIR.nii",
    ]
    touch(tmp_path, *usable, *others, *passed, "sub-00/anat/._sub-00_FLAIR.nii", "sub-00/anat/sub-00_FLAIR_mask.nii")
    (tmp_path / "sub-03/anat/sub-03_ce-gd_FLAIR.nii.gz").symlink_to("annexed")
    items = find_inputs([tmp_path])
    assert [item.path.relative_to(tmp_path).as_posix() for item in items if not item.problem] == usable
    assert [item.name for item in items if not item.problem] == ["sub-00_flair", "sub-01_FLAIR", "sub-02_run-1_Flair"]
    assert {item.path.relative_to(tmp_path).as_posix() for item in items if item.problem} == {
        *others,
        "sub-03/anat/sub-03_ce-gd_FLAIR.nii.gz",
    }
    (misplaced,) = (item for item in items if item.path == tmp_path / "loose/FLAIR.nii.gz")
    with pytest.raises(ScanError, match="does not have the name or place of a FLAIR scan in BIDS"):
        read_input_images(misplaced)["flair"]
    masks = [outputs_of(item, tmp_path / "out").mask.name for item in items if not item.problem]
    assert masks == [f"sub-0{i}_{run}label-lesion_mask.nii.gz" for i, run in enumerate(("", "", "run-1_"))]


def test_a_scan_in_the_folder_of_another_subject_or_session_fails(tmp_path):
    right = ["sub-1/ses-1/anat/sub-1_ses-1_FLAIR.nii", "sub-2/anat/sub-2_ses-1_FLAIR.nii", "sub-2/anat/sub-2_FLAIR.nii"]
    wrong = [
        "sub-1/anat/sub-12_FLAIR.nii",
        "sub-1/ses-1/anat/sub-1_ses-2_FLAIR.nii",
        "sub-1/ses-1/anat/sub-1_FLAIR.nii",
    ]
    touch(tmp_path, *right, *wrong)
    items = {item.path.relative_to(tmp_path).as_posix(): item.problem for item in find_inputs([tmp_path])}
    assert {path for path, problem in items.items() if not problem} == set(right)
    assert all("does not have the name or place of a FLAIR scan in BIDS" in items[path] for path in wrong)


def test_what_predict_wrote_is_no_input(tmp_path):
    touch(tmp_path, "sub-01/anat/sub-01_FLAIR.nii")
    for item in find_inputs([tmp_path]):
        for path in vars(outputs_of(item, tmp_path / "derivatives/planar3d")).values():
            touch(path.parent, path.name)
        for path in vars(outputs_of(replace(item, dataset=None), tmp_path / "out")).values():
            touch(path.parent, path.name)
    assert len(find_inputs([tmp_path])) == 1
    for folder in ("out", "derivatives"):
        with pytest.raises(ScanError, match=r"no .nii or .nii.gz file with FLAIR in its name"):
            find_inputs([tmp_path / folder])


def test_a_table_may_name_a_link_without_its_target_which_then_fails_alone(tmp_path):
    touch(tmp_path, "a.nii")
    (tmp_path / "b.nii").symlink_to("annexed")
    (tmp_path / "scans.csv").write_text("scan,name\na.nii,x\nb.nii,y\n")
    assert [(item.name, bool(item.problem)) for item in find_inputs([tmp_path / "scans.csv"])] == [
        ("x", False),
        ("y", True),
    ]


def test_links_are_named_by_themselves(tmp_path):
    (tmp_path / "MD5E-s1--0").touch()
    for name in ("a_FLAIR.nii", "b_FLAIR.nii"):
        (tmp_path / name).symlink_to(tmp_path / "MD5E-s1--0")
    assert _names(tmp_path) == ["a_FLAIR", "b_FLAIR"]


def test_a_folder_without_scans_is_refused(tmp_path):
    for names, says in (
        (
            ["notes.txt"],
            r"no \.nii or .nii.gz file with FLAIR in its name and no DICOM .* masks: none\. Name the",
        ),
        (["a.dcm"], r"masks: a\.dcm\. Name the scans"),
        (["a_FLAIR_mask.nii.gz", "b_mask.nii"], r"masks: a\.dcm, a_FLAIR_mask\.nii\.gz, b_mask\.nii\. Name the"),
        (["T1.nii.gz"], r"masks: T1\.nii\.gz, a\.dcm, .*\. Name the scans"),
    ):
        touch(tmp_path, *names)
        with pytest.raises(ScanError, match=says):
            find_inputs([tmp_path])


def test_absent_and_foreign_files_are_left_to_their_reading(tmp_path):
    touch(tmp_path, "notes.txt")
    absent, foreign = find_inputs([tmp_path / "absent_FLAIR.nii", tmp_path / "notes.txt"])
    with pytest.raises(ScanError, match="does not exist"):
        read_input_images(absent)["flair"]
    with pytest.raises(ScanError, match="not a NIfTI file"):
        read_input_images(foreign)["flair"]


def test_a_table_names_scans_beside_itself(tmp_path):
    touch(tmp_path, "a/f.nii.gz", "b/f.nii.gz")
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
        ("", "has no column “scan”; .* Found: no column, 0 lines"),
        ("scan\n", r"has no lines of scans; .* Found: the column scan \(.*\), 0 lines"),
        ("path\na.nii\n", "no column “scan”"),
        ("Path;Name\na.nii;x\n", r"Found: the columns Path, Name \(read with semicolons\), 1 line\."),
        ("scan,name\n,x\n", "line 2: scan is empty"),
        ("scan\na.nii\nabsent.nii\n", "line 3: .*absent.nii does not exist"),
        ("scan,name\na.nii,../x\n", "line 2: “../x” cannot be part of a file name"),
        ("scan,name\na.nii,.x\n", "cannot be part of a file name"),
        ("scan\nscans.csv\n", "line 2: .*scans.csv is not a single scan"),
        ("scan\nmany\n", "line 2: .*many is not a single scan"),
        ("scan\na\x00.nii\n", "not readable as a CSV table"),
        ("scan,name\na.nii,x\nmany/1_FLAIR.nii,x\n", "would have masks with the same name"),
    ],
)
def test_a_table_that_cannot_be_followed_is_explained(tmp_path, text, sentence):
    touch(tmp_path, "a.nii", "many/1_FLAIR.nii", "many/2_FLAIR.nii")
    (tmp_path / "scans.csv").write_text(text)
    with pytest.raises(ScanError, match=sentence):
        find_inputs([tmp_path / "scans.csv"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
@pytest.mark.parametrize("name", ["scans.csv", "scans.TSV"])
def test_a_table_is_read_however_it_was_saved(tmp_path, encoding, name):
    touch(tmp_path, "d/Köpfe.NII.GZ")
    (tmp_path / name).write_bytes("Name; Scan\r\n;d\\Köpfe.NII.GZ\r\n;\r\n".encode(encoding))
    assert _names(tmp_path / name) == ["Köpfe"]


def test_where_a_file_is_not_found_it_is_said_how_the_table_was_read(tmp_path):
    (tmp_path / "scans.csv").write_bytes("scan\nKöpfe.nii\n".encode("mac-roman"))
    with pytest.raises(
        ScanError, match=r"line 2: .* does not exist\. The table is not in UTF-8 and was read as cp1252"
    ):
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
        "dicom_seg": "a_FLAIR_seg.dcm",
        "dicom_sr": "a_FLAIR_sr.dcm",
        "label_tables": "a_FLAIR_mask_itksnap.txt",
        "fsleyes": "a_FLAIR_mask_fsleyes.lut",
        "freeview": "a_FLAIR_mask_freeview.txt",
        "same_format": "a_FLAIR_mask.nii.gz",
        "instances": "a_FLAIR_instances.nii.gz",
    }
    assert outputs_of(item, tmp_path).mask.parent == tmp_path


def test_bids_is_given_alone(tmp_path):
    for dataset in ("one", "two"):
        touch(tmp_path, f"{dataset}/sub-01/anat/sub-01_FLAIR.nii.gz")
    touch(tmp_path, "FLAIR.nii")
    for other in ("two", "FLAIR.nii"):
        with pytest.raises(ScanError, match=r"is a BIDS data set.*other scans into another folder"):
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
    np.testing.assert_array_equal(in_world(read_input_images(item)["flair"], VOXELS, AFFINE), VOXELS)


def test_one_file_stands_for_its_series(tmp_path, write_series, monkeypatch):
    write_series(tmp_path, VOXELS, AFFINE, "FLAIR", 4)
    other = write_series(tmp_path, VOXELS, AFFINE, "t1_se", 3, name="T{instance}", EchoTime=9, InversionTime=None)
    (item,) = find_inputs([other[2]])
    assert sorted(item.files) == sorted(other)
    assert "t1_se" in item.note and "not identified as FLAIR" in item.note
    assert read_input_images(item)["flair"].path == item.path
    monkeypatch.chdir(tmp_path)
    (again,) = find_inputs([item.path.name])
    assert again.name == item.name


def test_a_lone_series_is_taken_with_that_said(tmp_path, write_series):
    write_series(tmp_path, VOXELS, AFFINE, "brain", 3, EchoTime=None, InversionTime=None)
    (item,) = find_inputs([tmp_path])
    assert "used as the only MR series" in item.note
    write_series(tmp_path / "more", VOXELS, AFFINE, "head", 4, EchoTime=None, InversionTime=None)
    with pytest.raises(
        ScanError, match=r"no series with the name or times of a FLAIR.*3 “brain”.*4 “head”.*Name a file"
    ):
        find_inputs([tmp_path])


def test_a_folder_of_both_kinds_is_explained(tmp_path, write_series):
    write_series(tmp_path / "dicom", VOXELS, AFFINE)
    touch(tmp_path, "a_FLAIR.nii.gz")
    with pytest.raises(ScanError, match=r"has NIfTI scans \(a_FLAIR.nii.gz …\) and DICOM files \(0001.dcm …\)"):
        find_inputs([tmp_path])
    assert len(find_inputs([tmp_path / "dicom", tmp_path / "a_FLAIR.nii.gz"])) == 2


def test_a_table_may_name_series(tmp_path, write_series):
    write_series(tmp_path / "p1", VOXELS, AFFINE)
    (tmp_path / "scans.csv").write_text("scan,name\np1,visit-1\n")
    (item,) = find_inputs([tmp_path / "scans.csv"])
    assert item.name == "visit-1" and len(item.files) == VOXELS.shape[2]


def test_a_folder_of_which_a_table_names_many_files_is_read_once_for_all(tmp_path, write_series, monkeypatch):
    files = [write_series(tmp_path, VOXELS, AFFINE, number=n, name="{number}_{instance}")[0] for n in range(3)]
    (tmp_path / "scans.csv").write_text("\n".join(["scan", *(file.name for file in files)]))
    read, _read = list[Path](), dicom._read
    monkeypatch.setattr(dicom, "_read", lambda path: read.append(path) or _read(path))
    assert [item.series.number for item in find_inputs([tmp_path / "scans.csv"])] == [0, 1, 2]
    assert len(read) == 3 * VOXELS.shape[2]
    write_series(tmp_path, VOXELS, AFFINE, number=3, name="{number}_{instance}")
    assert find_inputs([tmp_path / "3_1"])[0].series.number == 3


def test_of_a_table_a_folder_without_flair_fails_alone(tmp_path, write_series):
    write_series(tmp_path / "p1", VOXELS, AFFINE)
    for number, description in enumerate(("t1_mprage", "t1_se")):
        write_series(tmp_path / "p2", VOXELS, AFFINE, description, number, name="{number}_{instance}.dcm", EchoTime=9)
    (tmp_path / "empty").mkdir()
    (tmp_path / "scans.csv").write_text("scan,name\np2,\np1,visit-1\nempty,other\n")
    lost, good, empty = find_inputs([tmp_path / "scans.csv"])
    assert lost.name == "p2" and lost.path == tmp_path / "p2" and "FLAIR" in lost.problem
    assert good.name == "visit-1" and not good.problem
    assert empty.name == "other" and "empty has no .nii or .nii.gz file" in empty.problem
    (tmp_path / "scans.csv").write_text("scan\np2\n")
    with pytest.raises(ScanError, match="FLAIR"):
        find_inputs([tmp_path / "scans.csv"])


def test_nifti_needs_no_packages_for_dicom(tmp_path):
    touch(tmp_path, "a_FLAIR.nii", "sub-01/anat/sub-01_FLAIR.nii", "README")
    program = f"""if True:
        import sys
        sys.modules |= {{"pydicom": None, "dcm2niix": None}}
        from planar3d.scans.inputs import find_inputs
        for folder in ({str(tmp_path / "sub-01")!r}, {str(tmp_path)!r}):
            assert find_inputs([folder])
    """
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_a_table_names_the_images_of_each_case(tmp_path):
    touch(tmp_path, "a/f.nii", "a/t.nii", "b/f.nii")
    table = tmp_path / "cases.csv"
    table.write_text("name,image:flair,image:t1ce\nx,a/f.nii,a/t.nii\n,b/f.nii,\n")
    one, other = find_inputs([table], ["t1ce", "flair"])
    assert (one.name, one.path, other.name) == ("x", tmp_path / "a/t.nii", "b_f")
    assert "has no image t1ce" in other.problem
    assert [item.path for item in find_inputs([table])] == [tmp_path / "a/f.nii", tmp_path / "b/f.nii"]
    table.write_text("name,image:flair,image:t1ce\nx,a/f.nii,a/t.nii\ny,,\n")
    with pytest.raises(DatasetError, match=r"line 3: image is empty\."):
        find_inputs([table], ["t1ce", "flair"])


def test_several_images_are_of_a_folder_or_table_that_names_them(tmp_path):
    touch(tmp_path, "a_FLAIR.nii")
    for given in (tmp_path, tmp_path / "a_FLAIR.nii"):
        with pytest.raises(ScanError, match=r"does not show which files are .* t1, t2 .*image:t1, image:t2, or"):
            find_inputs([given], ["t1", "t2"])
    (item,) = find_inputs([tmp_path / "a_FLAIR.nii"], ["t1"])  # a single image is what the user says it is
    assert item.name == "a_FLAIR" and item.images == {"t1": tmp_path / "a_FLAIR.nii"}
    with pytest.raises(ScanError, match="absent does not exist"):
        find_inputs([tmp_path / "absent"], ["t1", "t2"])


@pytest.mark.real
def test_the_real_folders(real_data):
    data = real_data / "data"
    assert len(find_inputs([data / "ms_flair"])) == 9
    assert all(item.dataset == data / "ms_flair" for item in find_inputs([data / "ms_flair"]))
    assert _names(data / "open_ms", data / "brats") == ["FLAIR", "BraTS2021_00006_flair"]
