"""Headers and voxels that no head scan has are refused with a sentence, before they cost memory or give nonsense."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from planar3d.errors import RecipeError, ScanError
from planar3d.inference.prepared_scan import prepare
from planar3d.recipes import MODERN
from planar3d.scans.preparation.axial_slices import _center
from planar3d.scans.preparation.standardized import CenterCrop
from planar3d.scans.volume import Scan, read_scan

SLICES = MODERN.changed(size=32)
VOXELS = np.random.default_rng(0).gamma(2, 40, (6, 7, 8)).astype(np.float32)


@pytest.mark.parametrize(
    "diagonal, sentence",
    [
        ((1e-3, 1e-3, 1e-3), "0.001 × 0.001 × 0.001 mm"),  # in meters
        ((1000, 1000, 1000), "should be in mm"),  # in micrometers
        ((np.nan, 1, 1), "nan × 1 × 1 mm"),
    ],
)
def test_voxels_of_another_unit_are_refused(write_nifti, diagonal, sentence):
    rows = {f"srow_{axis}": row for axis, row in zip("xyz", np.diag([*diagonal, 1])[:3], strict=True)}
    with pytest.raises(ScanError, match=sentence):
        read_scan(write_nifti(VOXELS, sform_code=1, **rows))


def test_a_scan_longer_than_a_body_is_refused(write_nifti):
    with pytest.raises(ScanError, match=r"has 100 × 4 × 4 voxels of 30 × 1 × 1 mm; .* at most 2,000 mm in total"):
        read_scan(write_nifti(np.resize(VOXELS, (100, 4, 4)), affine=np.diag([30, 1, 1, 1])))


def test_axes_that_nearly_coincide_are_refused(write_nifti):
    affine = np.array([[1, 1, 0, 0], [0, 1e-3, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    with pytest.raises(ScanError, match="singular"):
        read_scan(write_nifti(VOXELS, affine=affine, qform_code=0))


def test_a_line_of_voxels_is_no_flat_image(write_nifti):
    with pytest.raises(ScanError, match="or line of voxels"):
        read_scan(write_nifti(VOXELS[:, :1, :1]), flat=True)


def test_an_axis_that_no_scan_has_is_refused(write_nifti):
    with pytest.raises(ScanError, match=r"and 1,024 along an axis\. If the scan has"):
        read_scan(write_nifti(np.resize(VOXELS, (2, 3, 1025))))


@pytest.mark.parametrize("scale", [1e35, 1e-40])
def test_values_that_overflow_when_they_are_scaled_are_refused(write_nifti, scale):
    with pytest.raises(ScanError, match="which no scanner produces"):
        read_scan(write_nifti(VOXELS * np.float32(scale)))


@pytest.mark.parametrize(("crop", "sentence"), [((8, 8), "three numbers"), ((0, 8, 8), "crop is 0, but 1 to 1024")])
def test_a_crop_has_three_lengths(crop, sentence):
    with pytest.raises(RecipeError, match=sentence):
        CenterCrop(crop=crop)


def test_a_thin_slab_has_no_more_stacks_than_slices():
    header = nib.Nifti1Image(VOXELS[..., :4], np.diag([1, 1, 0.5, 1])).header
    prepared = prepare(Scan(VOXELS[..., :4], header), SLICES)
    stacks = SLICES.preparation.stacks(prepared, SLICES.tiles.depth)
    assert sorted(n for stack in stacks for n in range(4)[stack]) == [0, 1, 2, 3]
    assert all(len(prepared.voxels[stack]) for stack in stacks)


def test_a_scan_of_negative_values_is_prepared():
    """As of a CT, whose air is -1000: zero is then above a tenth of the 99.5th percentile."""
    voxels = np.where(np.arange(VOXELS.size).reshape(VOXELS.shape) % 400 == 0, 0, -1000 + VOXELS / 10)
    header = nib.Nifti1Image(voxels, np.eye(4)).header
    assert prepare(Scan(voxels.astype(np.float32), header), SLICES).voxels.dtype == np.uint8


def test_slices_too_wide_to_be_resampled_are_refused():
    voxels = np.broadcast_to(np.arange(1000, dtype=np.float32), (40, 40, 1000))
    header = nib.Nifti1Header()
    header.set_data_shape(voxels.shape)
    header.set_sform(np.diag([40, 40, 1, 1]), 1)
    with pytest.raises(ScanError, match="no head is that wide"):
        prepare(Scan(voxels, header), SLICES)


def test_the_center_is_that_of_scipy():
    head = VOXELS > 90
    np.testing.assert_allclose(_center(head), ndimage.center_of_mass(head))
    assert _center(head & False) is None
