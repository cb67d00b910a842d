"""A DICOM series becomes the volume that was written, wherever it lies; what would have to be guessed is refused."""

import contextlib

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("pydicom", reason="needs the extra dicom")
pytest.importorskip("dcm2niix", reason="needs the extra dicom")

from dicom_series import (
    AXIAL,
    FLAIR_TIMES,
    OBLIQUE,
    SAGITTAL,
    SLICES,
    VOXELS,
    change,
    find_series,
    in_world,
    write_enhanced,
    write_series,
)
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, RLELossless, generate_uid

from planar3d.errors import Planar3DError, ScanError
from planar3d.scans.dicom import choose_flair
from planar3d.scans.dicom_conversion import read_dicom_series
from planar3d.scans.volume import read_scan


def _read(folder):
    (series,), _ = choose_flair(find_series(p for p in folder.rglob("*") if p.is_file()), folder)
    return read_dicom_series(series)


@pytest.mark.parametrize("affine", [AXIAL, OBLIQUE, SAGITTAL, OBLIQUE @ np.diag([1, 1, -1, 1])])
@pytest.mark.parametrize("order", ["of the slices", "reversed", "interleaved"])
def test_voxels_and_places_are_those_written(tmp_path, affine, order):
    instances = {
        "of the slices": range(1, SLICES + 1),
        "reversed": range(SLICES, 0, -1),
        "interleaved": [*range(1, SLICES + 1, 2), *range(2, SLICES + 1, 2)],
    }
    files = write_series(tmp_path, VOXELS, affine, order=list(instances[order]))
    scan = _read(tmp_path)
    np.testing.assert_array_equal(in_world(scan, VOXELS, affine), VOXELS)
    np.testing.assert_allclose(sorted(scan.spacing), sorted(np.linalg.norm(affine[:3, :3], axis=0)), rtol=1e-5)
    assert scan.path == min(files)


@pytest.mark.parametrize("vendor", ["siemens", "ge", "philips", "canon"])
@pytest.mark.parametrize("stored", ["signed 16", "unsigned 16", "12 of 16"])
def test_intensities_are_those_written(tmp_path, vendor, stored):
    voxels = VOXELS if stored == "signed 16" else (VOXELS + 200).astype(np.uint16)
    bits = {"BitsStored": 12, "HighBit": 11} if stored == "12 of 16" else {}
    if stored == "unsigned 16":
        voxels = voxels + np.uint16(60000)
    write_series(tmp_path, voxels, OBLIQUE, vendor=vendor, **bits)
    np.testing.assert_array_equal(in_world(_read(tmp_path), voxels, OBLIQUE), voxels)


@pytest.mark.parametrize("varies", [0, 0.25])
def test_rescaling_is_applied_also_where_it_varies_from_slice_to_slice(tmp_path, varies):
    files = write_series(tmp_path, VOXELS, OBLIQUE, vendor="philips", RescaleIntercept=-10)
    slopes = 2.5 + varies * np.arange(SLICES)
    change(files, lambda k, dataset: setattr(dataset, "RescaleSlope", slopes[k]))
    np.testing.assert_allclose(in_world(_read(tmp_path), VOXELS, OBLIQUE), VOXELS * slopes - 10, atol=1e-3)


def test_an_enhanced_file_holds_a_volume(tmp_path):
    write_enhanced(tmp_path / "image", VOXELS, OBLIQUE, description="")
    np.testing.assert_array_equal(in_world(_read(tmp_path), VOXELS, OBLIQUE), VOXELS)


