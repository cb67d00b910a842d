"""Boxes of the brain and of the middle: standardized image by image, and the way back is exact."""

import nibabel as nib
import numpy as np
import pytest
from stored_scans import turned

from planar3d.errors import ScanError
from planar3d.inference.prepared_scan import prepare
from planar3d.recipes.wacker2019 import WACKER2019_3D
from planar3d.scans.case import read_images
from planar3d.scans.preparation import CenterCrop, NonZeroBox
from planar3d.scans.volume import Scan

AFFINES = [np.diag([-1.0, -1.0, 1.0, 1.0]), np.array([[0, 0, 2.0, 5], [-1, 0, 0, 9], [0, 1.5, 0, -4], [0, 0, 0, 1]])]
BOX = NonZeroBox(images=("t1", "t2"))


def _scan(voxels, affine=AFFINES[0], path=None):
    return Scan(voxels, nib.Nifti1Image(voxels, affine).header, path)


def _brain(seed=0, shape=(12, 14, 10)):
    rng = np.random.default_rng(seed)
    volumes = [np.zeros(shape, np.float32) for _ in range(2)]
    volumes[0][2:8, 3:12, 1:7] = rng.integers(10, 900, (6, 9, 6))
    volumes[1][3:9, 3:11, 2:9] = rng.integers(-50, 40, (6, 8, 7))  # values of 0 may be in a brain
    return volumes


@pytest.mark.parametrize("affine", AFFINES)
def test_the_box_is_that_of_the_union_and_each_image_has_mean_0_and_deviation_1_within(affine):
    volumes = _brain()
    prepared = BOX.prepare({name: _scan(v, affine) for name, v in zip(BOX.images, volumes, strict=True)})
    brain = (volumes[0] != 0) | (volumes[1] != 0)
    assert sorted(prepared.voxels.shape[:3]) == sorted((7, 9, 8)) and prepared.voxels.shape[3] == 2
    for channel, volume in enumerate(volumes):
        expected = np.zeros(volume.shape)
        expected[brain] = (volume[brain] - volume[brain].mean()) / (volume[brain].std() + 1e-8)
        back = prepared.restore(prepared.voxels[..., channel])
        np.testing.assert_allclose(back.voxels, expected, atol=1e-6)
        np.testing.assert_array_equal(back.affine, affine)


@pytest.mark.parametrize("affine", AFFINES)
def test_labels_go_into_the_box_and_back_unchanged(affine):
    volumes = _brain()
    scans = {name: _scan(v, affine) for name, v in zip(BOX.images, volumes, strict=True)}
    prepared = BOX.prepare(scans)
    labels = np.zeros(volumes[0].shape, np.uint8)
    labels[3:6, 4:9, 2:6] = np.random.default_rng(1).integers(0, 5, (3, 5, 4))
    aligned = prepared.align(_scan(labels, affine))
    assert aligned.shape == prepared.voxels.shape[:3] and set(np.unique(aligned)) == set(np.unique(labels))
    np.testing.assert_array_equal(prepared.restore(aligned).voxels, labels)
    # Probabilities of classes come back as labels, by the targets.
    targets = WACKER2019_3D.targets
    found = BOX.native(targets.encode(aligned).astype(np.float32), prepared, targets.decode)
    np.testing.assert_array_equal(found.voxels, np.where(labels == 3, 0, labels))


