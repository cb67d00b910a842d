"""Folders as hospitals export them: copies, captures, several patients, and files that arrived empty."""

import gzip
import shutil

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="needs the extra dicom")
pytest.importorskip("dcm2niix", reason="needs the extra dicom")

from dicom_series import OBLIQUE, SAGITTAL, VOXELS, change, in_world, write_series
from pydicom import dcmread
from pydicom.uid import generate_uid

from planar3d.errors import ScanError
from planar3d.scans.inputs import find_inputs, read_input_images

CAPTURE = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "ImageType": None, "ImagePositionPatient": None}


def _study(files, patient):
    uid = generate_uid(entropy_srcs=[patient])
    change(files, lambda k, dataset: setattr(dataset, "StudyInstanceUID", uid))
    return files


def _is_whole(item):
    return np.array_equal(in_world(read_input_images(item)["flair"], VOXELS, OBLIQUE), VOXELS)


def test_equal_copies_are_one_image_and_others_of_its_uid_are_not(tmp_path):
    files = write_series(tmp_path / "a", VOXELS, OBLIQUE)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.copy(files[3], tmp_path / "Copy of 4.dcm")
    (item,) = find_inputs([tmp_path])
    assert len(item.files) == len(files) and _is_whole(item)
    copy = shutil.copy(files[3], tmp_path / "a" / "z.dcm")
    (tmp_path / "a" / "._z.dcm").write_bytes(b"\0\5\x16\7")  # by macOS
    assert len(find_inputs([copy])[0].files) == len(files)
    (tmp_path / "a" / "c").mkdir()
    again = shutil.copy(files[3], tmp_path / "a" / "c" / "4.dcm")
    change([again], lambda k, dataset: setattr(dataset, "PixelData", dataset.PixelData[::-1]))
    with pytest.raises(ScanError, match="several images at one position"):
        read_input_images(*find_inputs([tmp_path / "a"]))


@pytest.mark.parametrize("kind", ["1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.7.2"], ids=["one", "frames"])
def test_a_capture_is_taken_for_no_scan_where_there_is_one(tmp_path, kind):
    write_series(tmp_path / "a", VOXELS, OBLIQUE)
    write_series(tmp_path / "capture", VOXELS, OBLIQUE, "FLAIR", 99, only=[0], **{**CAPTURE, "SOPClassUID": kind})
    (item,) = find_inputs([tmp_path])
    assert item.series.number == 5 and _is_whole(item)


def test_originals_of_one_patient_do_not_pass_over_what_another_has(tmp_path):
    derived = ["DERIVED", "SECONDARY", "MPR"]
    for patient, habits in {"p1": {}, "p2": {"ImageType": derived}}.items():
        _study(write_series(tmp_path / patient, VOXELS, OBLIQUE, **habits), patient)
    _study(write_series(tmp_path / "p1", VOXELS, SAGITTAL, number=8, name="m{instance}", ImageType=derived), "p1")
    items = find_inputs([tmp_path])
    assert [item.name for item in items] == ["p1_5_FLAIR", "p2_5_FLAIR"] and not any(item.note for item in items)
    for patient in ("p3", "p4", "p5", "p6"):
        _study(write_series(tmp_path / patient, VOXELS, OBLIQUE, "brain", 7, InversionTime=None), patient)
    items = find_inputs([tmp_path])
    assert len(items) == 2 and not items[1].note
    assert "without a series identified as FLAIR were left out" in items[0].note
    assert all(f"{patient}: 7 “brain” (MR, 9 files)" in items[0].note for patient in ("p3", "p4", "p5", "p6"))