@pytest.mark.parametrize("syntax", [None, RLELossless], ids=["uncompressed", "RLE"])
@pytest.mark.parametrize("order", ["of the slices", "reversed", "interleaved"])
@pytest.mark.parametrize("numbers", ["of the slices", "of the frames", "others", "none"])
def test_frames_lie_at_their_positions_whatever_their_order_and_numbers(tmp_path, syntax, order, numbers):
    orders = {
        "of the slices": [*range(SLICES)],
        "reversed": [*range(SLICES)][::-1],
        "interleaved": [*range(0, SLICES, 2), *range(1, SLICES, 2)],
    }

    def sort(_, dataset):
        frames, pixels = [], dataset.pixel_array
        for at, k in enumerate(orders[order]):
            frame = dataset.PerFrameFunctionalGroupsSequence[k]
            number = {"of the slices": k, "of the frames": at, "others": 4 * k % SLICES}.get(numbers)
            if number is None:
                del frame.FrameContentSequence
            else:
                frame.FrameContentSequence[0].InStackPositionNumber = number + 1
                frame.FrameContentSequence[0].DimensionIndexValues = [1, number + 1]
            frames.append(frame)
        dataset.PerFrameFunctionalGroupsSequence = frames
        dataset.PixelData = np.ascontiguousarray(pixels[orders[order]]).tobytes()
        if syntax:
            dataset.compress(syntax, generate_instance_uid=False)

    change([write_enhanced(tmp_path / "image", VOXELS, OBLIQUE)], sort)
    np.testing.assert_array_equal(in_world(_read(tmp_path), VOXELS, OBLIQUE), VOXELS)


@pytest.mark.parametrize("syntax", [None, RLELossless], ids=["uncompressed", "RLE"])
@pytest.mark.parametrize(("by", "echo"), [(0, 0), (0.25, 0), (0, 0.01)])
def test_frames_may_differ_in_rescaling_and_by_rounding_in_echo_time(tmp_path, syntax, by, echo):
    slopes = 2 + by * np.arange(SLICES)

    def rescale(_, dataset):
        for k, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            values, times = Dataset(), Dataset()
            values.RescaleSlope, values.RescaleIntercept, values.RescaleType = slopes[k], -10, "US"
            times.EffectiveEchoTime = 120 + echo * k
            frame.PixelValueTransformationSequence, frame.MREchoSequence = [values], [times]
        if syntax:
            dataset.compress(syntax, generate_instance_uid=False)

    change([write_enhanced(tmp_path / "image", VOXELS, OBLIQUE)], rescale)
    np.testing.assert_allclose(in_world(_read(tmp_path), VOXELS, OBLIQUE), VOXELS * slopes - 10, atol=1e-2)


def test_a_lossless_compression_is_read_and_a_lossy_one_refused(tmp_path):
    padding = {"PixelPaddingValue": -(2**15), "PixelPaddingRangeLimit": -201}  # of pixels, not of packed bytes
    files = write_series(tmp_path, VOXELS, OBLIQUE, **padding)
    change(files, lambda k, dataset: dataset.compress(RLELossless, generate_instance_uid=False))
    np.testing.assert_array_equal(in_world(_read(tmp_path), VOXELS, OBLIQUE), VOXELS)
    change(files, lambda k, dataset: setattr(dataset.file_meta, "TransferSyntaxUID", "1.2.840.10008.1.2.4.51"))
    with pytest.raises(ScanError, match=r"has an unsupported compression .*1\.2\.4\.51.*gdcmconv --raw"):
        _read(tmp_path)


@pytest.mark.parametrize("predictor", [1, 4, 5, 7])
@pytest.mark.parametrize(("bits", "sign"), [(12, 0), (12, 1), (16, 0), (16, 1)])
def test_jpeg_predictors_whose_sums_dcm2niix_cuts_off_are_refused(tmp_path, predictor, bits, sign):
    frame = bytes.fromhex("ffd8 ffc3000b10 0018 0014 01011100 ffc40015000001") + bytes(17)
    frame += bytes.fromhex(f"ffda0008010100{predictor:02x}0000") + bytes(10) + bytes.fromhex("ffd9")

    def compress(k, dataset):
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.57"
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, sign
        dataset.PixelData = encapsulate([frame])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True

    change(write_series(tmp_path, VOXELS, OBLIQUE), compress)
    with pytest.raises(ScanError) as caught:  # others for their pixels, which are none
        _read(tmp_path)
    assert ("decodes wrongly (16 bits, predictor" in str(caught.value)) == (predictor > 4 and (bits == 16 or sign == 1))


