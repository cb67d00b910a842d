"""Lesions are measured in the world, whatever the storage, and their volumes add up to that of the mask."""

import csv
import itertools
import math

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation
from stored_scans import TURNS, turned

from planar3d.errors import ScanError
from planar3d.evaluation.lesion_table import (
    lesion_labels,
    lesion_places,
    lesion_table,
    lesions_by_target,
    write_lesions,
)
from planar3d.evaluation.lesions import lesion_scores
from planar3d.scans.targets import Binary, Classes, Regions
from planar3d.scans.volume import Scan

LPS = np.array([[-2.0, 0, 0, 30], [0, -3, 0, 40], [0, 0, 5, -50], [0, 0, 0, 1]])


def _mask(*boxes, shape=(12, 14, 16), affine=LPS):
    voxels = np.zeros(shape, np.uint8)
    for box in boxes:
        voxels[box] = 1
    return _scan(voxels, affine)


def _scan(voxels, affine=LPS):
    return Scan(voxels, nib.Nifti1Image(voxels, affine).header)


def _many(seed=0, shape=(40, 50, 30), affine=LPS):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.2)
    return _scan((noise > np.quantile(noise, 0.97)).astype(np.uint8), affine)


def _oblique(degrees):
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", [degrees, degrees / 2, -degrees], degrees=True).as_matrix()
    return turn @ LPS


def test_a_box_has_its_place_size_and_volume_in_millimetres():
    (lesion,) = lesion_table(_mask(np.s_[2:5, 4:6, 7:8]))
    assert (lesion.lesion, lesion.voxels) == (1, 6)
    assert lesion.volume_ml == pytest.approx(6 * 30 / 1000)
    assert (lesion.x_mm, lesion.y_mm, lesion.z_mm) == pytest.approx((30 - 2 * 3, 40 - 3 * 4.5, -50 + 5 * 7))
    assert lesion.extent_mm == pytest.approx((3 * 2, 2 * 3, 5))
    assert lesion.mean_probability is None


@pytest.mark.parametrize("affine", [LPS, _oblique(20), _oblique(30)], ids=["straight", "20 degrees", "30 degrees"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_volumes_and_voxels_add_up_to_those_of_the_mask(affine, order):
    mask = _many(affine=affine)
    lesions = lesion_table(_scan(np.asarray(mask.voxels, order=order), affine))
    assert len(lesions) > 50
    assert sum(each.voxels for each in lesions) == mask.voxels.sum()
    whole = mask.voxels.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000
    assert math.fsum(each.volume_ml for each in lesions) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("order", ["C", "F"])
def test_lesions_are_the_components_that_scipy_finds(order):
    mask = _many(1)
    labels, count = ndimage.label(mask.voxels)
    sizes = sorted(np.bincount(labels.ravel())[1:], reverse=True)
    lesions = lesion_table(_scan(np.asarray(mask.voxels, order=order)))
    assert [each.voxels for each in lesions] == sizes
    assert [each.lesion for each in lesions] == list(range(1, count + 1))
    centers = ndimage.center_of_mass(mask.voxels, labels, range(1, count + 1))
    expected = nib.affines.apply_affine(LPS, np.array(centers))
    found = np.array([each[3:6] for each in lesions])
    np.testing.assert_allclose(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)], atol=1e-6)


def test_lesions_are_counted_as_in_the_scores(monkeypatch):
    monkeypatch.setattr("planar3d.evaluation.lesions.MINIMUM_MM3", 0)
    mask = _many(2)
    scores = lesion_scores(mask.voxels, mask.voxels, mask.spacing)
    assert len(lesion_table(mask)) == scores["reference_lesions"]


def test_voxels_that_share_an_edge_or_lie_at_opposite_borders_are_lesions_of_their_own():
    assert len(lesion_table(_mask(np.s_[2, 2, 2], np.s_[3, 3, 2]))) == 2
    assert len(lesion_table(_mask(np.s_[2, 3, 15], np.s_[2, 4, 0]))) == 2
    assert len(lesion_table(_mask(np.s_[2, 2, 2], np.s_[3, 2, 2]))) == 1


def test_the_place_of_a_lesion_lies_in_it_and_is_the_same_from_every_storage():
    ring = _mask(np.s_[2:7, 2:7, 3], np.s_[10, 10, 10]).voxels
    ring[3:6, 3:6, 3] = 0
    expected = lesion_places(_scan(ring, _oblique(17)))
    for turn in TURNS:
        mask = _scan(*turned(ring, _oblique(17), turn))
        places = lesion_places(mask)
        np.testing.assert_allclose(places, expected, atol=1e-4)
        voxels = np.rint(nib.affines.apply_affine(np.linalg.inv(mask.affine), places)).astype(int)
        assert lesion_labels(mask)[tuple(voxels.T)].tolist() == [1, 2]
    assert len(lesion_places(_scan(0 * ring))) == 0


