"""Tuning of the smallest innermost region, on predictions of unseen scans."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from planar3d.evaluation.challenges import score_region
from planar3d.scans.geometry import Grid, voxel_mm3
from planar3d.scans.labels import Targets

MOST_MM3 = 750.0  # larger regions are never removed, as in nnU-Net's search


@dataclass(frozen=True)
class Innermost:
    """The innermost region of one case."""

    predicted_mm3: float  # its volume in the prediction, before the rule
    dice: float  # of the region, by the challenge's rules
    dice_without: float  # without the region in the prediction: 1 if the reference has none either, else 0

    def dice_at(self, smallest_mm3: float) -> float:
        """Dice if smaller volumes become the surrounding region."""
        return self.dice if self.predicted_mm3 >= smallest_mm3 else self.dice_without


def innermost_of(targets: Targets, reference: np.ndarray, prediction: np.ndarray, grid: Grid) -> Innermost:
    """Score the innermost region of the targets.

    Args:
        targets: nested regions, the outermost first.
        reference, prediction: label maps (i, j, k) on one grid.
    """
    name = targets.names[-1]
    expert, found = targets.masks(reference)[name], targets.masks(prediction)[name]
    return Innermost(
        np.count_nonzero(found) * voxel_mm3(grid), score_region(expert, found, grid)["dice"], float(not expert.any())
    )


def mean_dice(cases: Sequence[Innermost], smallest_mm3: float) -> float:
    """Mean Dice of the innermost region if smaller volumes become the surrounding region."""
    return float(np.mean([case.dice_at(smallest_mm3) for case in cases])) if cases else math.nan


def find_smallest(cases: Iterable[Innermost]) -> tuple[float, Mapping[float, float]]:
    """The smallest volume to keep, by the mean Dice of the innermost region.

    Candidates are no rule, the midpoints between predicted volumes, and 1 mm³ above the largest, all up to `MOST_MM3`;
    other values are equivalent. Of equal results the lowest is used, as it removes least.

    Args:
        cases: predicted by networks not trained on them.

    Returns:
        the value in mm³, and the mean Dice of each candidate.

    Source: Messaoudi 2023, section 3.1.3, for the rule; Isensee 2021 for its search on validation cases.
    """
    cases = list(cases)
    volumes = sorted({case.predicted_mm3 for case in cases if case.predicted_mm3 > 0})
    above = [*volumes[1:], *(volume + 2 for volume in volumes[-1:])]
    middles = [(low + min(high, MOST_MM3)) / 2 for low, high in zip(volumes, above, strict=True) if low < MOST_MM3]
    tried = {value: mean_dice(cases, value) for value in (0.0, *middles)}
    return max(tried, key=lambda value: (tried[value], -value)), tried
