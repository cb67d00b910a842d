"""Lesions lie in the regions in which they were put, whatever the storage; where nothing is known, nothing is said."""

from collections import Counter

import nibabel as nib
import numpy as np
import pytest
from stored_scans import scan_along

from planar3d.evaluation.lesion_regions import UNKNOWN, name_regions
from planar3d.evaluation.lesion_table import lesion_table
from planar3d.scans.volume import Scan, read_mask, read_scan

AFFINE = nib.affines.from_matvec(np.diag([2.0, 2.0, 4.0]), (-100, -110, -90))
SHAPE = (101, 111, 45)
X, Y, Z = (np.indices(SHAPE).reshape(3, -1).T @ AFFINE[:3, :3].T + AFFINE[:3, 3]).T.reshape(3, *SHAPE)


def _ball(x, y, z, *radii):
    a, b, c = radii * 3 if len(radii) == 1 else radii
    return ((X - x) / a) ** 2 + ((Y - y) / b) ** 2 + ((Z - z) / c) ** 2 < 1


LESIONS = {  # the largest first, as in the table
    "periventricular": _ball(24, 10, 10, 8),
    "juxtacortical": _ball(-56, 10, 20, 7),
    "deep": _ball(42, -10, 20, 6),
    "infratentorial": _ball(0, -48, -38, 5),
}
MASK = np.any(list(LESIONS.values()), axis=0).astype(np.uint8)


def _head(fluid=True):
    """Scalp, skull and brain around the origin, with two ventricles 3 to 17 mm aside of the middle."""
    voxels = np.random.default_rng(0).normal(5, 2, SHAPE)
    voxels[_ball(0, 0, 0, 78, 98, 86)] = 150
    voxels[_ball(0, 0, 0, 73, 93, 81)] = 15
    voxels[_ball(0, 0, 0, 66, 86, 74)] = 100
    if fluid:
        voxels[_ball(-10, 0, 10, 7, 30, 14) | _ball(10, 0, 10, 7, 30, 14)] = 10
    voxels[MASK > 0] = 180
    return voxels.astype(np.float32)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "ASR"])
def test_lesions_are_in_the_regions_in_which_they_were_put(axes):
    scan, mask = (scan_along(axes, voxels, AFFINE) for voxels in (_head(), MASK))
    named = name_regions(lesion_table(mask), scan, mask)
    assert [lesion.region for lesion in named] == list(LESIONS)
    assert [lesion.region_sure for lesion in named[1:3]] == [True, True]
    assert [lesion._replace(region=None, region_sure=None) for lesion in named] == lesion_table(mask)


def test_ventricles_of_a_model_are_taken_and_without_any_what_depends_on_them_is_unknown():
    scan, mask = (scan_along("RAS", voxels, AFFINE) for voxels in (_head(fluid=False), MASK))
    regions = [lesion.region for lesion in name_regions(lesion_table(mask), scan, mask)]
    assert regions == [UNKNOWN, "juxtacortical", UNKNOWN, "infratentorial"]
    given = _ball(42, -10, 12, 10)
    named = name_regions(lesion_table(mask), scan, mask, given)
    assert [lesion.region for lesion in named] == ["deep", "juxtacortical", "periventricular", "infratentorial"]


def test_a_region_is_certain_where_a_shift_of_the_limit_by_2_mm_does_not_change_it():
    at_ventricles, deep = "periventricular", "deep"
    expected = {  # by voxels of 2 mm to the right and to the front of a ventricle's voxel
        (0, 0): (at_ventricles, True),
        (1, 0): (at_ventricles, False),
        (1, 1): (at_ventricles, False),
        (2, 0): (deep, False),
        (2, 1): (deep, False),
        (2, 2): (deep, True),  # 5.7 mm
    }
    ventricles, marked = np.zeros(SHAPE, bool), np.zeros(SHAPE, np.uint8)
    for number, (right, front) in enumerate(expected):
        ventricles[60, 55, 32 - 2 * number] = marked[60 + right, 55 + front, 32 - 2 * number] = True
    scan, mask = (scan_along("RAS", voxels, AFFINE) for voxels in (_head(), marked))
    named = name_regions(lesion_table(mask), scan, mask, ventricles)
    assert [(lesion.region, lesion.region_sure) for lesion in named] == list(expected.values())


def test_of_what_is_no_head_nothing_is_said():
    for voxels in (np.where(_ball(0, 0, 0, 30), 100, 0).astype(np.float32), np.zeros(SHAPE, np.float32)):
        scan, mask = (scan_along("RAS", each, AFFINE) for each in (voxels, MASK))
        named = name_regions(lesion_table(mask), scan, mask)
        assert {(lesion.region, lesion.region_sure) for lesion in named} == {(UNKNOWN, None)}
    assert name_regions([], scan, Scan(np.zeros_like(mask.voxels), mask.header)) == []


@pytest.mark.real
def test_what_is_periventricular_by_found_ventricles_mostly_is_by_the_experts(real_data):
    agreed: Counter[bool] = Counter()
    for name in ("sub-107130",):
        scan = read_scan(real_data / f"data/ms_flair/{name}/anat/{name}_FLAIR.nii.gz")
        place = real_data / "data/ms_flair/derivatives/manual" / name / "anat"
        mask = read_mask(place / f"{name}_label-lesion_mask.nii.gz", scan)
        ventricles = read_mask(real_data / f"data/ms_flair_anatomy/{name}/{name}_label-ventricle_mask.nii.gz", scan)
        lesions = lesion_table(mask)
        pairs = zip(
            name_regions(lesions, scan, mask), name_regions(lesions, scan, mask, ventricles.voxels > 0), strict=True
        )
        agreed.update(
            all(x.region == "periventricular" for x in pair) or all(x.region != "periventricular" for x in pair)
            for pair in pairs
        )
    assert agreed[True] > 0.85 * agreed.total()
