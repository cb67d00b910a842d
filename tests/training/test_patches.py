"""Patches are the volumes' own voxels in random places; a number always gives the same one."""

import numpy as np
import pytest

from planar3d.errors import ScanError
from planar3d.recipes import find_recipe
from planar3d.scans.preparation import NonZeroBox
from planar3d.scans.targets import TARGETS
from planar3d.training.patches import PatchSamples, PatchSampling
from planar3d.training.samples import read_ahead

SHAPE = (6, 16, 12)
FIELDS = {"tiles.shape": SHAPE, "tiles.step": SHAPE, "targets": "binary", "augmentation": ()}
RECIPE = find_recipe("wacker2019-3d").changed(**FIELDS)


def _case(size=(20, 40, 36), seed=0):
    """An image whose values tell where they are from, and a small region of two labels."""
    labels = np.zeros(size, np.uint8)
    labels[12:14, 30:33, 4:6] = 1
    labels[13:14, 31:32, 5:6] = 4
    image = np.arange(1, labels.size + 1, dtype=np.float32).reshape(*size, 1) + np.float32(seed) * 1e5
    return np.concatenate([image, -image], axis=-1), labels


def _samples(cases=2, size=(20, 40, 36), **fields):
    images, labels = zip(*(_case(size, seed) for seed in range(cases)), strict=True)
    return PatchSamples(images, labels, RECIPE.changed(**fields))


def _start(samples, number):
    """Where the patch of this number was cut, by its first value."""
    image, _ = samples.patch(number)
    return np.unravel_index(int(image[0, 0, 0, 0]) - 1, samples.labels[0].shape)


def test_a_number_always_gives_the_same_patch_and_another_number_or_seed_another():
    fields = {"augmentation": ("elastic", "rotation", "flip", "noise"), "foreground_share": 0.5}
    first, again = (_samples(**fields) for _ in range(2))
    for number in (0, 7, 1000):
        for one, other in zip(first.patch(number), again.patch(number), strict=True):
            np.testing.assert_array_equal(one, other)
    assert not np.array_equal(first.patch(0)[0], first.patch(1)[0])
    assert not np.array_equal(first.patch(0)[0], _samples(**fields, seed=1).patch(0)[0])


def test_a_patch_is_cut_of_image_and_labels_at_one_place():
    samples = _samples(cases=1, foreground_share=1.0)
    for number in range(20):
        image, labels = samples.patch(number)
        assert image.shape == (*SHAPE, 2) and image.dtype == np.float32
        at = tuple(slice(start, start + n) for start, n in zip(_start(samples, number), SHAPE, strict=True))
        np.testing.assert_array_equal(image, samples.images[0][at])
        np.testing.assert_array_equal(labels, samples.labels[0][at])


def test_every_place_and_case_is_drawn():
    samples = _samples(cases=3, size=(7, 17, 13))
    patches = [samples.patch(number)[0] for number in range(400)]
    assert len({int(patch[0, 0, 0, 0]) for patch in patches}) == 3 * 2 * 2 * 2


def test_the_share_around_the_foreground_is_kept_and_the_voxel_lies_in_the_middle_two_thirds():
    anywhere, around, half = (_samples(foreground_share=share) for share in (0.0, 1.0, 0.5))
    middle = (slice(1, -1), slice(2, -2), slice(1, -1))
    found = [around.patch(number)[1] for number in range(100)]
    assert all(labels.any() for labels in found)
    # The region lies near a border, where a patch can not go further.
    assert np.mean([labels[middle].any() for labels in found]) > 0.9
    shares = [np.mean([samples.patch(number)[1].any() for number in range(200)]) for samples in (anywhere, half)]
    assert shares[0] < 0.35 and shares[1] == pytest.approx((1 + shares[0]) / 2, abs=0.1)


def test_without_foreground_patches_are_of_any_place():
    image, labels = _case()
    samples = PatchSamples([image], [labels * 0], RECIPE.changed(foreground_share=1.0))
    assert len({_start(samples, number) for number in range(10)}) > 5


def test_a_tile_without_a_length_takes_the_whole_axis():
    image, labels = _samples(**{"tiles.shape": (0, 16, 12), "tiles.step": (0, 16, 12)}).patch(0)
    assert image.shape == (20, 16, 12, 2) and labels.shape == (20, 16, 12)


@pytest.mark.parametrize("size", [(3, 40, 36), (3, 5, 36), (2, 5, 7)])
def test_shorter_volumes_are_filled_with_air_on_both_sides(size, monkeypatch):
    monkeypatch.setattr(NonZeroBox, "air", -3.0)
    labels = np.ones(size, np.uint8)
    samples = PatchSamples([np.ones((*size, 2), np.float16)], [labels], RECIPE)
    image, cut = samples.patch(0)
    assert image.shape == (*SHAPE, 2) and image.dtype == np.float32
    spans = zip(SHAPE, size, strict=True)
    expected = np.zeros(SHAPE, np.uint8)
    expected[tuple(slice(max(n - m, 0) // 2, max(n - m, 0) // 2 + m) for n, m in spans)] = 1
    np.testing.assert_array_equal(cut, expected)
    np.testing.assert_array_equal(image[..., 0], np.where(expected, 1, -3))


def test_batches_are_read_ahead_from_mapped_files_with_targets_of_any_kind(tmp_path):
    image, labels = _case()
    np.save(tmp_path / "image.npy", image.astype(np.float16))
    np.save(tmp_path / "labels.npy", labels)
    mapped = [np.load(tmp_path / name, mmap_mode="r") for name in ("image.npy", "labels.npy")]
    regions, sampling = TARGETS["regions"](), PatchSampling(patches_per_epoch=5)
    samples = PatchSamples(mapped[:1], mapped[1:], RECIPE.changed(targets="regions", foreground_share=1.0))
    batches = list(read_ahead(samples, sampling.order(sampling.split(1, 0, 20, None)[0], 2, seed=0), 2))
    assert [list(numbers) for numbers, _, _ in batches] == [[10, 11], [12, 13], [14]]
    _, inputs, targets = batches[0]
    assert inputs.shape == (2, *SHAPE, 2) and inputs.dtype == np.float32
    assert targets.shape == (2, *SHAPE, regions.outputs)
    np.testing.assert_array_equal(targets[1], regions.encode(samples.patch(11)[1]))
    assert targets.any()


def test_labels_of_another_grid_are_refused():
    image, labels = _case()
    with pytest.raises(ScanError, match=r"Case 2 of 2 .*\(20, 40, 36\) voxels .*\(19, 40, 36\)"):
        PatchSamples([image, image], [labels, labels[1:]], RECIPE)
