"""Volumes and distances are those of space, whether a grid's axes stand at right angles or not."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from planar3d.errors import ScanError
from planar3d.evaluation.lesion_table import lesion_table
from planar3d.evaluation.lesions import lesion_scores
from planar3d.evaluation.quality import check_quality
from planar3d.evaluation.scores import directed_distances, score_scan
from planar3d.inference.prepared_scan import lesion_mask
from planar3d.recipes import PAPER
from planar3d.scans.geometry import Geometry, voxel_axes, voxel_mm3
from planar3d.scans.head import find_head
from planar3d.scans.volume import Scan

TURN = nib.eulerangles.euler2mat(0.5, -0.3, 0.7)
SHEAR = np.array([[1.0, 0.8, 0], [0, 0.6, 0], [0, 0, 1]])  # 60 % of the volume of its edges
RNG = np.random.default_rng(0)


def _affine(axes):
    return nib.affines.from_matvec(axes, (1, 2, 3))


def test_a_voxel_s_volume_is_the_determinant_of_its_axes():
    assert voxel_mm3((0.7, 1.1, 3)) == np.prod((0.7, 1.1, 3))
    assert voxel_mm3(np.diag([-2.0, 1, 3, 1])) == 6
    assert voxel_mm3((0.05, 0.05, 50)) == pytest.approx(0.125)  # not flat, however thick
    assert voxel_mm3(_affine(TURN * (2, 1, 3))) == pytest.approx(6, rel=1e-12)
    assert voxel_mm3(SHEAR) == pytest.approx(0.6)
    assert voxel_mm3(_affine(TURN @ SHEAR[:, [2, 0, 1]])) == pytest.approx(0.6)


def test_right_angles_keep_the_edges_through_the_rounding_of_a_header():
    affine = _affine(TURN * (0.7, 1.1, 3)).astype(np.float32)
    lengths = np.linalg.norm(affine[:3, :3].astype(float), axis=0)
    np.testing.assert_array_equal(voxel_axes(affine), np.diag(lengths))


@pytest.mark.parametrize(
    "grid", [(1, 1), (1, -1, 1), 1, np.eye(2), np.zeros((4, 4)), np.ones((3, 3)), np.eye(3) * np.nan]
)
def test_what_is_no_grid_is_refused(grid):
    with pytest.raises(ScanError, match="three positive lengths in mm are needed, or an affine"):
        voxel_axes(grid)


@pytest.mark.parametrize("axes", [np.diag([0.7, 1.1, 3]), TURN * (0.7, 1.1, 3), SHEAR, TURN @ SHEAR * 1.5])
def test_distances_are_those_between_places_in_space(axes):
    field = ndimage.gaussian_filter(RNG.standard_normal((9, 10, 11)), 1.2)
    masks = field > 0.1, np.roll(field, 1, 2) > 0.12
    surfaces = [np.argwhere(m & ~ndimage.binary_erosion(m)) @ axes.T for m in masks]
    apart = np.linalg.norm(surfaces[0][:, None] - surfaces[1][None], axis=2)
    expected = np.concatenate([apart.min(1), apart.min(0)])
    np.testing.assert_allclose(np.concatenate(directed_distances(*masks, _affine(axes))), expected, atol=1e-6)
    scores = score_scan(*masks, _affine(axes))
    assert scores["assd_mm"] == pytest.approx(expected.mean())
    assert scores["hd95_mm"] == pytest.approx(np.percentile(expected, 95))
    assert scores["reference_ml"] == pytest.approx(np.count_nonzero(masks[0]) * np.linalg.det(axes) / 1000)


def test_scores_of_edges_are_those_of_their_affine():
    field = ndimage.gaussian_filter(RNG.standard_normal((9, 10, 11)), 1.2)
    masks = field > 0.1, np.roll(field, 1, 2) > 0.12
    assert score_scan(*masks, (0.5, 2, 3)) == score_scan(*masks, np.diag([-0.5, 2, 3, 1]))


def test_the_least_lesion_is_measured_in_space_by_every_rule():
    mask = np.zeros((6, 6, 12), np.uint8)
    mask[1, 1, :4], mask[3, 3, :6] = 1, 1  # 2.4 and 3.6 mm³ of sheared voxels, 4 and 6 of their edges
    affine = _affine(TURN @ SHEAR)
    assert lesion_scores(mask, mask, (1, 1, 1))["reference_lesions"] == 2
    assert lesion_scores(mask, mask, affine)["reference_lesions"] == 1
    kept = lesion_mask(mask.astype(np.float32), PAPER.changed(smallest_lesion_mm3=3), affine)
    assert kept.sum() == 6
    lesions = lesion_table(Scan(mask, nib.Nifti1Image(mask, affine).header))
    assert [lesion.volume_ml for lesion in lesions] == pytest.approx([0.0036, 0.0024], rel=1e-5)


@pytest.mark.parametrize("axes", [TURN * (0.9, 1, 3), TURN @ SHEAR])
def test_a_prepared_grid_keeps_the_volume_and_the_angles_of_the_scan(axes):
    header = nib.Nifti1Image(np.zeros((21, 31, 41), np.uint8), _affine(axes)).header
    geometry = PAPER.changed(size=16).preparation.geometry(header)
    np.testing.assert_allclose(np.linalg.norm(geometry.axes, axis=0), geometry.spacing)
    assert voxel_mm3(geometry.axes) * 15**3 == pytest.approx(abs(np.linalg.det(axes)) * 20 * 30 * 40, rel=1e-5)


@pytest.mark.parametrize("view", ["RAS", "SRP", "LPI"])
def test_distances_on_a_grid_of_another_view_are_those_of_space(view):
    rng = np.random.default_rng(0)
    reference = rng.random((9, 10, 8)) > 0.8
    masks = reference, reference ^ (rng.random(reference.shape) > 0.9)
    header = nib.Nifti1Image(reference.astype(np.uint8), _affine(TURN @ SHEAR)).header
    shape = Geometry(header, view, (0, 0, 0), (0, 0, 0)).native
    geometry = Geometry(header, view, shape, shape)
    turned = score_scan(*map(geometry.turned, masks), geometry.axes)
    assert turned == pytest.approx(score_scan(*masks, _affine(TURN @ SHEAR)), rel=1e-5, nan_ok=True)


def test_the_volume_of_a_head_is_that_of_space():
    place = np.stack(np.meshgrid(*[np.arange(40)] * 3, indexing="ij"), -1) - 20
    voxels = np.where((place**2).sum(-1) < 15**2, 100.0, 0).astype(np.float32)
    scan = Scan(voxels, nib.Nifti1Image(voxels, _affine(2.5 * TURN @ SHEAR)).header)
    inside = np.count_nonzero(voxels) * 2.5**3 * 0.6 / 1000
    assert find_head(scan).volume_ml == pytest.approx(inside, rel=1e-5)
    mask = Scan((voxels > 0).astype(np.uint8), scan.header)
    (large,) = (w for w in check_quality(scan, mask) if w.check == "large result")
    assert f"take up {inside:.0f} ml of a head of {inside:.0f} ml" in large.sentence
