"""Each transform has the constants of Wacker 2019, and image and labels stay together."""

import numpy as np
import pytest
from scipy import ndimage

from planar3d.training import patch_augmentation
from planar3d.training.patch_augmentation import TRANSFORMS, augment_patch

SHAPE = (12, 40, 36)
SPATIAL = ("elastic", "rotation", "zoom")


def _patch():
    """Nested regions of the labels 1, 2 and 4, and smooth noise in two channels."""
    rng = np.random.default_rng(0)
    distance = np.sqrt(sum((x - c) ** 2 for x, c in zip(np.indices(SHAPE), (5, 18, 20), strict=True)))
    labels = np.select([distance < 3, distance < 6, distance < 9], [4, 1, 2], 0).astype(np.uint8)
    noise = [ndimage.gaussian_filter(rng.standard_normal(SHAPE), 1) * 3 for _ in range(2)]
    return np.stack(noise, axis=-1).astype(np.float32), labels


def _drawn(names, count, patch=None):
    patch = patch or _patch()
    return [augment_patch(*patch, np.random.default_rng(seed), names) for seed in range(count)]


def _changed(names, count):
    image, _ = _patch()
    return [new for new, _ in _drawn(names, count) if not np.array_equal(new, image)]


@pytest.fixture
def always(monkeypatch):
    """All patches are warped."""
    monkeypatch.setattr(patch_augmentation, "_WARPED", 1.0)


def test_a_seed_always_gives_the_same_patch_and_its_types_are_kept():
    image, labels = _patch()
    for one, again in zip(_drawn(TRANSFORMS, 5), _drawn(TRANSFORMS, 5), strict=True):
        for a, b, original in zip(one, again, (image, labels), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.shape == original.shape and a.dtype == original.dtype and np.isfinite(a).all()


def test_without_names_nothing_changes():
    for image, labels in _drawn((), 3):
        np.testing.assert_array_equal(image, _patch()[0])
        np.testing.assert_array_equal(labels, _patch()[1])


@pytest.mark.parametrize(
    ("names", "share"),
    [
        (("elastic",), 0.1),
        (("rotation",), 0.1),
        (("zoom",), 0.1),
        (SPATIAL, 1 - 0.9**3),
        (("flip",), 1 - 0.5**3),
        (("brightness",), 0.15),
        (("gamma",), 1 - 0.85**2),
        (("noise",), 0.15),
        (("blur",), 0.15 * (1 - 0.5**2)),
        (("turn", "shear", "translation"), 1 - 0.9**3),
        (("window",), 0.15),
    ],
)
def test_each_transform_changes_its_share_of_the_patches(names, share):
    patch = np.random.default_rng(0).standard_normal((3, 5, 4, 2)).astype(np.float32), np.ones((3, 5, 4), np.uint8)
    changed = np.mean([not np.array_equal(image, patch[0]) for image, _ in _drawn(names, 800, patch)])
    assert changed == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 800))


def test_a_recipe_may_say_the_share_of_all():
    for share in (0.5, 1.0):
        drawn = [augment_patch(*_patch(), np.random.default_rng(seed), ("noise",), share=share) for seed in range(60)]
        changed = np.mean([not np.array_equal(image, _patch()[0]) for image, _ in drawn])
        assert changed == pytest.approx(share, abs=0.2 * (share < 1))


def _turned(rng):
    angle = rng.uniform(-np.deg2rad(15), np.deg2rad(15))
    return np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])


def _sheared(rng):
    by_column, by_row = rng.uniform(-0.1, 0.1, 2)
    return np.array([[1, 0, 0], [0, 1, by_column], [0, by_row, 1]])


@pytest.mark.parametrize(("name", "matrix"), [("turn", _turned), ("shear", _sheared)])
def test_turns_and_shears_are_affine_within_slices(name, matrix):
    image, labels = _patch()
    middle = (np.array(SHAPE) - 1) / 2
    for seed in range(3):
        rng = np.random.default_rng(seed)
        rng.random()  # whether it is drawn
        expected = matrix(rng)
        moved, _ = augment_patch(image, labels, np.random.default_rng(seed), (name,), share=1.0)
        for found, channel in zip(np.moveaxis(moved, -1, 0), np.moveaxis(image, -1, 0), strict=True):
            there = ndimage.affine_transform(channel, expected, middle - expected @ middle)
            np.testing.assert_allclose(found, there, atol=1e-4)
        alone, _ = augment_patch(image[:1], labels[:1], np.random.default_rng(seed), (name,), share=1.0)
        assert np.count_nonzero(alone) > 0.6 * alone.size  # no slice leaves a patch of one


