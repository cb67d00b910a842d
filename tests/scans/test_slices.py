"""The grid of axial slices: as acquired, of a fixed pixel, whatever the storage and whatever surrounds the head."""

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations
from scipy import ndimage
from stored_scans import TURNS, turned

from planar3d.inference.prepared_scan import prepare
from planar3d.recipes import MODERN
from planar3d.scans.intensities import unstandardized
from planar3d.scans.preparation.prepared import Prepared, load_prepared, save_prepared
from planar3d.scans.volume import Scan

SMALL = MODERN.changed(size=48)
LPS = np.diag([-0.9, -0.9, 6.5, 1.0])


def _scan(voxels, affine=LPS):
    return Scan(voxels, nib.Nifti1Image(voxels, affine).header)


def _head(shape=(40, 44, 20), seed=1):
    """A smooth head with air around it; left, front and top are brighter."""
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    head = (places**2).sum(axis=0) < 0.8
    grey = 1000 + 150 * places.sum(axis=0) + 300 * ndimage.gaussian_filter(rng.normal(size=shape), 1)
    return np.where(head, np.maximum(grey, 300), 5 * rng.random(shape)).astype(np.float32)


def test_slices_are_those_acquired_from_below_with_the_face_up():
    raw = np.round(_head())
    prepared = prepare(_scan(raw), SMALL.changed(slice_mm=6.5))
    assert prepared.voxels.shape == (20, 48, 48, 1) and prepared.voxels.dtype == np.uint8
    grey = np.clip(raw * np.float32(100 / np.median(raw[raw > 0.1 * np.percentile(raw, 99.5)])), 0, 255).astype(
        np.uint8
    )
    # LPS storage: columns run to the patient's left, rows to posterior, slices to superior; padded by 4 and 2.
    np.testing.assert_array_equal(prepared.voxels[:, 2:46, 4:44, 0], grey.transpose(2, 1, 0))
    assert not prepared.voxels[:, :2].any() and not prepared.voxels[:, :, 44:].any()
    assert prepared.geometry.spacing == pytest.approx((6.5, 0.9, 0.9))


def test_all_48_storages_give_one_prepared_scan_and_one_mask_in_space():
    raw = _head((20, 22, 18))
    affine = np.diag([-1.2, -1.0, 3.0, 1.0])
    reference = prepare(_scan(raw, affine), SMALL)
    native = reference.restore(reference.voxels[..., 0] > 100).voxels
    for turn in TURNS:
        prepared = prepare(_scan(*turned(raw, affine, turn)), SMALL)
        np.testing.assert_array_equal(prepared.voxels, reference.voxels)
        restored = prepared.restore(reference.voxels[..., 0] > 100).voxels
        np.testing.assert_array_equal(restored, orientations.apply_orientation(native, turn))


def test_the_grey_level_of_the_head_does_not_depend_on_units_outliers_or_air():
    raw = _head()
    reference = prepare(_scan(raw), SMALL).voxels
    np.testing.assert_allclose(prepare(_scan(raw * 7), SMALL).voxels.astype(int), reference, atol=1)
    outlier = raw.copy()
    outlier[20, 22, 10] = 1e6
    extracted = np.where(raw > 100, raw, 0)
    head = reference > 30
    for changed in (outlier, extracted):
        difference = np.abs(prepare(_scan(changed), SMALL).voxels.astype(int) - reference)[head]
        assert np.quantile(difference, 0.99) <= 2
    assert 90 <= np.median(reference[head]) <= 110


@pytest.mark.parametrize("around", [0, -3, None])
def test_standardized_values_give_the_grey_levels_of_those_acquired_but_for_the_darkest(around):
    """Of the brain alone, with 0, or less than in the brain, around it; or of the whole field of view."""
    raw = _head()
    brain = raw > 100
    reference = prepare(_scan(raw if around is None else np.where(brain, raw, 0)), SMALL).voxels.astype(int)
    of = raw if around is None else raw[brain]
    scores = ((raw - of.mean()) / of.std()).astype(np.float32)
    standardized = scores if around is None else np.where(brain, scores, np.float32(around))
    found = prepare(_scan(standardized), SMALL).voxels.astype(int)
    assert np.mean((found > 0) != (reference > 0)) < 1e-3
    bright = reference >= 100
    darkest = 0 if around is None else np.percentile(raw[brain], 0.1)
    stretch = 1 / (1 - darkest / np.median(raw[brain]))
    assert np.abs(found - (100 + stretch * (reference - 100)))[bright].max() < 4


def test_a_few_negative_values_are_no_standardization():
    raw = _head()
    raw[(np.random.default_rng(0).random(raw.shape) < 0.05) & (raw < 100)] *= -20
    assert unstandardized(raw) is raw


@pytest.mark.parametrize(("noise", "tolerance"), [(60, 2), (120, 4), (200, 12)])
def test_the_grey_level_of_the_head_hardly_depends_on_noise_in_the_air(noise, tolerance):
    """Rician, as of magnitude images; the last is a fifth of the head's median."""
    raw, rng = _head(), np.random.default_rng(2)
    noisy = np.hypot(raw + noise * rng.normal(size=raw.shape), noise * rng.normal(size=raw.shape)).astype(np.float32)
    head = prepare(_scan(raw), SMALL).voxels > 30
    assert np.median(prepare(_scan(noisy), SMALL).voxels[head]) == pytest.approx(100, abs=tolerance)


