"""A header is read as all readers agree it is meant, and refused where it contradicts itself."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from planar3d.errors import ScanError
from planar3d.scans.volume import read_scan

VOXELS = np.random.default_rng(0).integers(0, 200, (4, 5, 6)).astype(np.int16)
KINDS = [nib.Nifti1Header, nib.Nifti2Header]
EXTENSION = np.array([32, 4], "<i4").tobytes() + b"a word of the scanner   "  # 32 bytes, a comment
SFORM, QFORM = np.diag([-2.0, -1, 1, 1]), np.diag([-1.0, -1, 3, 1])


def _content(kind=nib.Nifti1Header, order="<", between=bytes(4), sform=SFORM, qform=None, **fields):
    """A file whose voxels lie behind the header and what is `between`, whatever its fields say."""
    header = kind(endianness=order)
    header.set_data_shape(VOXELS.shape)
    header.set_data_dtype(np.int16)
    header.set_sform(sform, code=0 if sform is None else 1)
    header.set_qform(qform, code=0 if qform is None else 1)
    header["magic"] = header.single_magic
    header["vox_offset"] = header.sizeof_hdr + len(between)
    for field, value in fields.items():
        header[field] = value
    return header.binaryblock + between + VOXELS.astype(f"{order}i2").tobytes(order="F")


@pytest.fixture
def read(tmp_path):
    def read(content, name="scan.nii", **options):
        (tmp_path / name).write_bytes(content)
        return read_scan(tmp_path / name, **options)

    return read


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("slope", [0, 0.5])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", KINDS)
def test_an_offset_of_0_is_that_behind_the_header(read, kind, order, slope, zipped):
    content = _content(kind, order, vox_offset=0, scl_slope=slope)
    scan = read(gzip.compress(content) if zipped else content)
    np.testing.assert_array_equal(scan.voxels, VOXELS * (slope or 1))
    assert scan.header["vox_offset"] == kind.sizeof_hdr + 4


@pytest.mark.parametrize("gap", [0, 1, 8, 16, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_voxels_may_begin_anywhere_behind_the_header(read, kind, gap, capfd):
    np.testing.assert_array_equal(read(_content(kind, between=bytes(4 + gap))).voxels, VOXELS)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("offset", [1, 348, 351, -16, 352.5, np.nan, np.inf, 1e9, 2.0**90])
@pytest.mark.parametrize("kind", KINDS)
def test_an_offset_that_places_no_voxels_is_refused(read, kind, offset):
    if kind is nib.Nifti2Header:
        offset = {351: 543, 352.5: 540}.get(offset, 2**62 if not abs(offset) < 2**62 else offset)
    with pytest.raises(ScanError, match=rf"the vox_offset {offset:.9g}; 0 or".replace("+", r"\+")):
        read(_content(kind, vox_offset=offset))


def test_an_extension_is_kept_unless_it_reaches_into_the_voxels(read, tmp_path):
    scan = read(_content(between=b"\1\0\0\0" + EXTENSION))
    np.testing.assert_array_equal(scan.voxels, VOXELS)
    scan.save(tmp_path / "again.nii")
    (kept,) = nib.load(tmp_path / "again.nii").header.extensions
    assert (kept.get_code(), kept.get_content()) == (4, b"a word of the scanner   ")
    for offset in (0, 352, 368):
        with pytest.raises(ScanError, match="inside a header extension that ends at byte 384"):
            read(_content(between=b"\1\0\0\0" + EXTENSION, vox_offset=offset))


@pytest.mark.parametrize("between", [b"\1\0\0\0", b"\1\0\0\0" + bytes(16), b"\1\0\0\0" + b"\xff" * 20])
def test_what_only_looks_like_an_extension_is_passed_over(read, between):
    scan = read(_content(between=between))
    np.testing.assert_array_equal(scan.voxels, VOXELS)
    assert not scan.header.extensions


@pytest.mark.parametrize("lengths", [(0,), (1,), (0, 0), (0, 1, 0, 0)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_further_axis_of_length_0_is_one_of_length_1(read, kind, lengths):
    dim = [3 + len(lengths), *VOXELS.shape, *lengths, *(1,) * (4 - len(lengths))]
    scan = read(_content(kind, dim=dim))
    np.testing.assert_array_equal(scan.voxels, VOXELS)
    assert scan.header.get_data_shape() == VOXELS.shape


@pytest.mark.parametrize(
    ("dim", "sentence"),
    [
        ([3, 0, 5, 6, 1, 1, 1, 1], "which has no voxels"),
        ([4, 4, 5, 0, 1, 1, 1, 1], "which has no voxels"),
        ([4, 4, 5, 6, -1, 1, 1, 1], "which has no voxels"),
        ([0, 4, 5, 6, 1, 1, 1, 1], "declares 0 dimensions"),
        ([9, 4, 5, 6, 1, 1, 1, 1], "declares 9 dimensions"),
        ([-3, 4, 5, 6, 1, 1, 1, 1], "declares -3 dimensions"),
        ([3 << 8, 4, 5, 6, 1, 1, 1, 1], "declares 768 dimensions"),
        ([5, 4, 5, 6, 1, 2, 1, 1], "is 5-D"),
    ],
)
def test_a_shape_that_no_volume_has_is_refused(read, dim, sentence):
    with pytest.raises(ScanError, match=sentence):
        read(_content(dim=dim) + bytes(VOXELS.nbytes))


@pytest.mark.parametrize("datatype", [0, 1, 3, 9999])
def test_voxels_of_a_type_that_cannot_be_read_are_refused(read, datatype):
    with pytest.raises(ScanError, match=f"voxels of type {datatype}"):
        read(_content(datatype=datatype))


def test_an_intercept_that_is_no_number_is_refused(read):
    with pytest.raises(ScanError, match="is not a readable NIfTI file"):
        read(_content(scl_slope=1, scl_inter=np.nan))


ZERO, NAN = {f"srow_{axis}": [0] * 4 for axis in "xyz"}, {"srow_y": [0, np.nan, 0, 0]}
BROKEN_SFORMS = [ZERO, NAN, {"srow_z": [0] * 4}, {"srow_x": [0, -1, 0, 0]}, {"srow_x": [-1, 0, 0, np.inf]}]
BROKEN_QFORMS = [{"quatern_b": 2}, {"quatern_c": np.nan}, {"pixdim": [1, 0, 1, 1, 1, 1, 1, 1]}, {"qoffset_x": np.nan}]


@pytest.mark.parametrize("fields", BROKEN_SFORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_qform_counts_where_the_sform_places_no_voxels(read, kind, fields):
    scan = read(_content(kind, qform=QFORM, **fields))
    np.testing.assert_array_equal(scan.affine, QFORM)


@pytest.mark.parametrize("fields", BROKEN_QFORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_sform_counts_whatever_the_qform_says(read, tmp_path, kind, fields):
    scan = read(_content(kind, qform=QFORM, **fields))
    np.testing.assert_array_equal(scan.affine, SFORM)
    scan.save(tmp_path / "again.nii")
    np.testing.assert_array_equal(read_scan(tmp_path / "again.nii").affine, SFORM)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    zip(
        BROKEN_QFORMS,
        [r"quaternion \(2, 0, 1\)", "quaternion .*nan", "voxels of 0 × 1 × 3 mm", "affine, or one with NaN"],
        strict=True,
    ),
)
def test_a_qform_alone_that_places_no_voxels_is_told(read, fields, sentence):
    fields = {**fields, **({"pixdim": [1, 0, 1, 3, 1, 1, 1, 1]} if "pixdim" in fields else {})}
    with pytest.raises(ScanError, match=sentence):
        read(_content(sform=None, qform=QFORM, **fields))
    with pytest.raises(ScanError, match=sentence):
        read(_content(qform=QFORM, **ZERO, **fields))


def test_an_empty_sform_alone_is_none(read):
    with pytest.raises(ScanError, match="does not define its orientation"):
        read(_content(**ZERO))
    assert read(_content(**ZERO), assume_affine=True).spacing == (1, 1, 1)
    with pytest.raises(ScanError, match="0 × 1 × 1 mm"):
        read(_content(**ZERO, pixdim=[1, 0, 1, 1, 1, 1, 1, 1]), assume_affine=True)


@pytest.mark.parametrize("pixdim", [[0, 1, 1, 3], [1, -1, 1, 3], [-1, 1, -1, -3]])
def test_signs_of_voxel_sizes_mean_nothing_but_the_first(read, pixdim):
    scan = read(_content(sform=None, qform=np.diag([1.0, 1, 3, 1]), pixdim=[*pixdim, 1, 1, 1, 1]))
    np.testing.assert_array_equal(scan.affine, np.diag([1.0, 1, -3 if pixdim[0] < 0 else 3, 1]))


@pytest.mark.parametrize("code", [-1, 6, 127, 32000])
def test_what_is_no_code_counts_as_none_before_the_other_affine_is_looked_at(read, code):
    with pytest.raises(ScanError, match=r"its qform has the quaternion .* not a rotation, and it has no sform"):
        read(_content(sform=SFORM, sform_code=code, qform_code=1, quatern_b=3.0))
    with pytest.raises(ScanError, match="neither sform nor qform is set"):
        read(_content(sform=SFORM, sform_code=code, qform_code=code))


@pytest.mark.parametrize("length", [0, np.nan, np.inf, -np.inf])
def test_voxel_sizes_that_are_none_are_those_of_the_sform(read, tmp_path, length, capfd):
    scan = read(_content(pixdim=[1, length, 7, 1, 1, 1, 1, 1]))
    scan.save(tmp_path / "copy.nii")
    assert nib.load(tmp_path / "copy.nii").header.get_zooms() == (2, 7, 1)
    assert capfd.readouterr().err == ""
