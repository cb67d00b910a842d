"""Resampling by matrices is scipy's zoom: the same voxels at order 0, its values to float32's rounding above.

Only a last coordinate that scipy rounds beyond the end finds the last voxel, where scipy's usual mode leaves 0.
"""

import numpy as np
import pytest
from scipy import ndimage

from planar3d.scans.resample import resample_by_matrices, resample_by_scipy

# Grown, shrunk, kept; of 32 → 16, 30 → 336 and 256 → 353 scipy rounds the last coordinate beyond the end.
LENGTHS = [(2, 16), (3, 7), (5, 5), (7, 3), (9, 16), (16, 9), (20, 64), (30, 336), (32, 16), (64, 20), (256, 353)]


def _zoom(volume, shape, order, mode="mirror"):
    factors = [new / old for new, old in zip(shape, volume.shape, strict=True)]
    return ndimage.zoom(volume, factors, order=order, mode=mode)


def _volume(shape, dtype=np.float32):
    return (65535 * np.random.default_rng(sum(shape)).random(shape)).astype(dtype)


@pytest.mark.parametrize("order", range(6))
@pytest.mark.parametrize(("old", "new"), LENGTHS)
@pytest.mark.parametrize("axis", range(3))
def test_an_axis_is_resampled_as_scipy_does(axis, old, new, order):
    shape, target = [4, 5, 6], [4, 5, 6]
    shape[axis], target[axis] = old, new
    volume = _volume(shape)
    found, expected = resample_by_matrices(volume, tuple(target), order), _zoom(volume, target, order)
    assert found.dtype == np.float32 and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.05 if order else 0)


@pytest.mark.parametrize(
    ("old", "new"), [((9, 12, 10), (16, 16, 16)), ((40, 7, 33), (16, 32, 24)), ((8,) * 3, (8,) * 3)]
)
@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_all_axes_together_are_resampled_as_scipy_does(old, new, order):
    volume = _volume(old)
    found = resample_by_matrices(volume, new, order)
    np.testing.assert_allclose(found, _zoom(volume, new, order), rtol=0, atol=0.1 if order else 0)


@pytest.mark.parametrize("order", range(6))
def test_the_last_voxels_of_both_grids_coincide_where_scipy_finds_none_and_the_others_are_scipy_s(order):
    for old, new in [*LENGTHS, (256, 156), (256, 200), (256, 360), (64, 240)]:
        line = np.arange(1, old + 1, dtype=np.float32).reshape(1, old, 1)
        found = resample_by_matrices(line, (1, new, 1), order).ravel()
        usual = _zoom(line, (1, new, 1), order, "constant").ravel()
        assert found[-1] == pytest.approx(old, rel=1e-5) and (usual[-1] == 0 or usual[-1] == pytest.approx(old))
        np.testing.assert_allclose(found[:-1], usual[:-1], rtol=1e-4 if order else 0)


@pytest.mark.parametrize("size", [16, 64, 128, 256])
def test_masks_are_scipy_s_for_every_native_length(size):
    for length in [*range(2, 140), 144, 155, 182, 218, 224, 240, 250, 256, 261, 336, 360, 384, 512]:
        there = np.arange(1, length + 1, dtype=np.uint16).reshape(1, length, 1)
        back = np.arange(1, size + 1, dtype=np.uint16).reshape(1, size, 1)
        for line, new in ((there, size), (back, length)):
            np.testing.assert_array_equal(resample_by_matrices(line, (1, new, 1), 0), _zoom(line, (1, new, 1), 0))


def test_masks_keep_their_type_and_are_scipy_s():
    mask = np.random.default_rng(0).random((31, 18, 27)) > 0.7
    for dtype in (np.uint8, bool):
        found = resample_by_matrices(mask.astype(dtype), (32, 32, 32), 0)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, _zoom(mask.astype(dtype), (32, 32, 32), 0))


def test_the_result_does_not_depend_on_how_the_volume_is_stored():
    volume = _volume((12, 20, 15))
    expected = resample_by_matrices(volume, (16, 16, 16), 2)
    for stored in (np.asfortranarray(volume), np.repeat(volume, 2, axis=1)[:, ::2]):
        rounding = 1e-7 * np.abs(expected).max()  # of sums that nearly cancel
        np.testing.assert_allclose(resample_by_matrices(stored, (16, 16, 16), 2), expected, rtol=1e-5, atol=rounding)


def test_a_volume_is_not_changed_by_being_resampled():
    volume = _volume((12, 20, 15))
    before = volume.copy()
    for order in (0, 1, 2):
        resample_by_matrices(volume, (16, 20, 8), order)
    np.testing.assert_array_equal(volume, before)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_constant_stays_constant_and_a_ramp_linear(order):
    constant = resample_by_matrices(np.full((9, 11, 13), 7, np.float32), (16, 16, 16), order)
    np.testing.assert_allclose(constant, 7, rtol=1e-5)
    if order:
        ramp = np.broadcast_to(np.linspace(0, 1, 33, dtype=np.float32), (4, 4, 33))
        middle = resample_by_matrices(ramp, (4, 4, 64), order)[0, 0, 16:-16]
        np.testing.assert_allclose(middle, np.linspace(0, 1, 64)[16:-16], atol=1e-3 if order == 2 else 1e-6)


def test_the_route_through_scipy_is_scipy_s_own():
    volume = _volume((9, 12, 10))
    np.testing.assert_array_equal(resample_by_scipy(volume, (16,) * 3, 2), _zoom(volume, (16,) * 3, 2, "constant"))
