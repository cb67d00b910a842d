import math

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from stored_scans import TURNS, turned

from planar3d.errors import ScanError
from planar3d.evaluation import lesions
from planar3d.evaluation.lesions import lesion_scores

MM = (1.0, 1.0, 1.0)


def volume(*boxes):
    """A mask of boxes, each (i, j, k) of ranges or single indices, on a grid of 1 mm voxels."""
    mask = np.zeros((12, 12, 60), bool)
    for box in boxes:
        mask[tuple(slice(*part) if isinstance(part, tuple) else slice(part, part + 1) for part in box)] = True
    return mask


def bar(start, stop, row=2):
    """A lesion one voxel thick, along k."""
    return (2, row, (start, stop))


def test_identical_masks_detect_and_confirm_every_lesion():
    mask = volume(bar(0, 10), bar(20, 40), bar(50, 55))
    assert list(lesion_scores(mask, mask, MM).values()) == [1.0, 1.0, 1.0, 3, 3, 3, 3]


@pytest.mark.parametrize(("covered", "detected"), [(2, 0), (3, 1)])
def test_alpha_needs_more_than_a_tenth_of_the_lesion(covered, detected):
    reference = volume(bar(0, 20))
    prediction = volume(bar(20 - covered, 24 - covered))
    assert lesion_scores(reference, prediction, MM)["detected_lesions"] == detected


@pytest.mark.parametrize(("outside", "detected"), [(7, 1), (8, 0)])
def test_beta_lets_seven_tenths_of_a_predicted_lesion_lie_outside_and_no_more(outside, detected):
    reference = volume(bar(0, 10))
    prediction = volume(bar(7, 10 + outside))
    assert lesion_scores(reference, prediction, MM)["detected_lesions"] == detected


def test_beta_counts_what_lies_outside_all_lesions_not_outside_the_one():
    reference = volume(bar(0, 4), bar(6, 30))
    prediction = volume(bar(0, 30))
    # Of the predicted lesion 26 of 30 voxels are outside the first reference lesion, but only 2 on background.
    assert lesion_scores(reference, prediction, MM)["detected_lesions"] == 2


def spilling(overlap, rows_outside, start):
    """A predicted lesion that shares `overlap` voxels with a bar in row 2 and spills over into the rows above."""
    return (2, (2, 3 + rows_outside), (start, start + overlap))


@pytest.mark.parametrize(
    ("first", "second", "detected"),
    [(13, 7, 1), (12, 8, 0)],
    ids=["0.65 of the overlap reaches gamma", "0.60 does not, so the spilling lesion is asked"],
)
def test_gamma_asks_predicted_lesions_until_their_overlap_reaches_it(first, second, detected):
    reference = volume(bar(0, 40))
    prediction = volume(bar(0, first), spilling(second, rows_outside=4, start=30))
    assert lesion_scores(reference, prediction, MM)["detected_lesions"] == detected


def test_the_largest_overlap_is_asked_first():
    reference = volume(bar(0, 40))
    prediction = volume(bar(0, 7), spilling(13, rows_outside=4, start=20))
    # The same two shares as above, but now the larger one spills over.
    assert lesion_scores(reference, prediction, MM)["detected_lesions"] == 0


def test_of_equal_overlaps_the_larger_predicted_lesion_is_asked_first(monkeypatch):
    monkeypatch.setattr(lesions, "GAMMA", 0.5)
    reference = volume(bar(0, 40))
    spilled, within = spilling(10, rows_outside=4, start=20), bar(0, 10)
    assert lesion_scores(reference, volume(within, spilled), MM)["detected_lesions"] == 0


def test_precision_is_sensitivity_with_the_roles_exchanged():
    rng = np.random.default_rng(3)
    reference, prediction = (ndimage.gaussian_filter(rng.standard_normal((24, 24, 24)), 1.5) > 0.12 for _ in range(2))
    there, back = lesion_scores(reference, prediction, MM), lesion_scores(prediction, reference, MM)
    sensitivity, precision, f1, *_ = there.values()
    assert [*back.values()][:3] == [precision, sensitivity, f1]
    assert 0 < sensitivity < 1


@pytest.mark.parametrize(
    ("voxels", "spacing", "count"),
    [
        (3, MM, 0),
        (4, MM, 1),
        (3, np.float32([1.0000001, 1, 1]), 0),
        (6, (0.5, 1, 1), 0),
        (7, (0.5, 1, 1), 1),
        (1, (1, 1, 3.5), 1),
    ],
)
def test_components_must_be_strictly_larger_than_three_cubic_millimetres(voxels, spacing, count):
    mask = volume(bar(0, voxels))
    assert lesion_scores(mask, mask, spacing)["reference_lesions"] == count


