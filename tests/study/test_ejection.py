"""Volumes by Simpson's biplane rule are those of solids that are known, and of the phantom's hearts."""

import math

import numpy as np
import pytest

from planar3d.scans.phantom_organs import make_heart_case
from planar3d.scans.phantom_scanner import CENTERS
from planar3d.study.ejection import agreement, biplane_volume, ejection_fraction, left_ventricle

SPACING = (0.6, 0.3)


def half_ellipse(width, length, angle=0.0, size=(260, 420)):
    """Cavity and myocardium, the valve below the middle; pixels of SPACING."""
    x, y = (np.arange(n) * mm for n, mm in zip(size, SPACING, strict=True))
    across, along = x[:, None] - x.mean(), 100 - y[None]
    turned = across * np.cos(angle) - along * np.sin(angle), across * np.sin(angle) + along * np.cos(angle)
    reach = (turned[0] / width) ** 2 + (turned[1] / length) ** 2
    outer = (turned[0] / (width + 8)) ** 2 + (turned[1] / (length + 8)) ** 2
    return np.where(turned[1] < 0, 0, np.where(reach < 1, 1, np.where(outer < 1, 2, 0))).astype(np.uint8)


@pytest.mark.parametrize("angle", [0.0, 0.3, -0.5])
def test_half_an_ellipsoid_has_its_volume_however_it_lies(angle):
    two, four = half_ellipse(22, 80, angle), half_ellipse(26, 80, -angle)
    ventricles = [left_ventricle(labels[..., None], SPACING) for labels in (two, four)]
    assert [ventricle.length for ventricle in ventricles] == pytest.approx([80, 80], rel=0.02)
    widths = 2 * 22 * np.sqrt(1 - ((np.arange(20) + 0.5) / 20) ** 2)
    np.testing.assert_allclose(ventricles[0].widths[:-2], widths[:-2], rtol=0.06)
    assert biplane_volume(*ventricles) == pytest.approx(2 / 3 * np.pi * 22 * 26 * 80 / 1000, rel=0.02)


def test_the_longer_axis_is_that_of_both_views():
    two, four = (left_ventricle(half_ellipse(20, length), SPACING) for length in (60, 80))
    disks = np.pi / 4 * (two.widths * four.widths).sum() * max(two.length, four.length) / 20 / 1000
    assert biplane_volume(two, four) == biplane_volume(four, two) == pytest.approx(disks)


def test_the_phantom_s_hearts_eject_what_their_files_say():
    scans = make_heart_case(CENTERS[0], 1.0, 2, np.random.default_rng(0))
    volumes = []
    for instant in ("ED", "ES"):
        views = [scans[f"{view}_{instant}_gt"] for view in ("2CH", "4CH")]
        found = biplane_volume(*(left_ventricle(scan.voxels, scan.spacing) for scan in views))
        told = float(views[0].header["descrip"].item())
        assert found == pytest.approx(told, rel=0.03)
        volumes.append((found, told))
    (ed, told_ed), (es, told_es) = volumes
    assert ejection_fraction(ed, es) == pytest.approx(ejection_fraction(told_ed, told_es), abs=1.5)


def test_a_piece_of_cavity_elsewhere_in_the_image_is_not_the_apex():
    alone = half_ellipse(22, 80)
    scattered = alone.copy()
    scattered[5:8, 5:8] = 1
    one, other = (left_ventricle(labels, SPACING) for labels in (alone, scattered))
    assert one.length == other.length and biplane_volume(one, one) == biplane_volume(other, other)


def test_the_axis_ends_at_the_border_of_a_pixel_and_a_valve_may_lie_at_the_border_of_the_image():
    labels = np.full((15, 40), 2, np.uint8)
    labels[4:11, :30] = 1
    found = left_ventricle(labels, SPACING)
    eighth = 3 / 8  # from the center of a pixel to that of its last quarter
    assert found.length == pytest.approx(math.hypot((3 + eighth) * SPACING[0], (29 + eighth) * SPACING[1]))


def test_what_cannot_be_measured_is_undefined():
    cavity_alone = np.where(half_ellipse(20, 60) == 1, 1, 0)
    for labels in (np.zeros((9, 9), np.uint8), cavity_alone, np.full((9, 9), 2)):
        assert math.isnan(biplane_volume(left_ventricle(labels, SPACING), left_ventricle(labels, SPACING)))
    assert math.isnan(ejection_fraction(0, 0)) and ejection_fraction(120, 48) == 60


def test_agreement_is_that_of_textbooks_over_the_hearts_that_both_measured():
    reference, found = [50, 60, math.nan, 70, 40], [52, 58, 60, 75, math.nan]
    one, other = np.array([50, 60, 70.0]), np.array([52, 58, 75.0])
    agreed = agreement(reference, found)
    covariance = ((one - one.mean()) * (other - other.mean())).sum()
    expected = covariance / math.sqrt(((one - one.mean()) ** 2).sum() * ((other - other.mean()) ** 2).sum())
    assert agreed["correlation"] == pytest.approx(expected)
    assert agreed["bias"] == pytest.approx(5 / 3) and agreed["mean absolute difference"] == pytest.approx(3)
    assert agreed["standard deviation"] == pytest.approx(math.sqrt(((other - one - 5 / 3) ** 2).sum() / 2))
    assert all(map(math.isnan, agreement([], []).values())) and math.isnan(agreement([1, 1], [2, 3])["correlation"])
    with np.errstate(all="raise"):
        assert math.isnan(agreement([2, 3], [1, 1])["correlation"])