@pytest.mark.parametrize("affine", AFFINES)
@pytest.mark.parametrize("crop", [(8, 10, 6), (12, 9, 16)])
def test_a_crop_is_the_middle_of_the_scan_with_zeros_where_the_scan_is_smaller(affine, crop):
    scan = _scan(_brain()[0], affine)
    prepared = CenterCrop(images=("t1",), crop=crop).prepare({"t1": scan})
    assert prepared.voxels.shape == (*crop, 1)
    places = prepared.geometry.turned(np.arange(scan.voxels.size).reshape(scan.voxels.shape))
    values = prepared.geometry.turned(scan.voxels)
    inside = values[values != 0]
    for axis, (have, wanted) in enumerate(zip(places.shape, crop, strict=True)):
        before, behind = max(-((have - wanted) // 2), 0), max(wanted - have + (have - wanted) // 2, 0)
        first = max((have - wanted) // 2, 0)
        values = values.take(range(first, first + min(have, wanted)), axis)
        values = np.pad(values, [(before, behind) if a == axis else (0, 0) for a in range(3)])
    expected = np.where(values, (values - inside.mean()) / inside.std(), 0)
    np.testing.assert_allclose(prepared.voxels[..., 0], expected, atol=1e-5)


def test_an_image_is_standardized_within_its_own_voxels_where_that_is_asked_for():
    volumes = _brain()
    box = NonZeroBox(images=BOX.images, within="image")
    prepared = box.prepare({name: _scan(v) for name, v in zip(BOX.images, volumes, strict=True)})
    for channel, volume in enumerate(volumes):
        own = volume != 0
        expected = np.where(own, (volume - volume[own].mean()) / volume[own].std(), 0)
        np.testing.assert_allclose(prepared.restore(prepared.voxels[..., channel]).voxels, expected, atol=1e-5)


def test_the_slices_run_as_the_card_says():
    z, _, x = np.meshgrid(*map(np.arange, (10, 14, 12)), indexing="ij")
    stored = {"t1": x.T + 1.0, "t2": z.T + 1.0}  # (i, j, k) of LPS: i runs to the left, k to superior
    prepared = BOX.prepare({name: _scan(v.astype(np.float32)) for name, v in stored.items()})
    assert (
        BOX.describe()["slices"] == "axial, from inferior to superior; rows from anterior to posterior; cols from "
        "right to left"
    )
    assert (np.diff(prepared.voxels[..., 0], axis=2) > 0).all() and (np.diff(prepared.voxels[..., 1], axis=0) > 0).all()


def test_half_precision_is_stored_where_it_is_asked_for():
    scans = {name: _scan(v) for name, v in zip(BOX.images, _brain(), strict=True)}
    half = NonZeroBox(images=BOX.images, stored="float16").prepare(scans)
    assert half.voxels.dtype == np.float16 and BOX.as_input(half.voxels).dtype == np.float32
    np.testing.assert_allclose(half.voxels, BOX.prepare(scans).voxels, atol=2e-3)


def test_images_that_cannot_be_standardized_are_refused():
    empty = np.zeros((4, 4, 4), np.float32)
    with pytest.raises(ScanError, match="is zero everywhere, and so is every other image"):
        BOX.prepare({"t1": _scan(empty), "t2": _scan(empty)})
    flat = empty.copy()
    flat[1:3] = 7
    other = flat.copy()
    other[1, 1, 1] = 3
    with pytest.raises(ScanError, match="the same value everywhere in the brain"):
        BOX.prepare({"t1": _scan(other), "t2": _scan(flat)})


def test_missing_images_and_other_grids_are_named(tmp_path):
    scans = dict(zip(("t1", "t2"), map(_scan, _brain()), strict=True))
    with pytest.raises(ScanError, match=r"t1ce, t2, but flair, t1ce are missing; given: t1, t2"):
        prepare(scans, WACKER2019_3D)
    paths = {name: tmp_path / f"{name}.nii.gz" for name in scans}
    for name, scan in scans.items():
        scan.save(paths[name])
    nib.save(nib.as_closest_canonical(nib.load(paths["t2"])), paths["t2"])
    read = read_images(paths)
    np.testing.assert_array_equal(read["t2"].voxels, scans["t2"].voxels)  # stored otherwise, laid onto the first
    _scan(np.ones((5, 5, 5), np.float32) * np.arange(5)).save(paths["t2"])
    with pytest.raises(ScanError, match="on one grid"):
        read_images(paths)


def test_images_stored_along_other_axes_are_laid_onto_the_first_and_other_grids_refused():
    names = WACKER2019_3D.preparation.images
    scans = dict(zip(names, map(_scan, [*_brain(), _brain(1)[0]]), strict=True))
    expected = prepare(scans, WACKER2019_3D).voxels
    last = scans[names[-1]]
    flipped = scans | {names[-1]: _scan(*turned(last.voxels, last.affine, np.array([[1, 1], [0, -1], [2, 1]])))}
    np.testing.assert_array_equal(prepare(flipped, WACKER2019_3D).voxels, expected)
    with pytest.raises(ScanError, match=r"The image does not match another .* Register and resample it"):
        prepare(scans | {names[-1]: _scan(last.voxels, 2 * AFFINES[0])}, WACKER2019_3D)