def test_a_region_drawn_on_the_scan_is_not_taken_for_it(tmp_path):
    def draw(k, dataset):
        for offset, kind, value in ((0x10, "US", 24), (0x11, "US", 20), (0x40, "CS", "G"), (0x50, "SS", [1, 1])):
            dataset.add_new(0x60000000 + offset, kind, value)
        dataset.add_new(0x60000100, "US", 1)
        dataset.add_new(0x60000102, "US", 0)
        dataset.add_new(0x60003000, "OW", bytes([k + 1] * 60))

    change(write_series(tmp_path, VOXELS, OBLIQUE), draw)
    np.testing.assert_array_equal(in_world(_read(tmp_path), VOXELS, OBLIQUE), VOXELS)


def test_phase_images_in_the_series_are_left_out(tmp_path):
    uid = generate_uid()
    write_series(tmp_path, VOXELS, OBLIQUE, SeriesInstanceUID=uid, name="m{instance}")
    phase = ["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "IR"]
    write_series(tmp_path, -VOXELS, OBLIQUE, SeriesInstanceUID=uid, name="p{instance}", ImageType=phase)
    np.testing.assert_array_equal(in_world(_read(tmp_path), VOXELS, OBLIQUE), VOXELS)


@pytest.mark.parametrize(
    ("elements", "sentence"),
    [
        ({"Modality": "CT"}, "has no MR series. Found: 5 “FLAIR”"),
        ({"PixelData": None, "Rows": None, "Columns": None}, "files without pixels"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "in colour"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "in colour"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "inverted grey levels"),
        ({"Rows": 4000}, "4000 × 20 pixels have 160,000 bytes, but 960 are stored"),
        ({"Rows": 23}, "23 × 20 pixels have 920 bytes, but 960 are stored"),
        ({"Columns": 10}, "24 × 10 pixels"),
        ({"Rows": 60000, "Columns": 60000}, "at most 134,217,728 are accepted"),
        ({"PixelSpacing": [0, 0.9]}, "not greater than 0"),
        ({"PixelSpacing": [0.9, -0.9]}, "not greater than 0"),
        ({"ImagePositionPatient": None}, "does not give the position of its slices"),
        ({"ImagePositionPatient": [0, 0, 0]}, "several images at one position"),
    ],
)
def test_what_is_no_grey_mr_volume_is_refused(tmp_path, elements, sentence):
    write_series(tmp_path, VOXELS, OBLIQUE, **elements)
    with pytest.raises(ScanError, match=sentence):
        _read(tmp_path)


def test_single_mixed_and_sheared_slices_are_refused(tmp_path):
    write_series(tmp_path / "single", VOXELS, OBLIQUE, only=[4])
    with pytest.raises(ScanError, match="has a single slice"):
        _read(tmp_path / "single")
    uid = generate_uid()
    write_series(tmp_path / "mixed", VOXELS, AXIAL, SeriesInstanceUID=uid)
    write_series(tmp_path / "mixed", VOXELS, SAGITTAL, SeriesInstanceUID=uid, name="s{instance}")
    with pytest.raises(ScanError, match="mixes orientations"):
        _read(tmp_path / "mixed")
    write_series(tmp_path / "sizes", VOXELS, AXIAL, SeriesInstanceUID=uid, only=range(4))
    write_series(tmp_path / "sizes", VOXELS[2:], AXIAL, SeriesInstanceUID=uid, only=range(4, 9))
    with pytest.raises(ScanError, match="mixes images of several sizes"):
        _read(tmp_path / "sizes")
    sheared = AXIAL.copy()
    sheared[1, 2] = 2
    for k in range(SLICES):  # each slice as of an unsheared volume that begins where it does
        begins = AXIAL.copy()
        begins[:3, 3] = (sheared @ [0, 0, k, 1])[:3] - AXIAL[:3, 2] * k
        write_series(tmp_path / "sheared", VOXELS, begins, SeriesInstanceUID=uid, only=[k])
    with pytest.raises(ScanError, match="are shifted within their plane"):
        _read(tmp_path / "sheared")


@pytest.mark.parametrize("syntax", ["explicit", "without preamble", "big-endian", "enhanced"])
@pytest.mark.parametrize(
    ("stored", "given", "limit"),
    [(-2000, -2000, None), (-2000, 63536, None), (-1999, -2000, -1990), (63536, 63536, None)],
)
def test_padding_is_air(tmp_path, syntax, stored, given, limit):
    voxels = np.abs(VOXELS).astype(np.int16 if stored < 0 else np.uint16)
    voxels[:3] = stored
    files = (
        [write_enhanced(tmp_path / "image", voxels, OBLIQUE)]
        if syntax == "enhanced"
        else write_series(tmp_path, voxels, OBLIQUE)
    )
    for path in files:
        written, dataset = dcmread(path), Dataset()
        dataset.update(written)
        dataset.file_meta = written.file_meta
        kind = "SS" if given < 0 else "US"
        dataset.add_new("PixelPaddingValue", kind, given)
        if limit is not None:
            dataset.add_new("PixelPaddingRangeLimit", kind, limit)
        if syntax == "big-endian":
            dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
        dataset.save_as(path, enforce_file_format=True)
        if syntax == "without preamble":
            path.write_bytes(path.read_bytes()[132:])
    expected = np.where(voxels == stored, 0, voxels)
    np.testing.assert_array_equal(in_world(_read(tmp_path), voxels, OBLIQUE), expected)


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ({"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}, r"several acquisitions \(1, 2\) whose slices overlap"),
        ({}, {"PatientID": "2"}, "images that differ in PatientID"),
        ({}, {"StudyInstanceUID": "1.5"}, "images that differ in StudyInstanceUID"),
        (
            {"TemporalPositionIdentifier": 1},
            {"TemporalPositionIdentifier": 2},
            "images that differ in TemporalPositionIdentifier",
        ),
        ({}, {"InversionTime": 2000}, "inversion times of 2000 to 2500 ms"),
        (
            {"SliceThickness": 3, "AcquisitionNumber": 1},
            {"SliceThickness": 3, "AcquisitionNumber": 2},
            "",
        ),  # interleaved
    ],
)
def test_slices_of_two_volumes_between_each_other_are_refused(tmp_path, first, second, sentence):
    series = {"SeriesInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}
    between = OBLIQUE.copy()
    between[:3, 3] += between[:3, 2] / 2
    write_series(tmp_path, VOXELS, OBLIQUE, **series | first)
    write_series(tmp_path, VOXELS, between, order=range(SLICES + 1, 2 * SLICES + 1), **series | second)
    refused = pytest.raises(ScanError, match=f"mixes {sentence}; a single volume is needed")
    with refused if sentence else contextlib.nullcontext():
        assert _read(tmp_path).voxels.size == 2 * VOXELS.size


def test_a_constant_series_is_refused_by_the_name_of_its_file(tmp_path):
    files = write_series(tmp_path, np.zeros_like(VOXELS), OBLIQUE)
    with pytest.raises(ScanError, match="has the value 0 everywhere") as caught:
        _read(tmp_path)
    assert str(caught.value).startswith(str(files[0])) and "planar3d-" not in str(caught.value)


@pytest.mark.parametrize("seed", range(40))
def test_mutated_files_end_in_a_scan_or_in_a_sentence(tmp_path, seed):
    rng = np.random.default_rng(seed)
    files = write_series(tmp_path, VOXELS, OBLIQUE) if seed % 2 else [write_enhanced(tmp_path / "x", VOXELS, OBLIQUE)]
    victim = files[rng.integers(len(files))]
    content = bytearray(victim.read_bytes())
    for at in rng.integers(len(content) - 2 * VOXELS[:, :, 0].size, size=3):
        content[at : at + rng.integers(1, 5)] = rng.bytes(rng.integers(0, 6))
    victim.write_bytes(content)
    with contextlib.suppress(Planar3DError):
        for series in choose_flair(find_series(files), tmp_path)[0]:
            assert read_dicom_series(series).voxels.ndim == 3


@pytest.mark.real
def test_a_real_scan_survives_the_way_through_dicom(real_data, tmp_path):
    path = next((real_data / "data/ms_flair/sub-101228").rglob("*_FLAIR.nii.gz"))
    scan, stored = read_scan(path), nib.load(path)
    voxels = np.asarray(stored.dataobj).astype(np.int16)
    np.testing.assert_array_equal(voxels, scan.voxels)
    write_series(tmp_path, voxels, scan.affine, **FLAIR_TIMES)
    np.testing.assert_array_equal(in_world(_read(tmp_path), voxels, scan.affine), voxels)
