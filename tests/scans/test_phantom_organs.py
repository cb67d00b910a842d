"""Abdomens and hearts of the phantom have their organs in place and in the size that the header says."""

import nibabel as nib
import numpy as np
import pytest

from planar3d.scans.phantom_organs import ATRIUM, CAVITY, MYOCARDIUM, make_abdomen_case, make_heart_case
from planar3d.scans.phantom_scanner import CENTERS
from planar3d.scans.slice_folders import ORGANS

CT, MR = CENTERS[:2]


def _middle_and_ml(scan, value):
    places = nib.affines.apply_affine(scan.affine, np.argwhere(scan.voxels == value))
    return places.mean(axis=0), len(places) * scan.voxel_mm3 / 1000


def test_organs_of_mr_lie_in_their_side_and_have_volumes_of_people():
    for seed in range(3):
        scans = make_abdomen_case(MR, 1.0, 5, np.random.default_rng(seed))
        labels = next(scan for name, scan in scans.items() if name.endswith("Ground"))
        found = {organ: _middle_and_ml(labels, value) for organ, value in ORGANS.items()}
        middles = {organ: middle for organ, (middle, _) in found.items()}  # mm right, anterior, superior
        assert middles["liver"][0] > 30 and middles["right kidney"][0] > 30
        assert middles["spleen"][0] < -60 and middles["left kidney"][0] < -30
        assert max(middles["left kidney"][1], middles["right kidney"][1]) < middles["liver"][1]  # kidneys lie behind
        assert max(middles["left kidney"][2], middles["right kidney"][2]) < min(
            middles["liver"][2], middles["spleen"][2]
        )
        for organ, (low, high) in {"liver": (1000, 2400), "spleen": (120, 320), "left kidney": (80, 220)}.items():
            assert low < found[organ][1] < high


def test_a_reduced_abdomen_shows_the_same_person_in_the_same_view():
    for center, name in ((CT, "Ground"), (MR, "T2SPIR/Ground")):
        fine, coarse = (
            make_abdomen_case(center, 1.0, reduction, np.random.default_rng(1))[name] for reduction in (4, 9)
        )
        value = fine.voxels.max()
        (middle, ml), (other, others) = (_middle_and_ml(scan, value) for scan in (fine, coarse))
        np.testing.assert_allclose(middle, other, atol=4)
        assert ml == pytest.approx(others, rel=0.12)
        for scan in (fine, coarse):
            np.testing.assert_allclose(
                np.multiply(scan.voxels.shape, scan.spacing), (384, 384, 240) if center is CT else (400, 400, 234)
            )
            assert nib.aff2axcodes(scan.affine) == ("L", "P", "S")
            np.testing.assert_allclose(
                scan.affine @ [*(np.array(scan.voxels.shape) - 1) / 2, 1], [0, 0, 0, 1], atol=1e-4
            )


def test_ct_is_in_hounsfield_units_with_fat_around_the_organs_and_air_around_the_body():
    scans = make_abdomen_case(CT, 1.0, 5, np.random.default_rng(0))
    image, labels = scans["DICOM_anon"].voxels, scans["Ground"].voxels
    assert np.unique(labels).tolist() == [0, 255] and image.dtype == np.int16
    assert np.median(image[labels > 0]) == pytest.approx(110, abs=4)
    row = image[:, image.shape[1] // 2, image.shape[2] // 2]
    assert np.median(row[:4]) == pytest.approx(-1000, abs=20)
    first = np.argmax(row > -500)
    assert -160 < np.median(row[first + 1 : first + 4]) < -40  # fat below the skin
    width = np.count_nonzero(row > -500) * scans["Ground"].spacing[0]
    assert width == pytest.approx(340, abs=12)


def test_a_heart_lies_below_the_probe_with_its_wall_around_the_cavity_and_contracts():
    for seed in range(3):
        fine, coarse = (make_heart_case(CT, 1.0, reduction, np.random.default_rng(seed)) for reduction in (4, 8))
        for view in ("2CH", "4CH"):
            areas = {}
            for instant in ("ED", "ES"):
                scan = fine[f"{view}_{instant}_gt"]
                labels, spacing = scan.voxels[..., 0], scan.spacing
                np.testing.assert_allclose(np.multiply(labels.shape, spacing[:2]), (184.8, 169.4), rtol=1e-4)
                image = fine[f"{view}_{instant}"].voxels[..., 0]
                assert not labels[image == 0].any() and 0.3 < (image > 0).mean() < 0.9
                np.testing.assert_array_equal(image > 0, image[::-1] > 0)  # a sector below the probe
                atrium = np.count_nonzero(labels == ATRIUM) * spacing[0] * spacing[1]
                assert atrium == pytest.approx(np.pi * 20 * 22, rel=0.03)  # mm², an ellipse
                areas[instant] = np.count_nonzero(labels == CAVITY) * spacing[0] * spacing[1]
                small = coarse[f"{view}_{instant}_gt"]
                theirs = np.count_nonzero(small.voxels == CAVITY) * small.spacing[0] * small.spacing[1]
                assert theirs == pytest.approx(areas[instant], rel=0.06)
                depth = {name: np.argwhere(labels == name)[:, 1].mean() for name in (CAVITY, MYOCARDIUM, ATRIUM)}
                assert depth[CAVITY] < depth[ATRIUM] and depth[MYOCARDIUM] < depth[ATRIUM]
                apex = np.argwhere(labels == CAVITY)[:, 1].min()
                ring = np.argwhere(labels == MYOCARDIUM)[:, 1].min()
                assert 7 < (apex - ring) * spacing[1] < 16  # mm of wall at the apex
                level = [image[labels == name].mean() for name in (CAVITY, MYOCARDIUM, ATRIUM)]
                assert level[1] > 4 * max(level[0], level[2])
            assert 0.5 < areas["ES"] / areas["ED"] < 0.85
            wide = [fine[f"{view}_{instant}_gt"].voxels for instant in ("ED", "ES")]
            walls = [np.count_nonzero(labels == MYOCARDIUM) / np.count_nonzero(labels == CAVITY) for labels in wide]
            assert walls[1] > 1.3 * walls[0]  # thicker