def test_two_patients_in_one_folder_have_names_of_their_own(tmp_path):
    for patient in ("a", "b"):
        _study(write_series(tmp_path / "all", VOXELS, OBLIQUE, name=patient + "{instance}"), patient)
    items = find_inputs([tmp_path / "all"])
    names = [item.name for item in items]
    assert len(set(names)) == 2 and all(name.startswith("all_5_FLAIR_") for name in names)
    assert names == [item.name for item in find_inputs([tmp_path / "all"])] and all(map(_is_whole, items))
    (tmp_path / "table.csv").write_text("scan,name\nall/a1,x\nall/b1,x\n")
    with pytest.raises(ScanError, match="would have masks with the same name"):  # the table's names stay
        find_inputs([tmp_path / "table.csv"])


@pytest.mark.parametrize("name", ["{instance:04d}.dcm", "I{instance}"])
@pytest.mark.parametrize("content", [b"", bytes(4000), b"<html>Please log in.</html>"], ids=["empty", "zeros", "text"])
@pytest.mark.parametrize("at", [4, 8])
def test_a_file_that_arrived_without_its_content_is_not_left_out(tmp_path, name, content, at):
    files = write_series(tmp_path, VOXELS, OBLIQUE, name=name)
    (tmp_path / "README").write_text("Open with the viewer.")
    assert len(find_inputs([tmp_path])[0].files) == len(find_inputs([files[0]])[0].files) == len(files)
    files[at].write_bytes(content)
    for given in (tmp_path, files[0]):
        with pytest.raises(
            ScanError, match=rf"{files[at].name} is named like the DICOM files.*\({len(content):,} bytes\)\. "
        ):
            find_inputs([given])
    files[at - 1].write_bytes(content)
    with pytest.raises(ScanError, match=rf"{files[at - 1].name} is .*\), nor 1 other\. Copy"):
        find_inputs([tmp_path])


@pytest.mark.parametrize("name", ["{instance:04d}.dcm", "I{instance}"])
@pytest.mark.parametrize("at", [4, 8])
@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("../.git/annex/objects/a/b", "git-annex pointer .* annex get"),
        ("gone", "a link to gone, which does not exist"),
    ],
)
def test_a_link_without_its_file_refuses_the_series_that_it_may_belong_to(tmp_path, name, at, target, sentence):
    files = write_series(tmp_path, VOXELS, OBLIQUE, name=name)
    (tmp_path / "notes.txt").symlink_to("gone")
    assert len(find_inputs([tmp_path])[0].files) == len(find_inputs([files[0]])[0].files) == len(files)
    files[at].unlink()
    files[at].symlink_to(target)
    for given in (tmp_path, files[0]):
        with pytest.raises(ScanError, match=rf"{files[at].name} is .*{sentence}"):
            find_inputs([given])


@pytest.mark.parametrize("at", [4, 8])
def test_a_gzipped_file_of_a_series_is_not_left_out(tmp_path, at):
    files = write_series(tmp_path, VOXELS, OBLIQUE)
    (tmp_path / f"{files[at].name}.gz").write_bytes(gzip.compress(files[at].read_bytes()))
    files[at].unlink()
    with pytest.raises(ScanError, match=rf"{files[at].name}\.gz is named like .* Copy or unpack it again"):
        find_inputs([tmp_path])


