"""A mask holds what is above the threshold and large enough, to the voxel."""

import numpy as np
import pytest

from planar3d.evaluation.lesions import lesion_scores
from planar3d.inference.prepared_scan import lesion_mask
from planar3d.recipes import MODERN, PAPER
from planar3d.scans.targets import threshold

SPACING = (0.5, 0.8, 5.0)  # 2 mm³ a voxel


def lesions_of(*sizes):
    """Probabilities with a row of voxels for each size, all apart."""
    probabilities = np.zeros((40, 2 * len(sizes) + 1, 3), np.float32)
    for number, size in enumerate(sizes):
        probabilities[1 : 1 + size, 2 * number, 1] = 0.9
    return probabilities


def sizes_of(mask):
    return sorted(int(n) for n in mask.sum(axis=(0, 2)) if n)


@pytest.mark.parametrize(
    ("smallest", "kept"), [(0, [1, 4, 5, 30]), (2, [1, 4, 5, 30]), (10, [5, 30]), (10.1, [30]), (100, [])]
)
def test_lesions_below_the_smallest_are_dropped_and_those_of_exactly_that_stay(smallest, kept):
    mask = lesion_mask(lesions_of(5, 1, 30, 4), PAPER.changed(smallest_lesion_mm3=smallest), SPACING)
    assert sizes_of(mask) == kept and mask.dtype == np.uint8


def test_spacing_that_float32_rounds_drops_no_lesion_of_exactly_the_smallest():
    edges = [float(np.float32(mm)) for mm in (0.1, 0.7, 1.1)]
    recipe = PAPER.changed(smallest_lesion_mm3=3 * 0.1 * 0.7 * 1.1)
    assert sizes_of(lesion_mask(lesions_of(2, 3), recipe, edges)) == [3]


def test_voxels_that_meet_at_an_edge_are_two_lesions_as_in_the_scores(monkeypatch):
    monkeypatch.setattr("planar3d.evaluation.lesions.MINIMUM_MM3", 1.5)
    probabilities = np.zeros((6, 6, 6), np.float32)
    probabilities[1:3, 1, 2] = probabilities[3:5, 2, 2] = 0.9
    recipe = PAPER.changed(smallest_lesion_mm3=3)
    everything = threshold(probabilities, recipe.threshold)
    assert lesion_scores(everything, everything, (1, 1, 1))["reference_lesions"] == 2
    assert not lesion_mask(probabilities, recipe, (1, 1, 1)).any()


def test_without_a_smallest_lesion_it_is_the_threshold_alone():
    probabilities = np.random.default_rng(0).random((9, 8, 7)).astype(np.float32)
    for recipe in (PAPER, PAPER.changed(threshold=100, threshold_rule="released")):
        expected = threshold(probabilities, recipe.threshold, recipe.threshold_rule)
        np.testing.assert_array_equal(lesion_mask(probabilities, recipe, SPACING), expected)
    assert not lesion_mask(np.zeros((4, 4, 4), np.float32), MODERN, SPACING).any()
