import math
import statistics

import pytest

from planar3d.evaluation.published import (
    ALL,
    CENTERS,
    FOLD_1,
    REPRODUCED,
    TABLE_2,
    TABLE_3,
    center_of,
    implied_spreads,
)


@pytest.mark.parametrize("measure", ["dice", "sensitivity"])
def test_the_printed_means_of_the_centers_give_the_printed_mean_of_all(measure):
    centers = [TABLE_2[measure][center].mean for center in CENTERS]
    # Three means, each printed with two digits.
    assert statistics.mean(centers) == pytest.approx(TABLE_2[measure][ALL].mean, abs=0.01)


def test_the_printed_spread_of_dice_is_over_folds_not_over_scans():
    over_scans, over_folds = implied_spreads("dice")
    printed = TABLE_2["dice"][ALL].sd
    assert (round(over_scans, 2), round(over_folds, 2)) == (0.13, 0.06)
    assert abs(printed - over_folds) < 0.2 * printed
    assert over_scans > 2 * printed


def test_table_3_repeats_the_figures_of_table_2():
    _, dice, sensitivity = TABLE_3[REPRODUCED]
    assert str(dice) == str(TABLE_2["dice"][ALL]) == "0.611 ± 0.052"
    assert str(sensitivity) == str(TABLE_2["sensitivity"][ALL]) == "0.60 ± 0.10"


def test_fold_1_is_one_scan_a_center_and_has_no_spread():
    assert all(set(cells) == {*CENTERS, ALL} for cells in FOLD_1.values())
    assert all(math.isnan(cell.sd) for cells in FOLD_1.values() for cell in cells.values())


@pytest.mark.parametrize(
    ("group", "center"),
    [("01", "01"), ("Center_07", "07"), ("center 08", "08"), ("03", "03"), ("Center_03", "Center_03"), ("all", "all")],
)
def test_centers_are_known_by_either_naming_of_the_data(group, center):
    assert center_of(group) == center