def test_a_dropped_component_counts_as_background(monkeypatch):
    reference = volume(bar(0, 10), bar(12, 14))
    prediction = volume(bar(7, 18))
    # 3 of 11 voxels on the lesion, 2 on the dropped one: 8/11 outside is too much, 6/11 would not be.
    assert lesion_scores(reference, prediction, MM)["detected_lesions"] == 0
    monkeypatch.setattr(lesions, "MINIMUM_MM3", 0)
    assert lesion_scores(reference, prediction, MM)["detected_lesions"] == 2


@pytest.mark.parametrize(("other", "count"), [((2, 0, 0), 1), ((2, 2, 0), 2), ((2, 2, 2), 2)])
def test_lesions_are_joined_over_faces_and_neither_edges_nor_corners(other, count):
    mask = volume(((0, 2),) * 3, tuple((first, first + 2) for first in other))
    assert lesion_scores(mask, mask, MM)["reference_lesions"] == count


def test_nothing_divided_by_nothing_is_nan_and_f1_0_wherever_lesions_are():
    lesion, nothing = volume(bar(0, 10)), volume()
    nan = math.nan
    for pair, expected in (
        ((lesion, nothing), (0, nan, 0)),
        ((nothing, lesion), (nan, 0, 0)),
        ((nothing, nothing), (nan, nan, nan)),
        ((lesion, volume(bar(20, 30))), (0, 0, 0)),
    ):
        np.testing.assert_array_equal([*lesion_scores(*pair, MM).values()][:3], expected)
    # A speck in the prediction, too small to count as a lesion, changes nothing.
    assert lesion_scores(lesion, volume(bar(20, 22)), MM)["lesion_f1"] == 0
    assert math.isnan(lesion_scores(nothing, volume(bar(20, 22)), MM)["lesion_f1"])


def by_the_definition(reference, prediction, minimum_voxels):
    """The rule as the challenge words it, over a dense table that holds the background as its first row and column."""
    labels = []
    for mask in (reference, prediction):
        components, number = ndimage.label(mask)
        large = [c for c in range(1, number + 1) if np.count_nonzero(components == c) > minimum_voxels]
        labels.append(sum(np.where(components == c, place, 0) for place, c in enumerate(large, start=1)))
    table = np.zeros([array.max() + 1 for array in labels], int)
    np.add.at(table, (labels[0].ravel(), labels[1].ravel()), 1)

    def detected(table):
        number = 0
        for row in table[1:]:
            if row[1:].sum() <= 0.1 * row.sum():
                continue
            overlapping = sorted(
                (c for c in range(1, table.shape[1]) if row[c]), key=lambda c: (-row[c], -table[:, c].sum())
            )
            summed, accepted = 0, True
            for column in overlapping:
                accepted &= table[0, column] <= 0.7 * table[:, column].sum()
                summed += row[column]
                if summed >= 0.65 * row[1:].sum():
                    break
            number += accepted
        return number

    return detected(table), detected(table.T)


@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_the_definition_taken_word_by_word(seed):
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.standard_normal((30, 30, 30)), 1.2)
    other = field + 0.9 * ndimage.gaussian_filter(rng.standard_normal((30, 30, 30)), 1.2)
    reference, prediction = field > 0.16, other > 0.2
    scores = lesion_scores(reference, prediction, MM)
    assert (
        scores["detected_lesions"],
        scores["confirmed_lesions"],
    ) == by_the_definition(reference, prediction, 3)
    assert 0 < scores["detected_lesions"] < scores["reference_lesions"]


def test_orientation_of_the_storage_does_not_matter():
    rng = np.random.default_rng(1)
    reference, prediction = (ndimage.gaussian_filter(rng.standard_normal((20, 24, 28)), 1) > 0.2 for _ in range(2))
    affine = np.diag([1, 2, 3, 1])
    scores = lesion_scores(reference, prediction, (1, 2, 3))
    for turn in TURNS:
        (here, there), (prediction_here, _) = (turned(mask, affine, turn) for mask in (reference, prediction))
        assert lesion_scores(here, prediction_here, nib.affines.voxel_sizes(there)) == scores


def test_masks_of_two_grids_are_refused():
    with pytest.raises(ScanError, match=r"\(3, 3, 3\).*\(3, 3, 4\)"):
        lesion_scores(np.zeros((3, 3, 3)), np.zeros((3, 3, 4)), MM)
