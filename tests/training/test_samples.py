"""Samples are the windows of the prepared scans, in the split and order of the recipe."""

import numpy as np
import pytest
from samples_of import split

from planar3d.errors import RecipeError
from planar3d.recipes import PAPER, RELEASED
from planar3d.scans.windows import cut_windows
from planar3d.training.samples import ScanSamples, Windows, read_ahead

SMALL = PAPER.changed(size=64)


@pytest.mark.parametrize("stride", [8, 10])  # at stride 10, the last window extends beyond its scan
def test_windows_of_several_scans_are_those_of_each_scan(stride):
    rng = np.random.default_rng(0)
    volumes = [rng.integers(0, 255, (64, 2, 2), np.uint8) for _ in range(3)]
    windows = Windows(64, 3, 16, stride)
    expected = np.concatenate([cut_windows(v, stride=stride) for v in volumes])
    np.testing.assert_array_equal(windows.gather(volumes, range(len(windows))), expected)


def test_the_released_windows_cross_from_scan_to_scan():
    volumes = [np.full((64, 1, 1), i, np.uint8) for i in range(3)]
    windows = Windows(64, 3, 16, 8, borders="none")
    everything = windows.gather(volumes, range(len(windows)))
    np.testing.assert_array_equal(everything, cut_windows(np.concatenate(volumes)))
    assert len(windows) == 3 * 8 - 1
    assert set(np.unique(everything[7])) == {0, 1}


def test_a_volume_is_read_where_a_window_needs_it_and_no_more():
    class Watched(np.ndarray):
        read = 0

        def __getitem__(self, key):
            Watched.read += np.size(np.arange(len(self))[key])
            return super().__getitem__(key)

    volume = np.zeros((64, 1, 1), np.uint8).view(Watched)
    Windows(64, 1, 16, 8).gather([volume], [3])
    assert Watched.read == 16


def test_the_paper_validates_on_the_last_scan():
    training, validation = split(11, 1, 256, PAPER)
    assert (len(training), len(validation)) == (11 * 31, 31)
    assert training.max() < validation.min()


def test_the_release_validates_on_every_12th_window():
    training, validation = split(11, 1, 256, RELEASED)
    assert (len(training), len(validation)) == (351, 32)
    np.testing.assert_array_equal(validation, np.arange(0, 383, 12))


@pytest.mark.parametrize(("borders", "crossing"), [("scan", 0), ("none", 2)])
def test_windows_of_the_training_scans_alone_are_all_for_training(borders, crossing):
    recipe = PAPER.changed(size=32, stride=10, window_borders=borders)  # a third window extends beyond 32 slices
    training, validation = split(2, 1, 32, recipe)
    first_slices = Windows(32, 3, 16, 10, borders).starts
    assert (first_slices[training] < 64).all()
    assert np.count_nonzero(first_slices[validation] < 64) == crossing


def test_a_fold_whose_only_window_is_for_validation_is_refused():
    with pytest.raises(RecipeError, match="'every 12th window' leaves none of 1 window of a fold"):
        split(1, 0, 16, RELEASED)


def test_windows_deeper_than_a_scan_are_refused():
    with pytest.raises(RecipeError, match="depth=16, but prepared scans have 15 slices; set a depth of at most that"):
        split(11, 1, 15, RELEASED)


def test_the_paper_shuffles_once_and_the_release_every_epoch():
    numbers = np.arange(50)
    for recipe, same in ((PAPER, True), (RELEASED, False)):
        first, second = (recipe.training.samples.order(numbers, epoch, recipe.seed) for epoch in (0, 1))
        assert np.array_equal(first, second) == same
        assert sorted(first) == list(numbers) and not np.array_equal(first, numbers)
        np.testing.assert_array_equal(first, recipe.training.samples.order(numbers, 0, recipe.seed))


def test_inputs_and_targets_belong_together():
    rng = np.random.default_rng(0)
    voxels = [rng.integers(0, 255, (64, 4, 4, 1), np.uint8) for _ in range(2)]
    masks = [(v[..., 0] > 128).astype(np.uint8) for v in voxels]
    samples = ScanSamples(voxels, masks, SMALL)
    x, y = samples.inputs([1, 9]), samples.targets([1, 9])
    assert x.shape == (2, 16, 4, 4, 3) and y.shape == (2, 16, 4, 4, 1)
    np.testing.assert_array_equal(x[..., :1] > 0, y)


def test_batches_read_ahead_come_in_order_and_whole():
    rng = np.random.default_rng(0)
    voxels = [rng.integers(0, 255, (64, 4, 4, 1), np.uint8) for _ in range(2)]
    samples = ScanSamples(voxels, [(v[..., 0] > 128).astype(np.uint8) for v in voxels], SMALL)
    order = rng.permutation(len(samples.windows))
    batches = list(read_ahead(samples, order, 4))
    assert [len(numbers) for numbers, _, _ in batches] == [4] * (len(order) // 4) + [len(order) % 4] * (
        len(order) % 4 > 0
    )
    np.testing.assert_array_equal(np.concatenate([numbers for numbers, _, _ in batches]), order)
    for numbers, x, y in batches:
        np.testing.assert_array_equal(x, samples.inputs(numbers))
        np.testing.assert_array_equal(y, samples.targets(numbers))


def test_an_error_of_the_reader_reaches_the_training():
    samples = ScanSamples([np.zeros((64, 4, 4, 1), np.uint8)], [np.zeros((64, 4, 4), np.uint8)], SMALL)
    with pytest.raises(IndexError):
        list(read_ahead(samples, np.array([0, 1, 1000]), 1))
