"""Regions are scored as the challenge does, those that a patient does not have included."""

import math

import numpy as np
import pytest
from scipy import ndimage

from planar3d.errors import ScanError
from planar3d.evaluation.challenges import MISSED_MM, score_region, score_targets
from planar3d.evaluation.scores import score_scan
from planar3d.scans.targets import Classes, Regions

SHEARED = np.array([[0.9, 0.3, 0.1], [0, 1.1, -0.4], [0.2, 0, 3.0]])


def blobs(seed, shape=(9, 10, 8)):
    return ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1) > 0.1


def brute_force_hd95(one, other, axes):
    """The percentile of all distances from a surface to the other, voxel by voxel."""
    surfaces = []
    for mask in (one, other):
        padded = np.pad(mask, 1)
        surface = [
            place
            for place in np.argwhere(padded)
            if not all(padded[tuple(place + sign * step)] for step in np.eye(3, dtype=int) for sign in (1, -1))
        ]
        surfaces.append([axes @ place for place in surface])
    distances = sorted(
        min(math.dist(place, target) for target in targets)
        for places, targets in (surfaces, surfaces[::-1])
        for place in places
    )
    rank = 0.95 * (len(distances) - 1)
    below = math.floor(rank)
    return distances[below] + (rank - below) * (distances[min(below + 1, len(distances) - 1)] - distances[below])


@pytest.mark.parametrize("grid", [np.eye(3), np.diag([0.5, 0.8, 5.0]), SHEARED], ids=["cubes", "thick", "sheared"])
@pytest.mark.parametrize("seed", range(3))
def test_dice_and_distance_are_those_of_brute_force(grid, seed):
    reference, prediction = blobs(seed), blobs(seed + 10)
    scores = score_region(score_scan(reference, prediction, grid))
    both = sum(a and b for a, b in zip(reference.ravel(), prediction.ravel(), strict=True))
    assert scores["dice"] == 2 * both / (reference.sum() + prediction.sum())
    assert scores["hd95_mm"] == pytest.approx(brute_force_hd95(reference, prediction, grid), rel=1e-9)


def test_distances_are_those_of_the_distance_maps_that_the_challenge_s_tools_use():
    reference, prediction, spacing = blobs(4, (20, 22, 18)), blobs(5, (20, 22, 18)), (1.0, 0.7, 2.5)
    surfaces = [mask ^ ndimage.binary_erosion(mask) for mask in (reference, prediction)]
    maps = [ndimage.distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    distances = np.hstack([maps[1][surfaces[0]], maps[0][surfaces[1]]])
    found = score_region(score_scan(reference, prediction, spacing))["hd95_mm"]
    assert found == pytest.approx(np.percentile(distances, 95), rel=1e-9)


def test_a_region_that_nobody_has_is_right_and_one_that_one_alone_has_is_missed():
    empty, there = np.zeros((4, 4, 4), bool), np.pad(np.ones((2, 2, 2), bool), 1)
    assert score_region(score_scan(empty, empty, (1, 1, 1))) == {"dice": 1, "hd95_mm": 0}
    assert score_region(score_scan(there, there, (1, 1, 1))) == {"dice": 1, "hd95_mm": 0}
    for pair in ((empty, there), (there, empty)):
        assert score_region(score_scan(*pair, (1, 1, 1))) == {"dice": 0, "hd95_mm": 373.12866}
    assert pytest.approx(math.hypot(240, 240, 155), abs=1e-4) == MISSED_MM


@pytest.mark.parametrize("targets", [Regions(), Classes(("NCR=1", "ED=2", "ET=4"), Regions().regions)])
def test_every_region_of_the_label_maps_is_scored(targets):
    reference = np.zeros((6, 6, 6), np.uint8)
    reference[1:5, 1:5, 1:5], reference[2:4, 2:4, 2:4] = 2, 1
    prediction = np.where(reference == 1, 4, reference)
    prediction[1] = 0
    scores = score_targets(targets, reference, prediction, (1, 1, 1))
    scores = {name: {key: found[key] for key in ("dice", "hd95_mm")} for name, found in scores.items()}
    assert scores["WT"]["dice"] == 2 * 48 / (64 + 48) and scores["WT"]["hd95_mm"] == 1
    assert scores["TC"] == {"dice": 1, "hd95_mm": 0}
    assert scores["ET"] == {"dice": 0, "hd95_mm": 373.12866}


def test_label_maps_on_two_grids_are_refused():
    with pytest.raises(ScanError, match="one grid"):
        score_targets(Regions(), np.zeros((3, 3, 3)), np.zeros((3, 3, 4)), (1, 1, 1))