def test_a_deflated_report_does_not_refuse_the_images(tmp_path):
    write_series(tmp_path / "a", VOXELS, OBLIQUE)
    (report,) = write_series(tmp_path / "sr", VOXELS, OBLIQUE, only=[0], SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
    dataset = dcmread(report)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    dataset.save_as(report)
    assert _is_whole(*find_inputs([tmp_path]))


@pytest.fixture
def patients(tmp_path):
    """Three patients with a folder each, and the files of the second."""
    files = [write_series(tmp_path / f"p{n}", VOXELS, OBLIQUE) for n in (1, 2, 3)]
    for n, of_one in enumerate(files):
        _study(of_one, str(n))
    return tmp_path, files[1]


def _damage(path):
    path.write_bytes(path.read_bytes().replace(b"IS\x02\x005 ", b"IS\x02\x00xy"))  # its SeriesNumber


def _deflate(path):
    change([path], lambda k, dataset: setattr(dataset.file_meta, "TransferSyntaxUID", "1.2.840.10008.1.2.1.99"))


def _forget_series(path):
    change([path], lambda k, dataset: delattr(dataset, "SeriesInstanceUID"))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_damage, "p2/0005.dcm is damaged or cannot be read"),
        (lambda path: path.write_bytes(b""), r"p2/0005.dcm is named like the DICOM files beside it.*\(0 bytes\)\. "),
        (_deflate, "p2/0005.dcm is a deflated DICOM file"),
        (_forget_series, "p2/0005.dcm does not name its series"),
    ],
    ids=["damaged", "empty", "deflated", "nameless"],
)
def test_an_unusable_file_refuses_the_series_of_its_folder_alone(patients, spoil, sentence):
    folder, files = patients
    spoil(files[4])
    items = find_inputs([folder])
    assert [item.name for item in items if not item.problem] == ["p1_5_FLAIR", "p3_5_FLAIR"]
    (failed,) = (item for item in items if item.problem)
    assert failed.path == files[0] and len(items) == 3
    with pytest.raises(ScanError, match=rf"{sentence}.* It may belong to series 5 “FLAIR”"):
        read_input_images(failed)
    assert all(_is_whole(item) for item in items if not item.problem)
    for first in (files[0], files[4]) if spoil is not _forget_series else files[:1]:
        (folder / "table.csv").write_text(f"scan\np1\n{first}\n")
        good, bad = find_inputs([folder / "table.csv"])
        assert good.series and not good.problem and bad.path == first


def test_a_folder_of_unusable_files_alone_is_among_the_inputs(patients):
    folder, files = patients
    for path in files:
        _damage(path)
    items = find_inputs([folder])
    assert [item.path.parent.name for item in items if not item.problem] == ["p1", "p3"]
    assert [item.path for item in items if item.problem] == files[:1]
    with pytest.raises(ScanError, match=r"0001\.dcm is damaged or cannot be read"):
        find_inputs([folder / "p2"])


def test_a_row_that_names_a_patient_s_folder_takes_its_one_series_whatever_another_folder_of_it_has(patients):
    folder, files = patients
    _damage(files[0])
    (folder / "p3").rename(folder.parent / "p3")
    (folder / "table.csv").write_text(f"scan,name\n{folder},one\n")
    (item,) = find_inputs([folder / "table.csv"])
    assert item.name == "one" and item.series and not item.problem
    assert "p2/0001.dcm is damaged or cannot be read" in item.note
    (folder / "p1").rename(folder.parent / "p1")
    with pytest.raises(ScanError, match=r"p2/0001\.dcm is damaged or cannot be read"):
        find_inputs([folder / "table.csv"])


def test_a_file_that_cannot_be_read_is_one_input_whatever_it_would_have_been(tmp_path, write_nifti):
    write_nifti(VOXELS, "b_FLAIR.nii.gz")
    unreadable = tmp_path / "a_FLAIR.nrrd"
    unreadable.symlink_to("/proc/self/mem")  # of which nothing is at the beginning
    with pytest.raises(OSError):
        unreadable.read_bytes()
    items = find_inputs([tmp_path])
    assert {item.path.name: bool(item.problem) for item in items} == {"a_FLAIR.nrrd": True, "b_FLAIR.nii.gz": False}


def test_where_the_damaged_series_may_be_the_flair_scan_no_other_is_taken_for_it(tmp_path):
    write_series(tmp_path / "a", VOXELS, OBLIQUE, "brain", InversionTime=None)
    assert find_inputs([tmp_path])[0].note.startswith("series 5 “brain” (MR, 9 files) was used as the only MR series")
    (damaged,) = write_series(tmp_path / "b", VOXELS, OBLIQUE, only=[0])
    _damage(damaged)
    with pytest.raises(ScanError, match=r"b/0001\.dcm is damaged or cannot be read"):
        find_inputs([tmp_path])
