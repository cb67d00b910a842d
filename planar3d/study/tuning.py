"""The rule on small innermost regions, tuned on a cross-validation's predictions and written into a weights file."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from planar3d.errors import RunError
from planar3d.evaluation.smallest_region import Innermost, find_smallest, innermost_of, mean_dice
from planar3d.files import written_beside
from planar3d.recipes import Recipe
from planar3d.scans.volume import read_labels
from planar3d.study.run_folder import Run
from planar3d.study.sources import require_unchanged
from planar3d.transfer.metadata import RECIPE, read_metadata, write_metadata
from planar3d.wording import counted

FIELD = "smallest_innermost_mm3"


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
            or a test case has changed since.
        ScanError: a label map cannot be read.
    """
    targets = run.recipe.targets
    rule = targets.to_json().get(FIELD)
    if rule != 0:
        said = "no such rule" if rule is None else f"{FIELD}={rule:g}"
        raise RunError(
            f"{run.folder}: targets={targets.name!r} with {said}. A run with nested regions and {FIELD}=0 is needed, "
            "because its predictions still contain small regions."
        )
    folds = [found for number in range(1, len(run.folds) + 1) if (found := _predicted(run, number))]
    if len(folds) < 2:
        raise RunError(f"{run.folder} has {counted(folds, 'fold')} with predictions; two are needed. Run more folds.")
    everything = [case for cases in folds for case in cases]
    smallest, tried = find_smallest(everything)
    crossed = 0.0
    for number, cases in enumerate(folds):
        others = [case for other, its in enumerate(folds) if other != number for case in its]
        crossed += mean_dice(cases, find_smallest(others)[0]) * len(cases) / len(everything)
    return Tuned(smallest, targets.names[-1], len(everything), tried[0.0], crossed, tried[smallest])


def write_rule(weights: Path, smallest_mm3: float) -> None:
    """Write the value into the recipe of a weights file; its arrays are unchanged.

    Raises:
        RunError: the file's recipe does not have that rule.
        RecipeError: its recipe has another version.
        WeightsError: the file is missing or damaged.
    """
    carried = read_metadata(weights).get(RECIPE)
    recipe = Recipe.from_json(carried, str(weights)) if carried else None
    if recipe is None or FIELD not in recipe.targets.to_json():
        raise RunError(
            f"{weights} has no recipe with nested regions; the network of a run with nested regions is needed."
        )
    with written_beside(weights) as temporary:
        shutil.copyfile(weights, temporary)
        write_metadata(temporary, {RECIPE: recipe.changed(**{FIELD: smallest_mm3}).to_json()})


def _predicted(run: Run, number: int) -> list[Innermost]:
    """The innermost regions of a fold's test cases with predictions."""
    found = []
    for name in run.folds[number - 1].test:
        path = run.predicted(name, number)
        if path.is_file():
            require_unchanged(run, name)
            prediction = read_labels(path)
            reference = run.recipe.targets.read(run.cases[name].label_map, prediction, assume_affine=True)
            found.append(innermost_of(run.recipe.targets, reference.voxels, prediction.voxels, prediction.affine))
    return found