def test_a_mask_comes_back_where_it_was():
    mask = np.zeros((40, 44, 20), np.uint8)
    mask[12:20, 18:30, 5:9] = 1
    prepared = prepare(_scan(_head()), SMALL)
    for kind in (np.uint8, np.float32):
        np.testing.assert_array_equal(prepared.restore(prepared.align(_scan(mask.astype(kind)))).voxels, mask)
    assert prepared.align(_scan(mask.astype(np.float32))).dtype == np.uint8


def test_a_plane_larger_than_the_grid_is_cut_around_the_head_and_restored_with_zeros():
    raw = np.full((100, 60, 20), 1.0, np.float32)
    raw[55:95, 8:52] = _head()
    prepared = prepare(_scan(raw), SMALL)
    assert prepared.voxels.shape == (20, 48, 48, 1)
    assert (prepared.voxels > 30).sum() == pytest.approx((prepare(_scan(_head()), SMALL).voxels > 30).sum(), rel=0.02)
    back = prepared.restore(np.ones(prepared.voxels.shape[:3], np.uint8)).voxels
    assert back.shape == raw.shape and back.sum() == 48 * 48 * 20
    assert back[60:90, 12:48].all()


@pytest.mark.parametrize(("mm", "stacks"), [(8.0, 1), (6.5, 1), (5.0, 1), (3.0, 2), (1.0, 6), (0.5, 13)])
def test_close_slices_are_interleaved_into_stacks_of_about_the_distance(mm, stacks):
    prepared = prepare(_scan(_head((20, 22, 60)), np.diag([-2.0, -2.0, mm, 1.0])), SMALL)
    found = SMALL.preparation.stacks(prepared, 16)
    assert len(found) == stacks
    every = np.concatenate([np.arange(60)[stack] for stack in found])
    # Every slice once, of the head at least.
    assert sorted(every) == list(range(every.min(), every.max() + 1)) and len(every) > 50


@pytest.mark.parametrize(
    ("slices", "head", "mm", "expected"),
    [
        (40, (6, 30), 6.5, (6, 30)),  # the head alone
        (40, (10, 20), 6.5, (7, 23)),  # and air around it, to a window of 16
        (40, (0, 10), 6.5, (0, 16)),
        (40, (36, 40), 6.5, (24, 40)),
        (12, (5, 9), 6.5, (0, 12)),  # all of fewer slices than a window
        (40, (0, 0), 6.5, (0, 40)),  # no head
        (90, (20, 81), 3.0, (20, 81)),  # two stacks
        (90, (30, 51), 3.0, (25, 57)),
    ],
)
def test_slices_beyond_the_head_are_in_no_stack(slices, head, mm, expected):
    voxels = np.zeros((slices, 32, 32, 1), np.uint8)
    voxels[head[0] : head[1], 8:12, 8:12] = 21
    voxels[:, 3, 3] = 20  # noise
    header = nib.Nifti1Image(np.zeros((32, 32, slices), np.uint8), np.diag([-2.0, -2.0, mm, 1.0])).header
    recipe = SMALL.changed(size=32)
    prepared = Prepared(voxels, recipe.preparation.geometry(header))
    every = np.concatenate([np.arange(slices)[stack] for stack in recipe.preparation.stacks(prepared, 16)])
    assert sorted(every) == list(range(*expected))
    # Other grey levels do not tell air.
    others = recipe.changed(grey_levels="min-max", augmentation=(), planes="whole")
    assert sum(len(voxels[s]) for s in others.preparation.stacks(prepared, 16)) == slices


def test_thin_slices_are_averaged_to_about_the_thickness_of_a_thick_one():
    raw = _head((20, 22, 60))
    thin = np.diag([-2.0, -2.0, 1.0, 1.0])
    by_hand = ndimage.uniform_filter1d(raw, 5, axis=2, mode="nearest")
    smooth = prepare(_scan(raw, thin), SMALL).voxels.astype(int)
    # One distance that makes a single stack of the same slices leaves them as they are.
    expected = prepare(_scan(by_hand, thin), SMALL.changed(slice_mm=1.0)).voxels.astype(int)
    ratio = np.median(smooth[smooth > 50] / expected[smooth > 50])
    np.testing.assert_allclose(smooth, np.clip(expected * ratio, 0, 255), atol=2)


def test_what_was_prepared_is_opened_again_with_its_geometry(tmp_path):
    mask = np.zeros((100, 60, 20), np.uint8)
    mask[70:80, 20:30, 5:9] = 1
    raw = np.full(mask.shape, 1.0, np.float32)
    raw[55:95, 8:52] = _head()
    prepared = prepare(_scan(raw), SMALL)
    save_prepared(tmp_path, prepared, prepared.align(_scan(mask)))
    opened, aligned = load_prepared(tmp_path)
    assert opened.geometry.offset == prepared.geometry.offset and any(opened.geometry.offset)
    np.testing.assert_array_equal(opened.restore(aligned).voxels, mask)
