"""A DICOM Segmentation object holds every voxel of the mask, each lesion a segment, and refers to its images."""

import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="needs the extra dicom")
pytest.importorskip("dcm2niix", reason="needs the extra dicom")
pytest.importorskip("highdicom", reason="needs the extra dicom")

import highdicom
from dicom_series import (
    AXIAL,
    LESIONS,
    OBLIQUE,
    SERIES,
    VOXELS,
    change,
    in_world,
    segmented,
    write_enhanced,
    write_kind,
    write_series,
)
from msseg import write_model
from pydicom import dcmread

from planar3d.errors import ScanError
from planar3d.evaluation.lesion_table import lesion_labels, lesion_table
from planar3d.scans.volume import Scan, read_mask
from planar3d.study.cohort import segment_all
from planar3d.study.dicom_seg import write_dicom_seg
from planar3d.study.dicom_sr import write_dicom_sr
from planar3d.study.segmented import Request

MODEL = {"name": "ms-flair", "sha256": "30de1" * 8}


def _voxels_of(path, shape, affine):
    """The numbers of segments, at the places that an object's own headers give its pixels, (i, j, k) as `shape`."""
    dataset, found = dcmread(path), np.zeros(shape, int)
    pixels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    along, down = np.reshape(np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float), (2, 3))
    down_mm, along_mm = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    back = np.linalg.inv(affine) @ np.diag([-1, -1, 1, 1])
    for frame, groups in zip(pixels, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        begins = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        for row, column in np.argwhere(frame):
            place = back @ [*(begins + along * along_mm * column + down * down_mm * row), 1]
            index = np.rint(place[:3]).astype(int)
            assert np.abs(place[:3] - index).max() < 0.02 and found[tuple(index)] == 0
            found[tuple(index)] = number
    return found


@pytest.fixture(scope="module", params=SERIES)
def written(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    affine = write_kind(folder / "in", request.param)
    mask, series = segmented(folder / "in", affine=affine)
    return affine, mask, series, write_dicom_seg(mask, series, MODEL, folder / "seg.dcm")


def test_every_voxel_of_every_lesion_is_read_back(written):
    affine, mask, series, path = written
    labels = Scan(lesion_labels(mask), mask.header)
    expected = in_world(labels, LESIONS, affine)
    np.testing.assert_array_equal(expected > 0, LESIONS > 0)
    np.testing.assert_array_equal(_voxels_of(path, LESIONS.shape, affine), expected)
    names = {dcmread(image.path, stop_before_pixels=True).SOPInstanceUID for image in series.images}
    sources = {
        item.ReferencedSOPInstanceUID
        for groups in dcmread(path).PerFrameFunctionalGroupsSequence
        for derived in groups.DerivationImageSequence
        for item in derived.SourceImageSequence
    }
    assert sources and sources <= names


def test_a_second_reader_finds_the_same_voxels(written, tmp_path):
    pytest.importorskip("dcmqi")
    SimpleITK = pytest.importorskip("SimpleITK")
    affine, mask, _, path = written
    call = "import sys; from dcmqi import segimage2itkimage as run; sys.exit(run())"
    options = ["--inputDICOM", path, "--outputDirectory", tmp_path, "--outputType", "nii", "--mergeSegments"]
    subprocess.run([sys.executable, "-c", call, *map(str, options)], check=True, capture_output=True)
    image = SimpleITK.ReadImage(str(next(tmp_path.glob("*.nii*"))))
    stored = SimpleITK.GetArrayFromImage(image).T
    found, back = np.zeros(LESIONS.shape, int), np.linalg.inv(affine) @ np.diag([-1, -1, 1, 1])
    for index in np.argwhere(stored):
        place = back @ [*image.TransformIndexToPhysicalPoint([int(i) for i in index]), 1]
        found[tuple(np.rint(place[:3]).astype(int))] = stored[tuple(index)]
    np.testing.assert_array_equal(found, in_world(Scan(lesion_labels(mask), mask.header), LESIONS, affine))


def test_a_validator_finds_nothing_wrong(written):
    if not shutil.which("dciodvfy"):
        pytest.skip("dciodvfy is not installed")
    done = subprocess.run(["dciodvfy", "-new", written[-1]], capture_output=True, text=True)
    assert done.returncode == 0 and "Error" not in done.stderr, done.stderr


def test_segments_say_what_they_are_and_who_made_them(tmp_path):
    write_series(tmp_path / "in", VOXELS, OBLIQUE)
    mask, series = segmented(tmp_path / "in")
    first, again = (dcmread(write_dicom_seg(mask, series, MODEL, tmp_path / name)) for name in ("a.dcm", "b.dcm"))
    assert first.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4" and first.SeriesNumber == 1005
    assert first.StudyInstanceUID == dcmread(series.images[0].path).StudyInstanceUID
    assert len(first.SegmentSequence) == len(lesion_table(mask)) == 3
    for number, segment in enumerate(first.SegmentSequence, start=1):
        assert (segment.SegmentNumber, segment.SegmentLabel) == (number, f"Lesion {number}")
        assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "52988006"
        assert segment.AnatomicRegionSequence[0].CodeValue == "12738006"
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert algorithm.AlgorithmName == "planar3d" and "ms-flair" in algorithm.AlgorithmParameters
    tracking = [segment.TrackingUID for segment in first.SegmentSequence]
    assert len(set(tracking)) == 3 and tracking == [segment.TrackingUID for segment in again.SegmentSequence]
    assert first.SOPInstanceUID == again.SOPInstanceUID


def test_a_mask_without_lesions_is_a_segment_without_pixels(tmp_path):
    write_series(tmp_path / "in", VOXELS, OBLIQUE)
    mask, series = segmented(tmp_path / "in", np.zeros_like(LESIONS))
    path = write_dicom_seg(mask, series, MODEL, tmp_path / "seg.dcm")
    made = dcmread(path)
    assert len(made.SegmentSequence) == 1 and not made.pixel_array.any()
    with pytest.raises(ScanError, match=r"seg\.dcm .* a DICOM Segmentation object\. Name a NIfTI mask"):
        read_mask(path)


@pytest.mark.parametrize(
    ("sets", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["ISO 2022 IR 6", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        ("ISO 2022 IR 100", "Müller"),
        ("", "Nobody"),
    ],
)
def test_names_in_any_character_set_are_repeated(tmp_path, sets, name):
    files = write_series(tmp_path / "in", VOXELS, OBLIQUE, SpecificCharacterSet=sets, PatientName=name)
    assert dcmread(files[0]).PatientName == name
    mask, series = segmented(tmp_path / "in")
    path = write_dicom_seg(mask, series, MODEL, tmp_path / "seg.dcm")
    report = write_dicom_sr(lesion_table(mask), path, tmp_path / "sr.dcm")
    for made in map(dcmread, (path, report)):
        assert made.SpecificCharacterSet == "ISO_IR 192" and made.PatientName == name


@pytest.mark.parametrize("sets", [None, "ISO_IR 100", "ISO_IR 144"])
def test_a_model_s_name_is_whole_whatever_the_images_character_set(tmp_path, sets):
    write_series(tmp_path / "in", VOXELS, OBLIQUE, SpecificCharacterSet=sets, PatientName="Nobody")
    mask, series = segmented(tmp_path / "in")
    path = write_dicom_seg(mask, series, MODEL | {"name": "脑-модель"}, tmp_path / "seg.dcm")
    (algorithm,) = dcmread(path).SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmParameters.startswith("model=脑-модель,")
    assert b"model=\xe8\x84\x91-" in write_dicom_sr(lesion_table(mask), path, tmp_path / "sr.dcm").read_bytes()


@pytest.mark.filterwarnings("ignore")  # pydicom's, of the values
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        *(("PatientBirthDate", value) for value in ("1970", "19700000", "XXXXXXXX", "ANONYMIZED")),
        *(("StudyDate", "2020-01-01"), ("StudyTime", "12:00:00"), ("PatientSex", "male")),
    ],
)
def test_dates_and_sexes_that_the_standard_does_not_know_are_left_empty(tmp_path, keyword, value):
    write_series(tmp_path / "in", VOXELS, OBLIQUE, **{keyword: value})
    mask, series = segmented(tmp_path / "in")
    path = write_dicom_seg(mask, series, MODEL, tmp_path / "seg.dcm")
    report = write_dicom_sr(lesion_table(mask), path, tmp_path / "sr.dcm")
    for made in map(dcmread, (path, report)):
        assert not made[keyword].value and made.PatientID == "1"


@pytest.mark.parametrize(("of_images", "written"), [(None, "00"), ("", "00"), ("00", "00"), ("01", "01")])
def test_lossy_compression_is_said_as_of_the_images_and_never_left_empty(tmp_path, of_images, written):
    write_series(tmp_path / "in", VOXELS, OBLIQUE, LossyImageCompression=of_images)
    mask, series = segmented(tmp_path / "in")
    assert dcmread(write_dicom_seg(mask, series, MODEL, tmp_path / "seg.dcm")).LossyImageCompression == written


@pytest.mark.filterwarnings("ignore")  # pydicom's, of the values
def test_identifiers_outside_the_standard_are_repeated_without_warnings_of_pydicom(tmp_path):
    names = {"StudyInstanceUID": "1.2.03.4", "SeriesInstanceUID": "1.2.05.6"}
    write_series(tmp_path / "in", VOXELS, OBLIQUE, **names)
    mask, series = segmented(tmp_path / "in")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = write_dicom_seg(mask, series, MODEL, tmp_path / "seg.dcm")
        report = write_dicom_sr(lesion_table(mask), path, tmp_path / "sr.dcm")
    for made in map(dcmread, (path, report)):
        assert made.StudyInstanceUID == names["StudyInstanceUID"]
    (source,) = dcmread(path).ReferencedSeriesSequence
    assert source.SeriesInstanceUID == names["SeriesInstanceUID"]


def test_what_an_object_must_repeat_is_missed_in_a_sentence_and_masks_elsewhere_are_refused(tmp_path):
    files = write_series(tmp_path / "in", VOXELS, OBLIQUE)
    mask, series = segmented(tmp_path / "in")
    moved = mask.header.copy()
    moved.set_sform(mask.affine + np.eye(4, k=3), code=1)
    with pytest.raises(ScanError, match="does not match"):
        write_dicom_seg(Scan(mask.voxels, moved), series, MODEL, tmp_path / "seg.dcm")
    change(files, lambda k, dataset: setattr(dataset, "FrameOfReferenceUID", ""))
    with pytest.raises(ScanError, match=r"cannot be referenced .*no Frame Of Reference UID.*without --dicom-seg"):
        write_dicom_seg(mask, series, MODEL, tmp_path / "seg.dcm")
    change(files, lambda k, dataset: delattr(dataset, "FrameOfReferenceUID"))
    with pytest.raises(ScanError, match=r"cannot be referenced .*no Frame Of Reference UID.*without --dicom-seg"):
        write_dicom_seg(mask, series, MODEL, tmp_path / "seg.dcm")
    assert not list(tmp_path.glob("*seg.dcm"))


@pytest.mark.parametrize("keyword", ["SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
def test_images_that_cannot_be_told_apart_are_not_referenced(tmp_path, keyword):
    files = write_series(tmp_path / "in", VOXELS, OBLIQUE)
    mask, series = segmented(tmp_path / "in")
    change(files, lambda k, dataset: setattr(dataset, keyword, ""))
    with pytest.raises(ScanError, match=rf"cannot be referenced .*{keyword}.*without --dicom-seg"):
        write_dicom_seg(mask, series, MODEL, tmp_path / "seg.dcm")
    change(files, lambda k, dataset: setattr(dataset, "SOPInstanceUID", "1.2.3"))
    with pytest.raises(ScanError, match=r"cannot be referenced .*UID.*without --dicom-seg"):
        write_dicom_seg(mask, series, MODEL, tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()


@pytest.mark.parametrize("kind", ["oblique", "enhanced"])
@pytest.mark.parametrize(("thickness", "apart"), [(5, -6.5), (6.5, 9), (None, None), ("", "")])
def test_the_distance_between_slices_is_that_of_their_positions(tmp_path, kind, thickness, apart):
    def say(k, dataset):
        frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
        for holder in [frame.PixelMeasuresSequence[0] for frame in frames] or [dataset]:
            for keyword, value in (("SliceThickness", thickness), ("SpacingBetweenSlices", apart)):
                holder.pop(keyword, None)
                if value is not None:
                    setattr(holder, keyword, value)

    write_kind(tmp_path / "in", kind)
    change(sorted((tmp_path / "in").iterdir()), say)
    mask, series = segmented(tmp_path / "in")
    made = highdicom.seg.segread(write_dicom_seg(mask, series, MODEL, tmp_path / "seg.dcm"))
    (measures,) = made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert measures.SpacingBetweenSlices == pytest.approx(6.5)
    assert measures.SliceThickness == pytest.approx(thickness or 6.5)


def test_more_lesions_than_segments_can_number_are_refused(tmp_path):
    write_series(tmp_path / "in", np.indices((260, 260, 2)).sum(0).astype(np.int16), AXIAL)
    mask, series = segmented(tmp_path / "in", np.indices((260, 260, 2)).sum(0) % 2, AXIAL)
    with pytest.raises(ScanError, match="has 67,600 lesions, but a DICOM Segmentation object can have at most 65,535"):
        write_dicom_seg(mask, series, MODEL, tmp_path / "seg.dcm")


def test_an_enhanced_image_without_shared_groups_is_refused_in_a_sentence(tmp_path):
    path = write_enhanced(tmp_path / "in" / "image", VOXELS, AXIAL)
    mask, series = segmented(tmp_path / "in", affine=AXIAL)
    change([path], lambda k, dataset: delattr(dataset, "SharedFunctionalGroupsSequence"))
    with pytest.raises(ScanError, match=r"cannot be referenced .*SharedFunctionalGroupsSequence"):
        write_dicom_seg(mask, series, MODEL, tmp_path / "seg.dcm")


def test_predict_writes_it_beside_the_mask_and_refuses_what_is_of_no_series(tmp_path):
    write_series(tmp_path / "in", VOXELS, OBLIQUE)
    request = Request(engine="keras", dicom_seg=True)
    model = write_model(tmp_path)
    (record,) = segment_all([tmp_path / "in"], model, tmp_path / "out", request=request, notify=str).records
    mask = read_mask(tmp_path / "out" / record["files"]["mask"])
    expected = in_world(Scan(lesion_labels(mask), mask.header), VOXELS, OBLIQUE)
    found = _voxels_of(tmp_path / "out" / record["files"]["dicom_seg"], VOXELS.shape, OBLIQUE)
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ScanError, match="is not a DICOM series"):
        segment_all([mask.path], model, tmp_path / "other", request=request, notify=str)
