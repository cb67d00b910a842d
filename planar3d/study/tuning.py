"""The rule on small innermost regions, tuned on a cross-validation's predictions and written into a weights file."""

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planar3d.errors import RunError
from planar3d.evaluation.scores import dice
from planar3d.files import written_beside
from planar3d.locks import alone_with
from planar3d.recipes import Recipe
from planar3d.scans.geometry import Grid, voxel_mm3
from planar3d.scans.labels import Targets
from planar3d.scans.volume import read_labels
from planar3d.study.results import require_own_weights
from planar3d.study.run_folder import Run
from planar3d.study.sources import require_as_scored, require_unchanged
from planar3d.transfer.metadata import RECIPE, read_metadata, write_metadata
from planar3d.wording import counted

FIELD = "smallest_innermost_mm3"
_DIGITS = 12  # of a mean: sums of equal results can differ in the last bits
MOST_MM3 = 750.0  # larger regions are never removed, as in nnU-Net's search


def innermost_of(
    targets: Targets, reference: np.ndarray, prediction: np.ndarray, grid: Grid
) -> tuple[float, float, float]:
    """Score the innermost region of the targets in one case, for `find_smallest`.

    Args:
        targets: nested regions, the outermost first.
        reference, prediction: label maps (i, j, k) on one grid; the prediction without the rule.

    Returns:
        The region's volume in the prediction in mm³, its Dice, and its Dice if the prediction did not have it.
    """
    name = targets.names[-1]
    expert, found = targets.masks(reference)[name], targets.masks(prediction)[name]
    score = dice(expert, found)
    with_it = 1.0 if math.isnan(score) else score  # by the challenge's rules
    return np.count_nonzero(found) * voxel_mm3(grid), with_it, float(not expert.any())


def mean_dice(cases: np.ndarray, smallest_mm3: float) -> float:
    """Mean Dice of the innermost region if smaller volumes become the surrounding region; cases as `find_smallest`."""
    predicted, with_it, without = cases.T
    return float(np.mean(np.where(predicted >= smallest_mm3, with_it, without)))


def find_smallest(cases: np.ndarray) -> tuple[float, Mapping[float, float]]:
    """The smallest volume to keep, by the mean Dice of the innermost region.

    Candidates are no rule, the midpoints between predicted volumes, and 1 mm³ above the largest, all up to `MOST_MM3`;
    other values are equivalent. Of equal results the lowest is used, as it removes least.

    Args:
        cases: (cases, 3), rows of `innermost_of`, predicted by networks not trained on them.

    Returns:
        the value in mm³, and the mean Dice of each candidate.

    Source: Messaoudi 2023, section 3.1.3, for the rule; Isensee 2021 for its search on validation cases.
    """
    volumes = sorted({volume for volume in cases[:, 0].tolist() if volume > 0})
    above = [*volumes[1:], *(volume + 2 for volume in volumes[-1:])]
    middles = [(low + min(high, MOST_MM3)) / 2 for low, high in zip(volumes, above, strict=True) if low < MOST_MM3]
    tried = {value: mean_dice(cases, value) for value in (0.0, *middles)}
    return max(tried, key=lambda value: (round(tried[value], _DIGITS), -value)), tried


@dataclass(frozen=True)
class Tuned:
    """The tuned value, and its effect."""

    smallest_mm3: float  # best for all cases of the run
    region: str  # its name
    cases: int  # number of cases
    without: float  # mean Dice of the region without the rule
    crossed: float  # the same with each fold's value tuned on the other folds
    best: float  # the same at `smallest_mm3`, on the tuning cases

    def __str__(self) -> str:
        return (
            f"{self.region} smaller than {self.smallest_mm3:g} mm³ is relabelled: mean Dice {self.best:.4f} of "
            f"{counted(self.cases, 'test case')}, {self.without:.4f} without the rule; {self.crossed:.4f} if each "
            "fold uses the value tuned on the others"
        )


def tune(run: Run) -> Tuned:
    """Tune the smallest innermost region on the test cases of a run, on which their networks were not trained.

    Raises:
        RunError: the targets do not have that rule, or already have a value; or fewer than two folds have predictions;
            or a fold is another run's, or a test case or its prediction has changed since.
        RecipeError: the last region is not within the one before.
        ScanError: a label map cannot be read.
    """
    targets = run.recipe.targets
    rule = targets.to_json().get(FIELD)
    if rule is None:
        raise RunError(
            f"{run.folder} has targets={targets.name!r}, without nested regions. Name a run with targets='regions', "
            "e.g. of the recipe messaoudi2023-ds."
        )
    if rule:
        raise RunError(
            f"{run.folder} was made with {FIELD}={rule:g}, so its predictions lack the regions below that volume. Name "
            f"a run with {FIELD}=0."
        )
    run.recipe.changed(**{FIELD: MOST_MM3})  # refuses a last region that is not within the one before
    folds = [np.array(found) for number in range(1, len(run.folds) + 1) if (found := _predicted(run, number))]
    if len(folds) < 2:
        raise RunError(f"{run.folder} has {counted(folds, 'fold')} with predictions; two are needed. Run more folds.")
    everything = np.concatenate(folds)
    smallest, tried = find_smallest(everything)
    crossed = 0.0
    for number, cases in enumerate(folds):
        others = np.concatenate(folds[:number] + folds[number + 1 :])
        crossed += mean_dice(cases, find_smallest(others)[0]) * len(cases) / len(everything)
    return Tuned(smallest, targets.names[-1], len(everything), tried[0.0], crossed, tried[smallest])


def write_rule(weights: Path, smallest_mm3: float, tuned: Targets) -> None:
    """Write the value for these targets into the recipe of a weights file; its arrays are unchanged.

    Raises:
        RunError: the file's recipe does not have that rule, or has other regions.
        RecipeError: its recipe has another version.
        WeightsError: the file is missing or damaged.
    """
    carried = read_metadata(weights).get(RECIPE)
    recipe = Recipe.from_json(carried, str(weights)) if carried else None
    if recipe is None or FIELD not in recipe.targets.to_json():
        raise RunError(
            f"{weights} has no recipe with nested regions; the network of a run with nested regions is needed."
        )
    if [*recipe.targets.scored.items()] != [*tuned.scored.items()]:
        own, others = (", ".join(targets.to_json()["regions"]) for targets in (recipe.targets, tuned))
        raise RunError(f"{weights} has the regions {own}, but the run {others}. Name weights with the run's regions.")
    with alone_with(weights), written_beside(weights) as temporary:
        shutil.copyfile(weights, temporary)
        write_metadata(temporary, {RECIPE: recipe.changed(**{FIELD: smallest_mm3}).to_json()})


def _predicted(run: Run, number: int) -> list[tuple[float, float, float]]:
    require_own_weights(run, number)
    found = []
    for name in run.folds[number - 1].test:
        path = run.predicted(name, number)
        if path.is_file():
            require_unchanged(run, name)
            prediction = read_labels(path)
            require_as_scored(run, name, number)
            run.recipe.targets.check_labels(prediction.voxels, str(path))
            reference = run.recipe.targets.read(run.cases[name].label_map, prediction, assume_affine=True)
            found.append(innermost_of(run.recipe.targets, reference.voxels, prediction.voxels, prediction.affine))
    return found