@pytest.mark.parametrize(("width", "dtype"), [(400, np.uint16), (450, np.int32)])
def test_as_many_lesions_as_there_are_have_numbers_of_their_own(width, dtype):
    checkerboard = np.indices((300, width, 1)).sum(0) % 2
    labels = lesion_labels(_scan(checkerboard.astype(np.uint8)))
    assert labels.dtype == dtype and labels.max() == checkerboard.sum() == len(np.unique(labels)) - 1


def test_the_table_is_the_same_from_every_storage():
    mask = _many(3, shape=(14, 12, 16), affine=_oblique(17))
    expected = lesion_table(mask)
    assert len({each.voxels for each in expected}) < len(expected), "sizes must tie for their order to be tested"
    for turn in TURNS:
        found = lesion_table(_scan(*turned(mask.voxels, mask.affine, turn)))
        for here, there in zip(found, expected, strict=True):
            assert here[:3] == pytest.approx(there[:3], rel=1e-5)
            assert here[3:6] == pytest.approx(there[3:6], abs=1e-4)
            assert here.extent_mm == pytest.approx(there.extent_mm, abs=1e-4)


def test_an_oblique_voxel_s_extent_is_that_of_the_box_around_it():
    affine = _oblique(25)
    (lesion,) = lesion_table(_mask(np.s_[3, 4, 5], affine=affine))
    corners = np.array(list(itertools.product((-0.5, 0.5), repeat=3))) @ affine[:3, :3].T
    assert lesion.extent_mm == pytest.approx(np.ptp(corners, axis=0), rel=1e-5)


def test_the_mean_probability_is_over_the_lesion_s_own_voxels():
    mask = _mask(np.s_[2:4, 2, 2], np.s_[8, 8, 8:12])
    probabilities = np.full(mask.voxels.shape, 0.1, np.float32)
    probabilities[2, 2, 2], probabilities[3, 2, 2], probabilities[8, 8, 8:12] = 0.5, 0.7, 0.9
    large, small = lesion_table(mask, _scan(probabilities))
    assert large.mean_probability == pytest.approx(0.9) and small.mean_probability == pytest.approx(0.6)
    with pytest.raises(ScanError, match="shape"):
        lesion_table(mask, _scan(probabilities[1:]))


def test_the_file_has_a_line_a_lesion_and_a_header_alone_for_none(tmp_path):
    lesions = lesion_table(_many())
    write_lesions(tmp_path / "lesions.csv", {"lesion": lesions})
    with open(tmp_path / "lesions.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(lesions)
    for row, lesion in zip(rows, lesions, strict=True):
        assert (int(row["lesion"]), int(row["voxels"])) == (lesion.lesion, lesion.voxels)
        assert float(row["volume_ml"]) == pytest.approx(lesion.volume_ml, abs=1e-6)
        assert float(row["z_mm"]) == pytest.approx(lesion.z_mm, abs=0.0051)
        assert float(row["superior_inferior_mm"]) == pytest.approx(lesion.extent_mm[2], abs=0.0051)
        assert row["mean_probability"] == ""
    write_lesions(tmp_path / "none.csv", {"lesion": lesion_table(_mask())})
    assert (tmp_path / "none.csv").read_text() == ",".join(rows[0]) + "\n"


def _tumours():
    """Two tumours with edema, of which one has a necrotic core and enhances at both of its ends."""
    labels = _mask(np.s_[1:4, 2:10, 3:5], np.s_[7, 7, 7]).voxels * np.uint8(2)
    labels[2, 4:8, 3], labels[2, [4, 7], 3] = 1, 4
    return _scan(labels)


def test_every_target_has_a_table_of_its_own(tmp_path):
    labels = _tumours()
    probabilities = _scan(np.where(labels.voxels > 0, np.float32(0.75), np.float32(0)))
    for targets in (Regions(), Classes(("NCR=1", "ED=2", "ET=4"), regions=("WT=1+2+4", "TC=1+4", "ET=4"))):
        found = lesions_by_target(labels, targets, probabilities)
        assert {name: [each.voxels for each in its] for name, its in found.items()} == {
            "WT": [48, 1],
            "TC": [4],
            "ET": [1, 1],
        }
        # What is known is the probability of any target, which says nothing of the core.
        assert [each.mean_probability for its in found.values() for each in its] == [0.75, 0.75, None, None, None]
    write_lesions(tmp_path / "lesions.csv", found)
    with open(tmp_path / "lesions.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["target"], row["lesion"]) for row in rows] == [
        ("WT", "1"),
        ("WT", "2"),
        ("TC", "1"),
        ("ET", "1"),
        ("ET", "2"),
    ]


def test_lesions_alone_have_no_column_for_their_target(tmp_path):
    mask = _many(4)
    found = lesions_by_target(mask, Binary())
    assert found == {"lesion": lesion_table(mask)}
    write_lesions(tmp_path / "lesions.csv", found)
    assert (tmp_path / "lesions.csv").read_text().startswith("lesion,volume_ml,")
