"""Crops are the scans' own voxels in random places; a number always gives the same one."""

import numpy as np
import pytest

from planar3d.recipes import MODERN
from planar3d.training.augmentation import Placement, change_grey_levels
from planar3d.training.crops import CropSamples

PLAIN = MODERN.changed(crop=32, augmentation=())


def _stacks(slices=20, size=64, seed=0):
    rng = np.random.default_rng(seed)
    voxels = np.zeros((slices, size, size), np.uint8)
    voxels[:, 8:-8, 8:-8] = rng.integers(30, 255, (slices, size - 16, size - 16))
    mask = np.zeros_like(voxels)
    mask[9:11, 20:24, 40:44] = 1
    return voxels, mask


def _samples(recipe=PLAIN, count=2):
    pairs = [_stacks(seed=seed) for seed in range(count)]
    return CropSamples([v[..., None] for v, _ in pairs], [m for _, m in pairs], recipe)


def test_a_number_always_gives_the_same_crop_and_another_number_another():
    first, again = _samples(MODERN.changed(crop=32)), _samples(MODERN.changed(crop=32))
    for number in (0, 7, 1000):
        for one, other in zip(first.crop(number), again.crop(number), strict=True):
            np.testing.assert_array_equal(one, other)
    assert not np.array_equal(first.crop(0)[0], first.crop(1)[0])
    assert not np.array_equal(_samples(MODERN.changed(crop=32, seed=1)).crop(0)[0], first.crop(0)[0])


def test_an_upright_crop_on_whole_pixels_is_cut_and_a_mirrored_one_runs_backwards():
    voxels, _ = _stacks()
    cut = Placement(row=31.5, col=23.5).cut(voxels, 32)
    np.testing.assert_array_equal(cut, voxels[:, 16:48, 8:40])
    between = Placement(row=32, col=23.5).cut(voxels, 32)  # linearly
    np.testing.assert_array_equal(between, (cut + voxels[:, 17:49, 8:40]) / 2)
    np.testing.assert_array_equal(Placement(31.5, 23.5, mirrored=True).cut(voxels, 32), cut[:, :, ::-1])
    quarter = Placement(31.5, 31.5, angle=np.pi / 2).cut(voxels, 64)
    np.testing.assert_allclose(quarter, np.rot90(voxels, -1, (1, 2)), atol=1e-3)


@pytest.mark.parametrize("names", [(), ("rotation",), ("zoom",), ("flip",)], ids=str)
def test_a_placement_draws_what_is_named_and_nothing_else(names):
    drawn = [Placement.drawn(3, 4, names, np.random.default_rng(seed)) for seed in range(60)]
    between = 0 if {"rotation", "zoom"} & set(names) else 0.5  # of an even crop, whose pixels then are the plane's
    assert {(place.row, place.col) for place in drawn} == {(3 + between, 4 + between)}
    least, most = (13, 15) if "rotation" in names else (0, 0)
    assert least <= np.rad2deg(max(abs(place.angle) for place in drawn)) <= most
    least, most = (0.23, 0.25) if "zoom" in names else (0, 0)
    assert least <= max(abs(np.log(place.zoom)) for place in drawn) <= most
    share = np.mean([place.mirrored for place in drawn])
    assert 0.3 < share < 0.7 if "flip" in names else share == 0


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("names", [(), ("flip",)], ids=str)
def test_crops_that_nothing_turns_or_scales_have_the_plane_s_own_voxels_and_mask(names, share):
    voxels, _ = _stacks()
    stripes = voxels % 2  # one pixel wide lesions
    samples = CropSamples([voxels[..., None]], [stripes], PLAIN.changed(augmentation=names, lesion_share=share))
    for number in range(10):
        grey, mask = samples.crop(number)
        np.testing.assert_array_equal(grey, np.round(grey))
        np.testing.assert_array_equal(mask, grey % 2)


def test_a_larger_zoom_shows_more_of_the_plane():
    _, mask = _stacks()
    areas = [Placement(22, 42, zoom=zoom).cut(mask, 32).sum() for zoom in (0.5, 1.0, 2.0)]
    assert areas[0] == pytest.approx(4 * areas[1], rel=0.2) and areas[1] == pytest.approx(4 * areas[2], rel=0.2)


def test_outside_of_the_plane_is_zero():
    voxels, _ = _stacks()
    cut = Placement(row=0, col=0).cut(voxels, 32)
    assert not cut[:, :15].any() and not cut[:, :, :15].any() and cut.any()


def test_voxels_and_masks_stay_together():
    _, mask = _stacks()
    marked = np.where(mask, np.uint8(255), np.uint8(60))
    samples = CropSamples([marked[..., None]], [mask], PLAIN.changed(augmentation=("flip", "rotation", "zoom")))
    for number in range(20):
        grey, target = samples.crop(number)
        inside = grey > 60 + 195 / 2
        assert np.array_equal(inside, target.astype(bool))


def test_the_share_of_crops_around_lesions_follows_the_recipe():
    shares = []
    for share in (0.0, 1.0):
        samples = _samples(PLAIN.changed(lesion_share=share))
        shares.append(np.mean([samples.crop(number)[1].any() for number in range(60)]))
    assert shares[1] > 0.9 > 0.6 > shares[0]


def test_crops_of_a_scan_without_lesions_are_in_its_head_and_of_one_without_a_head_in_its_middle():
    head = np.zeros((20, 64, 64), np.uint8)
    head[:, 40:44, 4:8] = 200
    for volume in (head, np.zeros_like(head)):
        samples = CropSamples([volume[..., None]], [np.zeros_like(volume)], PLAIN.changed(lesion_share=1.0))
        for number in range(5):
            grey, mask = samples.crop(number)
            assert not mask.any() and grey[8, 15, 15].any() == volume.any()


def test_too_few_slices_are_repeated_at_both_ends():
    voxels, mask = _stacks(slices=11)
    grey, _ = CropSamples([voxels[..., None]], [mask], PLAIN).crop(3)
    assert grey.shape == (16, 32, 32)
    np.testing.assert_array_equal(grey[0], grey[2])
    np.testing.assert_array_equal(grey[13], grey[15])
    assert not np.array_equal(grey[2], grey[3])


def test_a_batch_is_what_the_network_takes():
    inputs, targets = _samples(MODERN.changed(crop=32)).batch(range(3))
    assert inputs.shape == (3, 16, 32, 32, 3) and inputs.dtype == np.float32
    assert targets.shape == (3, 16, 32, 32, 1) and set(np.unique(targets)) <= {0, 1}
    assert inputs.min() >= -1 and inputs.max() < 1


@pytest.mark.parametrize("name", ["brightness", "contrast", "blur", "noise"])
def test_each_change_of_grey_levels_changes_them_within_their_range(name):
    voxels = _stacks()[0].astype(np.float32)
    changed = [change_grey_levels(voxels, (name,), np.random.default_rng(seed)) for seed in range(12)]
    share = np.mean([not np.array_equal(voxels, one) for one in changed])
    assert share == 1 if name == "brightness" else 0 < share < 1
    for one in changed:
        assert one.dtype == np.float32 and one.min() >= 0 and one.max() <= 255
        assert np.corrcoef(one.ravel(), voxels.ravel())[0, 1] > 0.8
