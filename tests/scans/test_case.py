"""Images of a case are read onto one grid, which is that of the first; nothing is resampled."""

import numpy as np
import pytest
from stored_scans import TURNS, turned

from planar3d.errors import ScanError
from planar3d.scans.case import read_images
from planar3d.scans.volume import read_labels

AFFINE = np.array([[0, 2.0, 0.1, -9], [-1.0, 0, 0, 4], [0, -0.05, 3.0, 7], [0, 0, 0, 1]])
VOXELS = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


@pytest.mark.parametrize("turn", TURNS[::11])
def test_an_image_stored_in_another_orientation_is_turned_to_the_first(write_nifti, turn):
    stored, affine = turned(VOXELS + 1, AFFINE, turn)
    paths = {"t1": write_nifti(VOXELS, "t1.nii", AFFINE), "t2": write_nifti(stored, "t2.nii", affine)}
    scans = read_images(paths)
    np.testing.assert_array_equal(scans["t2"].voxels, VOXELS + 1)
    np.testing.assert_array_equal(scans["t2"].affine, scans["t1"].affine)
    labels = read_labels(write_nifti(*(turned(VOXELS % 5, AFFINE, turn)[0], "seg.nii", affine)), scans["t1"])
    np.testing.assert_array_equal(labels.voxels, VOXELS % 5)


def test_an_image_or_a_label_map_of_another_grid_is_refused_by_name(write_nifti):
    first = write_nifti(VOXELS, "t1.nii", AFFINE)
    with pytest.raises(ScanError, match=r"t2.nii has shape \(4, 5, 5\), but .*t1.nii has .* Register and resample it"):
        read_images({"t1": first, "t2": write_nifti(VOXELS[..., 1:], "t2.nii", AFFINE)})
    moved = AFFINE.copy()
    moved[0, 3] += 1
    with pytest.raises(ScanError, match=r"t2.nii does not match .*t1.nii.* 0.5 voxels away.* Register"):
        read_images({"t1": first, "t2": write_nifti(VOXELS, "t2.nii", moved)})
    with pytest.raises(ScanError, match=r"seg.nii does not match .* Look at both in a viewer"):
        read_labels(write_nifti(VOXELS, "seg.nii", moved), read_images({"t1": first})["t1"])


def test_a_file_that_is_no_volume_is_said_not_to_be_of_its_contrast(write_nifti):
    with pytest.raises(ScanError, match=r"t2.nii is 4-D .* a single grey-scale t2 volume is needed"):
        read_images({"t2": write_nifti(np.zeros((3, 4, 5, 2), np.int16), "t2.nii")})


def test_images_without_geometry_are_stored_as_the_first_if_that_is_assumed(write_nifti):
    lost = {"sform_code": 0, "qform_code": 0}
    paths = {"t1": write_nifti(VOXELS, "t1.nii", AFFINE), "t2": write_nifti(VOXELS, "t2.nii", AFFINE, **lost)}
    with pytest.raises(ScanError, match=r"t2.nii does not define its orientation"):
        read_images(paths)
    np.testing.assert_array_equal(read_images(paths, assume_affine=True)["t2"].voxels, VOXELS)


@pytest.mark.parametrize("value", [0.5, -1, 256])
def test_labels_are_whole_numbers_of_a_byte(write_nifti, value):
    voxels = np.zeros((3, 4, 5), np.float32)
    voxels[1] = value
    with pytest.raises(ScanError, match=rf"has values from .*{value}.*; a label map of whole numbers from 0 to 255"):
        read_labels(write_nifti(voxels))
    voxels[1] = 4 + 1e-4
    assert read_labels(write_nifti(voxels)).voxels.max() == 4