def test_translations_are_up_to_a_tenth_of_rows_and_columns():
    image, labels = _patch()
    for seed in range(3):
        rng = np.random.default_rng(seed)
        rng.random()
        by = rng.uniform(-0.1, 0.1, 2) * SHAPE[1:]
        moved, found = augment_patch(image, labels, np.random.default_rng(seed), ("translation",), share=1.0)
        np.testing.assert_allclose(moved[..., 0], ndimage.shift(image[..., 0], (0, *-by)), atol=1e-4)
        there = ndimage.shift((labels > 0).astype(float), (0, *-by), order=1) > 0.5
        assert np.mean((found > 0) == there) > 0.99


def test_a_window_of_seven_tenths_or_more_fills_the_span_of_grey_levels():
    image, labels = _patch()
    for seed in range(5):
        rng = np.random.default_rng(seed)
        rng.random()
        width, low = rng.uniform(0.7, 1, 2), rng.random(2, np.float32)
        found, _ = augment_patch(image, labels, np.random.default_rng(seed), ("window",), share=1.0)
        for channel in range(2):
            values = image[..., channel]
            ends = values.min() + np.ptp(values) * (np.array([0, width[channel]]) + low[channel] * (1 - width[channel]))
            expected = np.interp(values, ends, [values.min(), values.max()])
            np.testing.assert_allclose(found[..., channel], expected, atol=1e-3)


@pytest.mark.parametrize("name", [*SPATIAL, "flip", "turn", "shear", "translation"])
def test_labels_go_where_the_image_goes(always, name):
    _, labels = _patch()
    image = np.stack([labels == 4, labels > 0], axis=-1).astype(np.float32)
    for moved, found in _drawn((name,), 10, (image, labels)):
        assert set(np.unique(found)) <= {0, 1, 2, 4}
        whole, inner = moved[..., 1] > 0.5, moved[..., 0] > 0.5
        assert 2 * np.sum(whole & (found > 0)) / (whole.sum() + (found > 0).sum()) > 0.97
        assert 2 * np.sum(inner & (found == 4)) / max(inner.sum() + (found == 4).sum(), 1) > 0.8


def test_rotations_are_up_to_15_degrees_about_each_axis_and_keep_distances():
    for seed in range(20):
        angles = np.random.default_rng(seed).uniform(-patch_augmentation._ANGLE, patch_augmentation._ANGLE, 3)
        turn = patch_augmentation._rotation(angles)
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(turn) == pytest.approx(1)
    about_slices = patch_augmentation._rotation(np.deg2rad([15, 0, 0]))
    np.testing.assert_allclose(about_slices[1:, 1], [np.cos(np.deg2rad(15)), np.sin(np.deg2rad(15))])


def test_zoom_shows_from_a_quarter_less_to_a_quarter_more_about_the_middle(always):
    ratios = []
    for seed in range(60):
        places = patch_augmentation._places(SHAPE, ("zoom",), np.random.default_rng(seed))
        np.testing.assert_allclose(places.mean(axis=(1, 2, 3)), (np.array(SHAPE) - 1) / 2)
        spans = np.ptp(places, axis=(1, 2, 3)) / (np.array(SHAPE) - 1)
        assert np.ptp(spans) < 1e-9
        ratios.append(spans[0])
    assert 0.75 <= min(ratios) < 0.8 and 1.2 < max(ratios) <= 1.25
    assert 0.3 < np.mean(np.array(ratios) < 1) < 0.7


def test_deformations_are_smooth_and_no_farther_than_three_quarters_of_their_smoothing():
    for seed in range(20):
        field = patch_augmentation._deformation(SHAPE, np.random.default_rng(seed))
        deviations = np.random.default_rng(seed).uniform(0, 0.25) * np.array(SHAPE)
        farthest = np.abs(field).max(axis=(1, 2, 3))
        assert (farthest <= 0.75 * deviations + 1e-9).all()
        if deviations.min() > 1:  # by the largest of the deviations, a voxel's step is a small part of it
            assert np.abs(np.diff(field[2], axis=2)).max() < farthest[2] / 2


