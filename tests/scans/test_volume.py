"""A scan is read whole or refused with a sentence; what is written is what was read."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from planar3d.errors import ScanError
from planar3d.scans.volume import Scan, read_mask, read_scan


def test_a_saved_mask_has_the_input_s_shape_affine_codes_and_zooms(gradient_scan, tmp_path):
    path, voxels = gradient_scan
    scan = read_scan(path)
    Scan(scan.voxels > 100, scan.header).save(tmp_path / "mask.nii.gz")
    before, after = nib.load(path), nib.load(tmp_path / "mask.nii.gz")
    assert after.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(after.dataobj), (voxels > 100).astype(np.uint8))
    np.testing.assert_array_equal(after.affine, before.affine)
    for field in ("sform_code", "qform_code", "pixdim", "dim"):
        np.testing.assert_array_equal(after.header[field], before.header[field])


def test_half_precision_is_saved_as_float32(gradient_scan, tmp_path):
    scan = read_scan(gradient_scan[0])
    half = (scan.voxels / scan.limits[1]).astype(np.float16)
    np.testing.assert_array_equal(read_scan(Scan(half, scan.header).save(tmp_path / "half.nii")).voxels, half)


def test_sform_and_qform_that_differ_are_both_kept(write_nifti, tmp_path):
    path = write_nifti(np.random.default_rng(0).random((4, 5, 6), np.float32))
    image = nib.load(path)
    image.set_sform(np.diag([2.0, 2, 2, 1]), code=2)
    image.set_qform(np.diag([-1.0, 1, 1, 1]), code=1)
    nib.save(image, tmp_path / "both.nii.gz")
    scan = read_scan(tmp_path / "both.nii.gz")
    scan.save(tmp_path / "again.nii.gz")
    again = nib.load(tmp_path / "again.nii.gz")
    np.testing.assert_array_equal(again.get_sform(), np.diag([2.0, 2, 2, 1]))
    np.testing.assert_array_equal(again.get_qform(), np.diag([-1.0, 1, 1, 1]))
    assert (again.header["sform_code"], again.header["qform_code"]) == (2, 1)


def test_a_scaled_integer_scan_is_read_in_its_units(write_nifti):
    path = write_nifti(np.arange(8, dtype=np.int16).reshape(2, 2, 2), scl_slope=0.5, scl_inter=-1)
    assert read_scan(path).voxels.max() == 2.5


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "u1", "<u2", "<i4", ">f4", "<f4", "<f8"])
@pytest.mark.parametrize("scaling", [{}, {"scl_slope": 0.5, "scl_inter": -3}, {"scl_slope": 0, "scl_inter": 7}])
def test_voxels_of_every_type_are_read_as_nibabel_reads_them(tmp_path, dtype, scaling):
    values = np.random.default_rng(0).integers(0, 200, (4, 5, 6)).astype(dtype)
    header = nib.Nifti1Header(endianness=dtype[0] if dtype[0] in "<>" else "<")
    header.set_data_shape(values.shape)
    header.set_data_dtype(values.dtype)
    header.set_sform(np.diag([-1.0, -1, 1, 1]), code=1)
    header["vox_offset"], header["magic"] = 368, b"n+1"
    for field, value in scaling.items():
        header[field] = value
    path = tmp_path / "scan.nii"
    path.write_bytes(header.binaryblock + bytes(20) + values.tobytes(order="F"))
    expected = nib.load(path).get_fdata(dtype=np.float32)
    found = read_scan(path).voxels
    assert found.dtype == np.float32 and found.flags.writeable
    np.testing.assert_array_equal(found, expected)


def test_a_trailing_single_axis_is_squeezed(write_nifti):
    scan = read_scan(write_nifti(np.random.default_rng(0).random((4, 5, 6, 1), np.float32)))
    assert scan.voxels.shape == scan.header.get_data_shape() == (4, 5, 6)


def _nan(shape=(4, 5, 6)):
    voxels = np.ones(shape, np.float32)
    voxels[0, 0, 0], voxels[1, 1, 1] = np.nan, 2
    return voxels


@pytest.mark.parametrize(
    ("voxels", "sentence"),
    [
        (np.random.default_rng(0).random((4, 5)), "2-D"),
        (np.random.default_rng(0).random((4, 5, 1)), "single slice"),
        (np.random.default_rng(0).random((4, 5, 6, 2)), "4-D"),
        (np.full((4, 5, 6), 7.0), "value 7 everywhere"),
        (_nan(), "NaN or infinity in 1 voxel;"),
        (np.where(_nan() > 0, np.inf, 0.0), "infinity in 119 voxels"),
        (np.ones((4, 5, 6), np.complex64), "complex"),
    ],
)
def test_unusable_voxels_are_refused(write_nifti, voxels, sentence):
    with pytest.raises(ScanError, match=sentence):
        read_scan(write_nifti(voxels))


def test_what_is_no_nifti_file_is_refused(tmp_path):
    for absent in ("absent.nii.gz", "a\0.nii"):
        with pytest.raises(ScanError, match="does not exist"):
            read_scan(tmp_path / absent)
    for name, content in {"a.nii": b"", "b.nii": b"text" * 200, "c.nii.gz": b"no gzip", "d.mgz": b"x"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ScanError, match=name):
            read_scan(tmp_path / name)
    with pytest.raises(ScanError, match=r"not a \.nii"):
        read_scan(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/mem").is_file(), reason="a file that cannot be read is that of Linux")
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_file_on_a_failing_disk_is_named(tmp_path, name):
    (tmp_path / name).symlink_to("/proc/self/mem")
    with pytest.raises(ScanError, match=rf"{name} cannot be read \(Input/output error\)\. Check its permissions"):
        read_scan(tmp_path / name)


def test_a_truncated_plain_file_and_an_absurd_size_are_refused(gradient_scan, tmp_path):
    path, _ = gradient_scan
    content = gzip.decompress(path.read_bytes())
    (tmp_path / "short.nii").write_bytes(content[:-10])
    with pytest.raises(ScanError, match=r"cannot hold them|truncated"):
        read_scan(tmp_path / "short.nii")
    (tmp_path / "short.nii.gz").write_bytes(gzip.compress(content[:-10]))
    with pytest.raises(ScanError, match="is truncated: it has"):
        read_scan(tmp_path / "short.nii.gz")
    (tmp_path / "long.nii").write_bytes(content + bytes(2**20))
    assert read_scan(tmp_path / "long.nii").voxels.shape == (6, 7, 8)
    (tmp_path / "long.nii").write_bytes(content + bytes(2**20 + 1))
    with pytest.raises(ScanError, match="more than 1 MiB after its voxels"):
        read_scan(tmp_path / "long.nii")
    header = nib.Nifti1Header(content[:348])
    header.set_data_shape((30000, 30000, 30000))
    (tmp_path / "huge.nii.gz").write_bytes(gzip.compress(header.binaryblock + content[348:]))
    with pytest.raises(ScanError, match="declares"):
        read_scan(tmp_path / "huge.nii.gz")


def test_a_scan_without_geometry_needs_a_word_from_the_user(write_nifti):
    path = write_nifti(np.random.default_rng(0).random((4, 5, 6)), sform_code=0, qform_code=0)
    with pytest.raises(ScanError, match="--assume-affine"):
        read_scan(path)
    assert nib.aff2axcodes(read_scan(path, assume_affine=True).affine) == ("L", "A", "S")


def test_a_singular_affine_is_refused(write_nifti):
    path = write_nifti(np.random.default_rng(0).random((4, 5, 6)), srow_z=[0, -1, 0, 0], qform_code=0)
    with pytest.raises(ScanError, match="singular"):
        read_scan(path)


def test_a_mask_belongs_to_its_scan(gradient_scan, write_nifti):
    path, voxels = gradient_scan
    scan, mask = read_scan(path), (voxels > 200).astype(np.float64)
    assert read_mask(write_nifti(mask * 1.00000006, "m.nii.gz"), scan).voxels.dtype == np.uint8
    assert read_mask(write_nifti(mask * 0, "empty.nii.gz"), scan).voxels.sum() == 0
    with pytest.raises(ScanError, match="has shape"):
        read_mask(write_nifti(mask[:-1], "m.nii.gz"), scan)
    with pytest.raises(ScanError, match="labels"):
        read_mask(write_nifti(mask * 2, "m.nii.gz"), scan)
    with pytest.raises(ScanError, match="labels"):
        read_mask(write_nifti(mask * 0.99, "m.nii.gz"), scan)
    shifted = scan.affine.copy()
    shifted[0, 3] += 0.09
    read_mask(write_nifti(mask, "m.nii.gz", shifted), scan)
    shifted[0, 3] += 0.02
    with pytest.raises(ScanError, match="does not match"):
        read_mask(write_nifti(mask, "m.nii.gz", shifted), scan)


@pytest.mark.real
def test_a_mask_distributed_with_a_wrong_affine_is_refused(real_data):
    scan = read_scan(real_data / "data/ms_flair/sub-101228/anat/sub-101228_FLAIR.nii.gz")
    with pytest.raises(ScanError, match="does not match"):
        read_mask(real_data / "data/defects/sub-101228_label-lesion_mask_wrong-affine.nii.gz", scan)


@pytest.mark.parametrize("shape", [(4, 5, 6, 3), (4, 5, 6, 1, 3), (4, 5, 6, 3, 1), (4, 5, 6, 1, 1)])
def test_a_volume_of_a_series_is_taken_along_its_one_long_axis(tmp_path, shape):
    voxels = np.random.default_rng(0).integers(0, 99, shape).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.diag([-1, -1, 2, 1])), path := tmp_path / "series.nii.gz")
    volumes = voxels.reshape(4, 5, 6, -1)
    for number in range(volumes.shape[3]):
        np.testing.assert_array_equal(read_scan(f"{path}[{number}]").voxels, volumes[..., number])
    with pytest.raises(ScanError, match=f"no volume {volumes.shape[3]}; volumes are numbered from 0"):
        read_scan(f"{path}[{volumes.shape[3]}]")
    if volumes.shape[3] > 1:
        with pytest.raises(ScanError, match="Extract one volume first"):
            read_scan(path)


def test_a_volume_of_two_long_axes_has_no_number(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6, 2, 3), np.int16), np.eye(4)), path := tmp_path / "field.nii.gz")
    with pytest.raises(ScanError, match="no volume 0"):
        read_scan(f"{path}[0]")
