"""The phantom's scanners: where each voxel lies in the head, and what the coil and the noise make of it."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from planar3d.scans.phantom_fields import smooth_noise, spread
from planar3d.scans.phantom_scanner import CENTERS, Subject, header_of, scanned, sensitivity

VIEW, GRID = np.array([160.0, 210.0, 240.0]), (8, 14, 12)


def test_the_position_of_a_voxel_is_the_pose_of_its_place_and_the_displacement_there():
    rng = np.random.default_rng(0)
    pose = np.column_stack([Rotation.from_euler("xyz", (5, 9, -14), degrees=True).as_matrix() * 1.1, (3, -20, 9)])
    displacement = rng.normal(0, 3, (3, 5, 6, 4)).astype(np.float32)
    index = np.indices(GRID).reshape(3, -1)
    world = (index - (np.reshape(GRID, (3, 1)) - 1) / 2) * (VIEW / GRID)[:, None] * [[-1], [-1], [1]]
    nodes = index * ((np.array(displacement.shape[1:]) - 1) / (np.array(GRID) - 1))[:, None]
    moved = np.stack([ndimage.map_coordinates(part, nodes, order=1) for part in displacement])
    found = np.stack(list(Subject(VIEW, pose, displacement).positions(GRID)), axis=1).reshape(3, -1)
    np.testing.assert_allclose(found, pose[:, :3] @ world + pose[:, 3:] + moved, atol=1e-3)


def test_air_has_the_noise_of_a_magnitude_and_tissue_its_signal():
    center = replace(CENTERS[0], bias=0.0, noise=0.1, white=1000)
    means = []
    for seed in range(12):
        signal = np.zeros((30, 40, 40), np.float32)
        signal[15:] = 1
        raw = scanned(center, signal, VIEW, np.random.default_rng(seed)).astype(float)
        assert raw[16:, :, 0].mean() < 0.4 * raw[16:, :, 20].mean()  # beyond the coil's end
        raw = raw[:, :, 20:]
        assert (raw[:14] > 0).mean() > 0.99
        white = raw[16:].mean()
        assert np.sqrt(np.mean(raw[:15] ** 2)) / white == pytest.approx(0.1 * np.sqrt(2), rel=0.03)
        assert 0.08 < raw[16:].std() / white < 0.13
        means.append(white)
    assert np.mean(means) == pytest.approx(1000, rel=0.1) and 0.03 < np.std(means) / 1000 < 0.2
    full = scanned(replace(center, white=1e6), np.ones((4, 4, 4), np.float32), VIEW, np.random.default_rng(0))
    assert full.dtype == np.int16 and full.max() == 32767


def test_the_coil_has_its_center_s_strength_and_ends_at_the_neck():
    grid = (20, 24, 100)
    maps = [sensitivity(replace(CENTERS[1], bias=0.3), VIEW, grid, np.random.default_rng(seed)) for seed in range(6)]
    assert np.mean([each[:, :, 40:].std() for each in maps]) == pytest.approx(0.3, rel=0.25)
    flat = sensitivity(replace(CENTERS[1], bias=0.0), VIEW, grid, np.random.default_rng(0))
    assert flat[:, :, 60:].mean() == pytest.approx(0, abs=0.01) and 0.01 < flat[:, :, 60:].std() < 0.04
    heights = np.exp(flat.mean(axis=(0, 1)))
    assert np.interp(0.5, heights[:30], (np.arange(30) + 0.5) / 100) == pytest.approx(0.09, abs=0.01)
    assert heights[0] < 0.15 and heights[25] > 0.95


@pytest.mark.parametrize("center", CENTERS, ids=lambda center: center.name)
def test_a_grid_lies_around_the_isocenter_tilted_no_more_than_its_center_tilts(center):
    assert 150 < center.grid[0] * center.spacing[0] < 200  # mm, from ear to ear
    assert all(225 < n * mm < 265 for n, mm in zip(center.grid[1:], center.spacing[1:], strict=True))
    angles = []
    for seed in range(20):
        affine = header_of(center, VIEW, GRID, np.random.default_rng(seed)).get_best_affine()
        np.testing.assert_allclose(nib.affines.voxel_sizes(affine), VIEW / GRID, rtol=1e-5)
        turn = affine[:3, :3] / (VIEW / GRID) @ np.diag([-1, -1, 1])
        angles.append(np.rad2deg(Rotation.from_matrix(turn).magnitude()))
        middle = affine @ [*(np.array(GRID) - 1) / 2, 1]
        assert np.linalg.norm(middle[:3]) < 50
    assert max(angles) <= center.tilt + 1e-3 and (max(angles) > 0.6 * center.tilt or center.tilt == 0)


def test_a_box_of_a_spread_lattice_is_cut_from_the_whole_and_noise_is_standardized_and_seeded():
    field = smooth_noise(np.random.default_rng(0), (12, 9, 10), (1.0, 2.0, 0.5))
    assert field.dtype == np.float32 and abs(field.mean()) < 1e-5 and field.std() == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(field, smooth_noise(np.random.default_rng(0), (12, 9, 10), (1.0, 2.0, 0.5)))
    rough = [np.abs(np.diff(field, axis=axis)).mean() for axis in range(3)]
    assert rough[1] < rough[0] < rough[2]
    whole = spread(field, (30, 9, 21))
    for box in (np.s_[3:11, 0:4, 20:40], np.s_[28:99, 5:9, 0:1], np.s_[0:30, 8:9, 7:14]):
        np.testing.assert_allclose(spread(field, (30, 9, 21), box), whole[box], atol=1e-6)
