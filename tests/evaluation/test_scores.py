import math
import statistics

import numpy as np
import pytest
from scipy import ndimage

from planar3d.errors import ScanError
from planar3d.evaluation.scores import MEASURES, directed_distances, score_scan, summarize

MM = (1.0, 1.0, 1.0)


@pytest.fixture
def blobs():
    rng = np.random.default_rng(0)
    field = ndimage.gaussian_filter(rng.standard_normal((20, 26, 32)), 1.5)
    return field > 0.1, np.roll(field, 1, axis=2) > 0.12


def test_counts_follow_their_equations():
    reference, prediction = np.zeros((2, 4, 5, 6), bool)
    reference[0, 0, :4] = True
    prediction[0, 0, 2:5] = True
    scores = score_scan(reference, prediction, (1, 2, 5))
    # TP 2, FN 2, FP 1, TN 115.
    assert scores["dice"] == 2 * 2 / (4 + 3)
    assert scores["sensitivity"] == 2 / 4
    assert scores["precision"] == 2 / 3
    assert scores["specificity"] == 115 / 116
    assert scores["reference_ml"] == pytest.approx(4 * 10 / 1000)
    assert scores["prediction_ml"] == pytest.approx(3 * 10 / 1000)


def test_every_measure_is_given_and_in_the_order_of_the_table(blobs):
    assert list(score_scan(*blobs, MM)) == list(MEASURES)


def test_a_mask_against_itself_is_perfect(blobs):
    scores = score_scan(blobs[0], blobs[0], MM)
    ones = ("dice", "sensitivity", "specificity", "precision", "lesion_sensitivity", "lesion_precision", "lesion_f1")
    assert all(scores[name] == 1 for name in ones)
    assert scores["assd_mm"] == scores["hd95_mm"] == 0


@pytest.mark.filterwarnings("error")
def test_empty_masks_leave_undefined_what_is_undefined():
    lesion, empty = np.zeros((2, 6, 6, 6), bool)
    lesion[1:4, 1:4, 1:4] = True
    missed = score_scan(lesion, empty, MM)
    assert missed["dice"] == missed["sensitivity"] == 0
    assert missed["specificity"] == 1
    assert missed["lesion_sensitivity"] == missed["lesion_f1"] == 0
    assert all(math.isnan(missed[name]) for name in ("precision", "assd_mm", "hd95_mm", "lesion_precision"))
    nothing = score_scan(empty, empty, MM)
    assert nothing["specificity"] == 1
    assert all(math.isnan(nothing[name]) for name in ("dice", "sensitivity", "precision", "assd_mm", "lesion_f1"))


def test_distances_are_measured_in_millimetres():
    reference, prediction = np.zeros((2, 8, 8, 8), bool)
    reference[1, 1, 1] = prediction[2, 3, 4] = True
    distances = np.concatenate(directed_distances(reference, prediction, (3, 2, 1)))
    np.testing.assert_allclose(distances, [math.sqrt(9 + 16 + 9)] * 2)


def test_distances_agree_with_distance_maps_on_uneven_voxels(blobs):
    spacing = (0.7, 1.1, 3.0)
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in blobs]
    maps = [ndimage.distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    expected = np.concatenate([maps[1][surfaces[0]], maps[0][surfaces[1]]])
    found = np.concatenate(directed_distances(*blobs, spacing))
    np.testing.assert_allclose(np.sort(found), np.sort(expected), atol=1e-9)
    scores = score_scan(*blobs, spacing)
    assert scores["assd_mm"] == pytest.approx(expected.mean())
    assert scores["hd95_mm"] == pytest.approx(np.percentile(expected, 95))


def test_a_lesion_at_the_border_of_the_scan_has_a_surface_there():
    whole, slab = np.ones((6, 6, 6), bool), np.ones((6, 6, 6), bool)
    slab[:2] = False
    assert score_scan(whole, slab, MM)["hd95_mm"] == 2


def test_more_background_changes_specificity_only(blobs):
    scores = score_scan(*blobs, MM)
    padded = score_scan(*(np.pad(mask, 5) for mask in blobs), MM)
    assert padded.pop("specificity") > scores.pop("specificity")
    assert padded == pytest.approx(scores)


def test_masks_with_rounding_errors_and_of_any_type_are_read_alike(blobs):
    reference, prediction = blobs
    assert score_scan(reference * 1.00000006, prediction.astype(np.uint8), MM) == score_scan(reference, prediction, MM)


@pytest.mark.parametrize("spacing", [(1, 1), (1, 1, 0), (1, 1, math.nan)])
def test_spacing_that_is_none_is_refused(spacing):
    with pytest.raises(ScanError, match="three positive lengths in mm"):
        score_scan(np.ones((2, 2, 2)), np.ones((2, 2, 2)), spacing)


def test_masks_of_two_grids_are_refused():
    with pytest.raises(ScanError, match="one grid"):
        score_scan(np.ones((2, 2, 2)), np.ones((2, 2)), MM)


def test_a_summary_is_mean_and_sample_deviation():
    values = [0.5, 0.75, 0.9]
    summary = summarize(values)
    assert summary.mean == pytest.approx(statistics.mean(values))
    assert summary.sd == pytest.approx(statistics.stdev(values))
    assert str(summary) == "0.717 ± 0.202"


@pytest.mark.filterwarnings("error")
def test_a_summary_says_how_many_scores_were_defined():
    summary = summarize([0.5, math.nan, 0.7], digits=2)
    assert str(summary) == "0.60 ± 0.14 (2 of 3)"
    assert str(summarize([0.5])) == "0.500"
    assert str(summarize([1, 0, 1, 0, 0], digits=0)) == "0.4 ± 0.5"
    assert str(summarize([math.nan, math.nan])) == "– (0 of 2)"
    assert str(summarize([])) == "–"


def test_missed_scans_lower_the_mean_of_every_measure_that_judges_what_was_missed():
    lesion, empty = np.zeros((2, 6, 6, 6), bool)
    lesion[1:4, 1:4, 1:4] = True
    scans = [score_scan(lesion, found, MM) for found in (lesion, empty, empty)]
    for name in ("dice", "sensitivity", "lesion_sensitivity", "lesion_f1"):
        assert str(summarize(scan[name] for scan in scans)) == "0.333 ± 0.577"
    for name in ("precision", "lesion_precision", "assd_mm"):
        assert str(summarize(scan[name] for scan in scans)).endswith("(1 of 3)")