def test_opposite_borders_of_a_patch_are_deformed_independently():
    """The library of 2019 smooths with zeros around the patch; its later versions, periodically."""
    fields = [patch_augmentation._deformation(SHAPE, np.random.default_rng(seed))[2] for seed in range(20)]
    borders = [np.corrcoef(field[..., 0].ravel(), field[..., -1].ravel())[0, 1] for field in fields]
    assert np.mean(borders) < 0.5


@pytest.mark.parametrize("name", [*SPATIAL, "turn", "shear", "translation"])
def test_a_patch_of_one_slice_is_warped_within_its_plane(always, name):
    """Beside its slice is only air: by 15 degrees or a tenth of a slice the whole patch would be empty."""
    image, labels = np.full((1, 32, 32, 1), 5, np.float32), np.full((1, 32, 32), 2, np.uint8)
    for moved, found in _drawn((name,), 10, (image, labels)):
        assert np.mean(moved > 4) > 0.5 and np.mean(found == 2) > 0.5


def test_outside_of_the_patch_is_air_and_without_label(always):
    image, labels = np.full((8, 12, 12, 1), 5, np.float32), np.full((8, 12, 12), 2, np.uint8)
    for seed in range(30):
        moved, found = augment_patch(image, labels, np.random.default_rng(seed), ("zoom",), air=-1.0)
        assert set(np.unique(found)) <= {0, 2}
        if (found == 0).any():
            assert moved[0, 0, 0] == -1 and found[0, 0, 0] == 0
            return
    raise AssertionError("no patch was made smaller")


def test_mirrored_patches_are_all_eight_mirrorings():
    image, labels = _patch()
    kinds = {
        tuple(new[:: SHAPE[0] - 1, :: SHAPE[1] - 1, :: SHAPE[2] - 1, 0].ravel()) for new, _ in _drawn(("flip",), 80)
    }
    assert len(kinds) == 8
    for new, found in _drawn(("flip",), 5):
        assert new.sum() == pytest.approx(image.sum(), abs=1e-2) and np.array_equal(
            np.bincount(found.ravel()), np.bincount(labels.ravel())
        )


def test_brightness_multiplies_each_channel_by_its_own_factor():
    image, _ = _patch()
    factors = np.array([(new / image)[0, 0, 0] for new in _changed(("brightness",), 200)])
    assert factors.min() >= 0.7 and factors.max() <= 1.5 and np.ptp(factors) > 0.6
    assert np.abs(factors[:, 0] - factors[:, 1]).max() > 0.1


def test_gamma_keeps_the_ends_and_the_order_of_grey_levels_and_bends_them_either_way():
    image, _ = _patch()
    bends = []
    for new in _changed(("gamma",), 100):
        np.testing.assert_allclose(new.min(axis=(0, 1, 2)), image.min(axis=(0, 1, 2)), atol=1e-4)
        np.testing.assert_allclose(new.max(axis=(0, 1, 2)), image.max(axis=(0, 1, 2)), atol=1e-4)
        order = np.argsort(image[..., 0].ravel())
        assert (np.diff(new[..., 0].ravel()[order]) >= -1e-5).all()
        bends.append(new[..., 0].mean() - image[..., 0].mean())
    assert min(bends) < -0.05 and max(bends) > 0.05


def test_a_constant_channel_stays_finite_under_gamma():
    patch = np.full((2, 3, 4, 1), 0.3, np.float32), np.zeros((2, 3, 4), np.uint8)
    for image, _ in _drawn(("gamma",), 30, patch):
        np.testing.assert_allclose(image, 0.3, atol=1e-6)


def test_noise_has_a_deviation_of_up_to_a_twentieth():
    deviations = [np.std(new - _patch()[0]) for new in _changed(("noise",), 200)]
    assert max(deviations) <= 0.0505 and np.ptp(deviations) > 0.03


def test_blur_smooths_channels_by_themselves():
    image, _ = _patch()
    alone = 0
    for new in _changed(("blur",), 100):
        kept = [np.array_equal(new[..., channel], image[..., channel]) for channel in range(2)]
        alone += any(kept)
        for channel in np.flatnonzero(np.logical_not(kept)):
            narrow, wide = (ndimage.gaussian_filter(image[..., channel], width).std() for width in (0.5, 1.5))
            assert wide <= new[..., channel].std() <= narrow
    assert alone
