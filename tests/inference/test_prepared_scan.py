"""Interleaved stacks are predicted one by one, every slice once, and come back as a mask of the native grid."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from planar3d.inference.prepared_scan import native_mask, predict_prepared, prepare
from planar3d.recipes import MODERN, PAPER
from planar3d.scans.targets import threshold
from planar3d.scans.volume import Scan

SMALL = MODERN.changed(size=32)


class _Grey:
    """Gives grey levels as probabilities, and remembers what it was given."""

    description = "grey levels"

    def __init__(self):
        self.given = []

    def __call__(self, voxels, progress=None):
        self.given.append(voxels)
        for done in (1, 2):
            if progress:
                progress(done, 2)
        return voxels[..., 0].astype(np.float32) / 255


def _scan(slices, mm):
    rng = np.random.default_rng(0)
    voxels = rng.integers(200, 2000, (24, 26, slices)).astype(np.float32)
    return Scan(voxels, nib.Nifti1Image(voxels, np.diag([-0.9, -0.9, mm, 1])).header)


@pytest.mark.parametrize(("slices", "mm", "stacks"), [(20, 6.5, 1), (60, 1.0, 6), (45, 3.0, 2), (9, 6.5, 1)])
def test_every_slice_is_predicted_once_among_slices_of_its_stack(slices, mm, stacks):
    prepared, predict, seen = prepare(_scan(slices, mm), SMALL), _Grey(), []
    probabilities = predict_prepared(predict, prepared, SMALL, lambda done, of: seen.append((done, of)))
    np.testing.assert_array_equal(probabilities, prepared.voxels[..., 0].astype(np.float32) / 255)
    assert len(predict.given) == stacks
    for number, voxels in enumerate(predict.given):
        np.testing.assert_array_equal(voxels, prepared.voxels[number::stacks])
    assert seen == [(done, 2 * stacks) for done in range(1, 2 * stacks + 1)]


def test_slices_beyond_the_head_are_not_predicted_and_hold_no_lesion():
    scan = _scan(30, 6.5)
    scan.voxels[:, :, :4] = scan.voxels[:, :, 24:] = 0
    prepared, predict = prepare(scan, SMALL), _Grey()
    prepared.voxels[29, 0, 0] = 19  # noise
    probabilities = predict_prepared(predict, prepared, SMALL)
    (given,) = predict.given
    np.testing.assert_array_equal(given, prepared.voxels[4:24])
    np.testing.assert_array_equal(probabilities[4:24], given[..., 0].astype(np.float32) / 255)
    assert not probabilities[:4].any() and not probabilities[24:].any()


def test_around_the_head_s_box_planes_are_not_predicted_and_hold_no_lesion():
    prepared, predict, recipe = prepare(_scan(20, 6.5), MODERN.changed(size=96)), _Grey(), MODERN.changed(size=96)
    probabilities = predict_prepared(predict, prepared, recipe)
    rows, cols = recipe.tiles.part(prepared.voxels)
    (given,) = predict.given
    assert given.shape == (20, 64, 32, 1)
    np.testing.assert_array_equal(given, prepared.voxels[:, rows, cols])
    np.testing.assert_array_equal(probabilities[:, rows, cols], given[..., 0].astype(np.float32) / 255)
    assert probabilities.sum() == pytest.approx(probabilities[:, rows, cols].sum())
    predict_prepared(predict, prepared, recipe.changed(planes="whole"))
    np.testing.assert_array_equal(predict.given[1], prepared.voxels)


def test_a_cube_is_predicted_as_it_is():
    prepared, predict = prepare(_scan(20, 6.5), PAPER.changed(size=32)), _Grey()
    predict_prepared(predict, prepared, PAPER.changed(size=32))
    (given,) = predict.given
    np.testing.assert_array_equal(given, prepared.voxels)


class _Uneven(_Grey):
    """Gives grey levels that fade along each axis of what it was given."""

    def __call__(self, voxels, progress=None):
        found = super().__call__(voxels, progress)
        for axis, length in enumerate(found.shape):
            fading = np.linspace(1, 0.5, length, dtype=np.float32)
            found *= np.moveaxis(fading[:, None, None], 0, axis)
        return found


@pytest.mark.parametrize("recipe", [SMALL, MODERN.changed(size=96), PAPER.changed(size=32)])
def test_the_mirror_image_s_prediction_is_mirrored_back_and_averaged(recipe):
    prepared, seen = prepare(_scan(60, 1.0), recipe), []
    across = int(np.argmax(np.abs(prepared.geometry.axes[0])))  # in which the world's x changes
    rows, cols = recipe.tiles.part(prepared.voxels)
    turned = replace(prepared, voxels=prepared.voxels.copy())
    turned.voxels[:, rows, cols] = np.flip(turned.voxels[:, rows, cols], across)
    own, mirrored = (predict_prepared(_Uneven(), one, recipe) for one in (prepared, turned))
    mirrored[:, rows, cols] = np.flip(mirrored[:, rows, cols], across)
    assert not np.allclose(own, mirrored)
    averaging = recipe.changed(mirrored=True)
    found = predict_prepared(_Uneven(), prepared, averaging, lambda done, of: seen.append(done / of))
    np.testing.assert_allclose(found, (own + mirrored) / 2, rtol=1e-6)
    assert seen == sorted(set(seen)) and seen[-1] == 1


@pytest.mark.parametrize(
    "recipe",
    [
        SMALL.changed(pixel_mm=1.3, threshold=100.0, smallest_lesion_mm3=0),
        PAPER.changed(size=32, threshold=100.0),
    ],
)
def test_the_mask_is_of_the_native_grid_and_threshold(recipe):
    scan = _scan(20, 6.5)
    prepared = prepare(scan, recipe)
    probabilities = predict_prepared(_Grey(), prepared, recipe)
    mask = native_mask(probabilities, prepared, recipe)
    assert mask.voxels.shape == scan.voxels.shape and mask.voxels.dtype == np.uint8
    np.testing.assert_array_equal(mask.affine, scan.affine)
    before, after = (
        prepared.restore(threshold(probabilities, recipe.threshold)).voxels,
        threshold(prepared.restore(probabilities).voxels, recipe.threshold),
    )
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(mask.voxels, before if recipe.preparation.name == "sagittal-cube" else after)
