"""What lies beside images is passed over, and files that do not name their series are sorted by what they say."""

import pytest

pytest.importorskip("pydicom", reason="needs the extra dicom")
pytest.importorskip("dcm2niix", reason="needs the extra dicom")

import numpy as np
from dicom_series import FLAIR_TIMES, OBLIQUE, SAGITTAL, T1_TIMES, VOXELS, change, find_series, in_world, write_series
from pydicom import Dataset, dcmread
from pydicom.fileset import FileSet
from pydicom.uid import RLELossless, generate_uid

from planar3d.errors import ScanError
from planar3d.scans import dicom
from planar3d.scans.dicom import choose_flair
from planar3d.scans.dicom_conversion import read_dicom_series
from planar3d.scans.dicom_headers import is_dicom
from planar3d.scans.inputs import find_inputs

# What scanners and archives store beside images. Philips' XX_ files are raw data or of its own classes.
BESIDE = {
    "raw data": "1.2.840.10008.5.1.4.1.1.66",
    "Philips' examcard": "1.3.46.670589.11.0.0.12.4",
    "presentation state": "1.2.840.10008.5.1.4.1.1.11.1",
    "colour presentation state": "1.2.840.10008.5.1.4.1.1.11.2",
    "structured report": "1.2.840.10008.5.1.4.1.1.88.22",
    "key objects": "1.2.840.10008.5.1.4.1.1.88.59",
    "spectra": "1.2.840.10008.5.1.4.1.1.4.2",
    "PDF": "1.2.840.10008.5.1.4.1.1.104.1",
    "segmentation": "1.2.840.10008.5.1.4.1.1.66.4",
    "registration": "1.2.840.10008.5.1.4.1.1.66.1",
}
NO_PIXELS = {
    **dict.fromkeys(("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel")),
    **dict.fromkeys(("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")),
}


def _files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _read(folder):
    (series,), _ = choose_flair(find_series(_files(folder)), folder)
    return in_world(read_dicom_series(series), VOXELS, OBLIQUE)


@pytest.mark.parametrize("modality", ["MR", "PR", None])
def test_objects_without_pixels_are_passed_over(tmp_path, modality):
    uid = generate_uid()
    write_series(tmp_path, VOXELS, OBLIQUE, vendor="philips", SeriesInstanceUID=uid)
    for kind, sop_class in BESIDE.items():
        objects = {**NO_PIXELS, "SOPClassUID": sop_class, "Modality": modality}
        write_series(tmp_path, VOXELS, OBLIQUE, name=f"XX_{kind}", only=[0], SeriesInstanceUID=uid, **objects)
        alone = write_series(tmp_path / kind, VOXELS, OBLIQUE, name="PS_{instance}", only=[1], **objects)
        assert find_series(alone) == [], kind
        with pytest.raises(ScanError, match="a DICOM file without images"):
            find_inputs(alone)
        with pytest.raises(ScanError, match=r"has no MR series\. Found: no series with images"):
            find_inputs([tmp_path / kind])
    np.testing.assert_array_equal(_read(tmp_path), VOXELS)


def test_spectra_that_have_rows_and_reports_whose_class_the_file_alone_names_are_no_images(tmp_path):
    write_series(tmp_path, VOXELS, OBLIQUE)
    write_series(tmp_path, VOXELS, OBLIQUE, name="s", only=[0], SOPClassUID=BESIDE["spectra"], PixelData=None)
    (report,) = write_series(
        tmp_path, VOXELS, OBLIQUE, name="r", only=[0], **NO_PIXELS, SOPClassUID=BESIDE["structured report"]
    )
    change([report], lambda k, dataset: delattr(dataset, "SOPClassUID"))
    np.testing.assert_array_equal(_read(tmp_path), VOXELS)


@pytest.mark.parametrize("syntax", [None, RLELossless], ids=["uncompressed", "RLE"])
@pytest.mark.parametrize(("at", "also"), [(0, []), (8, []), (4, ["Rows", "Columns"])])
def test_an_image_that_lost_its_pixels_is_still_refused(tmp_path, syntax, at, also):
    files = write_series(tmp_path, VOXELS, OBLIQUE)
    if syntax:
        change(files, lambda k, dataset: dataset.compress(syntax, generate_instance_uid=False))
    change([files[at]], lambda k, dataset: [delattr(dataset, keyword) for keyword in ["PixelData", *also]])
    with pytest.raises(ScanError, match="has files without pixels"):
        _read(tmp_path)


@pytest.mark.parametrize(("bytes_left", "at"), [(300, 0), (500, 8), (700, 0), (900, 8)])
def test_a_file_that_breaks_off_is_refused_wherever_it_does(tmp_path, bytes_left, at):
    files = write_series(tmp_path, VOXELS, OBLIQUE)
    files[at].write_bytes(files[at].read_bytes()[:bytes_left])
    with pytest.raises(ScanError):
        _read(tmp_path)


def test_a_file_that_lacks_its_end_is_named_as_the_user_knows_it(tmp_path):
    files = write_series(tmp_path, VOXELS, OBLIQUE)
    files[4].write_bytes(files[4].read_bytes()[:-2])
    with pytest.raises(ScanError, match=rf"has a truncated file, {files[4]}\. Export it again"):
        _read(tmp_path)


@pytest.mark.parametrize("zeros", [12, 100, 300])
def test_compressed_pixels_that_end_in_zeros_are_refused(tmp_path, zeros):
    files = write_series(tmp_path, VOXELS, OBLIQUE)
    change(files, lambda k, dataset: dataset.compress(RLELossless, generate_instance_uid=False))
    content = files[4].read_bytes()
    files[4].write_bytes(content[:-8])  # some writers leave the mark of the end out
    np.testing.assert_array_equal(_read(tmp_path), VOXELS)
    files[4].write_bytes(content[:-zeros] + bytes(zeros))
    with pytest.raises(ScanError, match=rf"has a truncated file, {files[4]}\. Export it again"):
        _read(tmp_path)


