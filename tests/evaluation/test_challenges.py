"""Scores of CHAOS and CAMUS are those of independent implementations, and every set is found by its name."""

import math
import typing

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from planar3d.evaluation.challenges import (
    ALL_MEASURES,
    MEASURE_SETS,
    score_contour,
    score_organ,
    score_region,
    score_targets,
)
from planar3d.evaluation.scores import MEASURES, score_scan, summarize
from planar3d.recipes import RECIPES
from planar3d.scans.targets import Binary, Classes, Measures, Regions

GRID = (1.5, 0.8, 3.0)


def blobs(seed, shape=(14, 16, 9)):
    found = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2) > 0.02
    found[0], found[-1], found[:, 0], found[:, -1], found[..., 0], found[..., -1] = (False,) * 6
    return found


def official(mask, border):
    """The surface of a mask by the challenge's own words: mask xor its erosion, in mm."""
    structure = ndimage.generate_binary_structure(3, 1)
    return np.argwhere(mask ^ ndimage.binary_erosion(mask, structure, border_value=border)) * GRID


@pytest.mark.parametrize("seed", range(3))
def test_volumes_and_surfaces_are_those_of_medpy(seed):
    metric = pytest.importorskip("medpy.metric.binary")
    reference, prediction = blobs(seed), blobs(seed + 10)
    organ, contour = (score(reference, prediction, GRID) for score in (score_organ, score_contour))
    assert organ["ravd_percent"] == pytest.approx(100 * abs(metric.ravd(prediction, reference)))
    assert contour["hd_mm"] == pytest.approx(metric.hd(prediction, reference, GRID)) == organ["mssd_mm"]
    directed = [metric.asd(*pair, GRID) for pair in ((prediction, reference), (reference, prediction))]
    assert contour["mad_mm"] == pytest.approx(np.mean(directed))
    assert organ["assd_mm"] == pytest.approx(metric.assd(prediction, reference, GRID))  # all distances together
    assert score_scan(reference, prediction, GRID)["dice"] == pytest.approx(metric.dc(prediction, reference))
    region = score_region(score_scan(reference, prediction, GRID))
    assert region["hd95_mm"] == pytest.approx(metric.hd95(prediction, reference, GRID))


@pytest.mark.parametrize("cut", [np.s_[5:], np.s_[:, :8], np.s_[..., 4:]])
def test_where_an_organ_ends_with_the_volume_it_has_no_surface(cut):
    masks = reference, prediction = [np.ascontiguousarray(blobs(seed)[cut]) for seed in (3, 13)]
    distances = cdist(*(official(mask, border=1) for mask in masks))
    pooled = np.concatenate([distances.min(axis=0), distances.min(axis=1)])
    scores = score_organ(reference, prediction, GRID)
    assert scores["assd_mm"] == pytest.approx(pooled.mean())
    assert scores["mssd_mm"] == pytest.approx(pooled.max())
    assert scores["assd_mm"] != pytest.approx(score_scan(reference, prediction, GRID)["assd_mm"])


def test_points_are_those_that_the_challenge_printed_and_none_beyond_its_limits():
    reference = np.zeros((40, 40, 40), bool)
    reference[5:35, 5:35, 5:35] = True
    prediction = reference.copy()
    prediction[5, 5:35, 5:20] = False  # 450 of 27,000 voxels
    scores = score_organ(reference, prediction, (1, 1, 1))
    assert scores["ravd_percent"] == pytest.approx(100 * 450 / 27000)
    assert scores["ravd_points"] == pytest.approx(100 - 20 * 100 * 450 / 27000)
    # The published table: RAVD 1.48 % is 70.3 points, MSSD 19.2 mm 68.0.
    assert pytest.approx(70.3, abs=0.15) == 100 * (1 - 1.48 / 5) and pytest.approx(68.0) == 100 * (1 - 19.2 / 60)
    assert scores["mssd_mm"] == 1 and scores["mssd_points"] == pytest.approx(100 * (1 - 1 / 60))
    names = ("dice_points", "ravd_points", "assd_points", "mssd_points")
    assert scores["score"] == pytest.approx(np.mean([scores[name] for name in names]))
    small = np.zeros_like(reference)
    small[5:20, 5:35, 5:35] = True
    assert [score_organ(reference, small, (1, 1, 1))[name] for name in ("dice_points", "ravd_points")] == [0, 0]
    none = score_organ(reference, np.zeros_like(reference), (1, 1, 1))
    assert none["score"] == 0 and math.isnan(none["mssd_mm"]) and none["ravd_percent"] == 100


def test_ct_is_scored_for_the_liver_alone_and_an_organ_that_nobody_has_is_left_out_of_means():
    targets = RECIPES["messaoudi2023-omnia-chaos"].targets
    reference = np.zeros((20, 20, 10), np.uint8)
    reference[4:16, 4:16, 2:8] = 63
    prediction = reference.copy()
    prediction[1:3, 1:3, 1:3] = 126  # a kidney, which references of CT never hold
    ct, mr = (score_targets(targets, reference, prediction, GRID, group) for group in ("CT", "MR"))
    assert ct["liver"] == mr["liver"] and ct["liver"]["score"] == 100
    assert all(math.isnan(value) for name in ct if name != "liver" for value in ct[name].values())
    assert mr["right kidney"]["score"] == 0 and math.isnan(mr["spleen"]["score"])
    averaged = summarize(scores["score"] for scores in ct.values())
    assert (averaged.mean, averaged.count, averaged.total) == (100, 1, 4)


def test_masks_of_a_single_slice_are_compared_by_their_contours():
    one, other = blobs(5, (30, 40, 3))[..., 1:2], blobs(15, (30, 40, 3))[..., 1:2]
    contours = []
    for mask in (one, other):
        padded = np.pad(mask[..., 0], 1)
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        contours.append(np.argwhere(mask[..., 0] & ~inner) * (0.308, 0.154))
    distances = cdist(*contours)
    there, back = distances.min(axis=1), distances.min(axis=0)
    scores = score_contour(one, other, (0.308, 0.154, 1.54))
    assert scores["mad_mm"] == pytest.approx((there.mean() + back.mean()) / 2)
    assert scores["hd_mm"] == pytest.approx(max(there.max(), back.max()))
    assert all(map(math.isnan, score_contour(one, np.zeros_like(one), (1, 1, 1)).values()))


def test_a_set_is_chosen_by_its_name_and_adds_its_own_measures():
    assert set(MEASURE_SETS) == {*typing.get_args(Measures), Binary().measures}
    masks = blobs(1).astype(np.uint8), blobs(2).astype(np.uint8)
    brats = score_targets(Regions(("A=1",), (1,)), *masks, GRID)["A"]
    assert brats == score_scan(*masks, GRID)  # neither mask is empty
    assert score_targets(Binary(), *masks, GRID)["lesion"] == score_scan(*masks, GRID)
    for name, of in MEASURE_SETS.items():
        scores = score_targets(Classes(("a=1",), measures=name), *masks, GRID)["a"]
        assert list(scores) == [*MEASURES, *of.measures] and set(of.main) <= scores.keys() <= ALL_MEASURES.keys()