def test_padding_after_the_pixels_is_no_fault(tmp_path):
    files = write_series(tmp_path, VOXELS, OBLIQUE)
    change(files, lambda k, dataset: setattr(dataset, "PixelData", dataset.PixelData + bytes(6)))
    np.testing.assert_array_equal(_read(tmp_path), VOXELS)


@pytest.mark.parametrize(
    "lacking",
    [
        ("SeriesInstanceUID",),
        ("SeriesInstanceUID", "SeriesNumber"),
        ("SeriesInstanceUID", "StudyInstanceUID", "SeriesNumber", "SeriesDescription"),
        ("SeriesNumber",),
        ("Modality",),
        ("Modality", "SOPClassUID"),
        ("SOPClassUID",),
        ("StudyInstanceUID", "PatientID", "PatientName", "StudyDate", "FrameOfReferenceUID", "InstanceNumber"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("empty", [False, True], ids=["missing", "empty"])
def test_what_anonymizers_take_away_does_not_take_the_series(tmp_path, lacking, empty):
    files = write_series(tmp_path, VOXELS, OBLIQUE, **FLAIR_TIMES)

    def strip(k, dataset):
        for keyword in lacking:
            setattr(dataset, keyword, "")
            if not empty:
                delattr(dataset, keyword)

    change(files, strip)
    np.testing.assert_array_equal(_read(tmp_path), VOXELS)


def test_files_that_name_no_series_are_sorted_by_study_number_and_description(tmp_path):
    nameless = {"SeriesInstanceUID": None}
    write_series(tmp_path / "a", VOXELS, SAGITTAL, "T1", 4, name="t{instance}", **T1_TIMES, **nameless)
    write_series(tmp_path / "a", VOXELS, OBLIQUE, "FLAIR", 4, name="f{instance}", **nameless)
    write_series(tmp_path / "a", VOXELS, SAGITTAL, "T2", 5, name="n{instance}", **T1_TIMES)
    write_series(tmp_path / "b", VOXELS, OBLIQUE, "FLAIR", 4, **nameless)
    series = find_series(_files(tmp_path))
    assert [(one.number, one.description, len(one.images)) for one in series] == [
        *((4, "FLAIR", 9), (4, "T1", 9), (4, "FLAIR", 9), (5, "T2", 9))
    ]
    for one in choose_flair(series, tmp_path)[0]:
        np.testing.assert_array_equal(in_world(read_dicom_series(one), VOXELS, OBLIQUE), VOXELS)


@pytest.mark.parametrize("lacking", [(), ("SeriesNumber",), ("StudyInstanceUID", "SeriesNumber", "SeriesDescription")])
def test_a_file_that_might_be_of_several_series_is_refused_by_name(tmp_path, lacking):
    files = write_series(tmp_path, VOXELS, OBLIQUE)
    for keyword in ("SeriesInstanceUID", *lacking):
        change(files[-1:], lambda k, dataset, keyword=keyword: delattr(dataset, keyword))
    with pytest.raises(ScanError, match=r"0009\.dcm does not name its series.*SeriesInstanceUID is missing"):
        find_series(files)


def test_series_without_names_are_only_compared_with_those_of_their_folder(tmp_path, monkeypatch):
    nameless = {"SeriesInstanceUID": None}
    for folder in "abcdef":
        for number in (3, 4):
            write_series(
                tmp_path / folder, VOXELS, OBLIQUE, "FLAIR", number, name="s{number}_{instance}", only=[0], **nameless
            )
    compared, may_be_of = list[tuple[str, str]](), dicom._Kin.may_be_of

    def noted(one, other):
        compared.append((one.folder, other.folder))
        return may_be_of(one, other)

    monkeypatch.setattr(dicom._Kin, "may_be_of", noted)
    assert len(find_series(_files(tmp_path))) == 12
    assert len(compared) == 12 and all(one == other for one, other in compared)


def test_a_series_of_unsaid_modality_says_so(tmp_path):
    files = write_series(tmp_path, VOXELS, OBLIQUE, Modality=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    with pytest.raises(ScanError, match=r"no MR series. Found: 5 “FLAIR” \(modality not given, 9 files\)"):
        _read(tmp_path)
    (series,) = find_series(files[:1])
    assert str(series) == "5 “FLAIR” (modality not given, 1 file)"
    with pytest.raises(ScanError, match=r"\(modality not given, 1 file\) is not a series of MR images"):
        read_dicom_series(series)


def test_a_directory_file_is_passed_over(tmp_path):
    directory = FileSet()
    for file in write_series(tmp_path / "in", VOXELS, OBLIQUE, StudyID="1"):
        directory.add(file)
    directory.write(tmp_path / "set")
    assert (tmp_path / "set" / "DICOMDIR").is_file() and is_dicom(tmp_path / "set" / "DICOMDIR")
    np.testing.assert_array_equal(_read(tmp_path / "set"), VOXELS)


@pytest.mark.parametrize("begins", ["at group 2", "at group 8, implicit", "at group 8, explicit"])
def test_files_without_preamble_are_read(tmp_path, begins):
    files = write_series(tmp_path, VOXELS, OBLIQUE)
    for path in files:
        if begins == "at group 2":
            path.write_bytes(path.read_bytes()[132:])
            continue
        bare = Dataset()
        bare.update(dcmread(path))
        bare.save_as(path, implicit_vr="implicit" in begins, little_endian=True)
    assert all(map(is_dicom, files)) and b"DICM" not in files[0].read_bytes()
    np.testing.assert_array_equal(_read(tmp_path), VOXELS)
