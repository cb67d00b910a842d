"""The content of a run folder: its recipe, folds, environment, and the scores and learning curves of its folds."""

import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from planar3d.errors import RecipeError, RunError, WeightsError
from planar3d.evaluation.challenges import MEASURE_SETS, MeasureSet
from planar3d.evaluation.published import center_of
from planar3d.evaluation.scores import MEASURES, Measure
from planar3d.files import read_json, read_rows
from planar3d.recipes import Recipe
from planar3d.scans.folds import shared_patients
from planar3d.scans.volume import Scan, read_scan
from planar3d.study.run_folder import Run, open_run
from planar3d.study.sources import require_as_scored, require_unchanged
from planar3d.transfer.metadata import CARD, RECIPE, mapping_in, plain_text, read_metadata
from planar3d.wording import listed

# The network's input (the paper's 256³), and the grid of the scan's file.
GRIDS = ("prepared", "native")
_COLUMNS = ("scan", "group", "fold", "grid")
_TRAINED = ("preparation", "tiles", "network", "training")  # sections that no later command writes into a weights file
LESION = "lesion"  # the target in files without targets


@dataclass(frozen=True)
class ScanScores:
    """The scores of one target in one test scan on one grid; `values` has a key for each of the run's measures."""

    scan: str
    group: str
    fold: int
    grid: str
    target: str
    values: dict[str, float]

    @property
    def center(self) -> str:
        """The center's code, or the group if it is not one of the challenge's."""
        return center_of(self.group)


@dataclass(frozen=True)
class Results:
    """The results of a run so far."""

    run: Run
    environment: dict[str, Any]
    scans: list[ScanScores]

    @property
    def page(self) -> Path:
        """The page of the run's report."""
        return self.run.folder / "report" / "report.html"

    @property
    def measure_set(self) -> MeasureSet:
        """The challenge's measures for the run's targets."""
        return MEASURE_SETS[self.run.recipe.targets.measures]

    @property
    def measures(self) -> dict[str, Measure]:
        """All measures of a scan."""
        return {**MEASURES, **self.measure_set.measures}

    @property
    def is_phantom(self) -> bool:
        """Whether the scans are a phantom's, see `write_phantom`."""
        return bool(self.run.data.get("phantom"))

    @cached_property
    def notes(self) -> list[str]:
        """Notes on the limits of the scores."""
        notes = []
        if self.is_phantom:
            size = " at reduced size" if self.run.recipe.preparation.plane[0] < 256 else ""
            notes.append(
                f"The scans are a phantom{size}; their scores show that the method runs and learns, but say "
                "nothing about patients."
            )
        notes += shared_patients(self.run.folds, self.run.patients)
        scored = {(scan.fold, scan.scan, scan.grid, scan.target) for scan in self.scans}
        numbers = range(1, len(self.run.folds) + 1)
        for number in numbers:
            if other := _trained_otherwise(self.run.fold(number), self.environment):
                notes.append(f"Fold {number} was not trained as environment.json says: {other}.")
        if absent := sorted({*numbers} - {scan.fold for scan in self.scans}):
            which = ", ".join(f"fold {number}" for number in absent)
            notes.append(f"Missing: {which} of {len(numbers)}. The tables cover the others.")
        for number in sorted({*numbers} - {*absent}):
            if lacks := [each for each in expected_scores(self.run, number) if (number, *each) not in scored]:
                named = listed(f"{scan} ({target}, {grid} grid)" for scan, grid, target in lacks)
                notes.append(f"Fold {number} lacks the scores of {named}. Run the cross-validation again to score it.")
        return notes

    @property
    def targets(self) -> list[str]:
        """The scored targets, in order."""
        return list(dict.fromkeys(scan.target for scan in self.scans))

    @property
    def of_lesions(self) -> bool:
        """Whether only lesions are scored, so that published figures exist for comparison."""
        return self.targets == [LESION]

    def on(self, grid: str, target: str | None = None) -> list[ScanScores]:
        """Return the scores of a target, by default the first, on one grid."""
        target = target or self.targets[0]
        return [scan for scan in self.scans if (scan.grid, scan.target) == (grid, target)]

    def grid_label(self, grid: str) -> str:
        """Return the name of a grid in tables."""
        return "native grid" if grid == "native" else self.run.recipe.preparation.label()

    def histories(self) -> dict[int, dict[str, np.ndarray]]:
        """Return the columns of each fold's history.csv as float arrays over the epochs; unreadable cells are nan."""
        return {number: _read_history(path) for number, path in _in_folds(self.run.folder, "history.csv").items()}


def read_results(folder: str | Path | Run) -> Results:
    """Read a run folder, or the results of an open run.

    Raises:
        RunError: it is not one, no fold is scored yet, a fold is another run's, or a file is damaged.
    """
    run = folder if isinstance(folder, Run) else open_run(folder)
    about, scans = run.folder / "environment.json", list[ScanScores]()
    results = Results(run, read_json(about, dict) if about.is_file() else {}, scans)
    for number, path in _in_folds(run.folder, "scores.csv").items():
        found = _read_scores(run, path, results.measures)
        test = run.folds[number - 1].test if number <= len(run.folds) else ()
        if others := sorted({scan.scan for scan in found if scan.fold != number or scan.scan not in test}):
            said = f"{path} has scores of {', '.join(others)}, which fold {number} of this run does not test"
            raise _foreign(run, number, said)
        require_own_weights(run, number)
        scans += found
    if not scans:
        raise RunError(
            f"{run.folder} has no scores yet: fold-*/scores.csv is missing or empty. Train and score at least one fold "
            "first."
        )
    return results


def read_maps(run: Run, name: str, number: int) -> tuple[Scan, Scan, Scan]:
    """The first image of a fold's test scan, and on its grid the expert's label map and the predicted one.

    Raises:
        RunError: a file of the scan has changed since it was prepared, or the predicted map since it was scored.
        ScanError: one of them cannot be read.
    """
    require_unchanged(run, name)
    case, read = run.cases[name], run.recipe.targets.read
    scan = read_scan(next(iter(case.images.values())), assume_affine=True, flat=True)
    files = case.label_map, run.predicted(name, number)
    reference, prediction = (read(file, scan, assume_affine=True) for file in files)
    require_as_scored(run, name, number)
    return scan, reference, prediction


def expected_scores(run: Run, number: int) -> Iterable[tuple[str, str, str]]:
    """Every test scan of a fold on both grids, with every target."""
    return product(run.folds[number - 1].test, GRIDS, run.recipe.targets.names)


def require_own_weights(run: Run, number: int) -> None:
    """Raise a `RunError` if a fold's weights are of another recipe or of other training scans, so of another fold."""
    weights, why = run.fold(number) / "best.weights.h5", ""
    with suppress(OSError, LookupError, WeightsError, RecipeError):  # which is told where they are used
        said = read_metadata(weights) if weights.is_file() else {}
        written, held_out = Recipe.from_json(said[RECIPE]), run.recipe.training.samples.holds_out
        expected = run.folds[number - 1].trained(held_out)
        if others := [name for name in _TRAINED if getattr(written, name) != getattr(run.recipe, name)]:
            why = f"{weights} was trained with a recipe that differs from recipe.json in {' and '.join(others)}"
        told = mapping_in(said[CARD].get("data"))
        compared = expected if held_out else ("scans",)  # older cards count scans for validation there, but all train
        if not why and any(told.get(key, expected[key]) != expected[key] for key in compared):
            scans = plain_text(told.get("scans", "other scans"))
            why = f"{weights} was trained on {scans}, but fold {number} of this run on {expected['scans']}"
    if why:
        raise _foreign(run, number, why)


def _trained_otherwise(fold: Path, started: Mapping[str, Any]) -> str:
    """The versions, precision and machine with which a fold was trained, if the run was started with others."""
    found: Mapping[str, Any] = {}
    with suppress(OSError, LookupError, WeightsError):
        card = read_metadata(fold / "best.weights.h5")[CARD]
        found = {**mapping_in(card.get("versions")), **mapping_in(card.get("training"))}
    others = {name: made for name, made in found.items() if started.get(name, made) != made}
    return "; ".join(f"{name} {plain_text(made)} instead of {started[name]}" for name, made in others.items())


def _foreign(run: Run, number: int, why: str) -> RunError:
    folder = run.fold(number)
    return RunError(f"{why}. Move {folder} back to its own run folder, or delete it to train the fold again.")


def _in_folds(run: Path, name: str) -> dict[int, Path]:
    folds = {int(path.name[5:]): path for path in run.glob("fold-*") if path.name[5:].isdigit()}
    # Listed, as glob passes over a folder that cannot be opened.
    return {number: folds[number] / name for number in sorted(folds) if name in os.listdir(folds[number])}


def _read_scores(run: Run, path: Path, measures: Mapping[str, Measure]) -> list[ScanScores]:
    """The scores in a table; a `RunError` if it was edited, e.g. by a spreadsheet that changed the group 01 to 1."""
    scans = dict[tuple[str, str, str], ScanScores]()
    for line, row in enumerate(read_rows(path), start=2):
        try:
            if absent := [name for name in (*_COLUMNS, *measures) if row.get(name) is None]:
                raise ValueError(f"it lacks {', '.join(absent)}")
            scan, group, grid, target = row["scan"], row["group"], row["grid"], row.get("target") or LESION
            if scan in run.cases and group != (known := run.cases[scan].group):
                raise ValueError(f"{scan} is in group {group!r}, but in {known!r} in folds.json")
            for name, given, choices in (("grid", grid, GRIDS), ("target", target, run.recipe.targets.names)):
                if given not in choices:
                    raise ValueError(f"the {name} {given!r} is not one of this run's: {', '.join(choices)}")
            if (scan, grid, target) in scans:
                raise ValueError(f"it has the scores of {scan} on the {grid} grid more than once")
            # An undefined score is written as nan or is empty.
            values = {name: float(row[name] or "nan") for name in measures}
            scans[scan, grid, target] = ScanScores(scan, group, int(row["fold"]), grid, target, values)
        except ValueError as error:
            raise RunError(
                f"{path}, line {line}: {error}. Delete the file, and run the same command again to score the fold."
            ) from None
    return [*scans.values()]


def _read_history(path: Path) -> dict[str, np.ndarray]:
    rows = read_rows(path)
    names = [name for name in (rows[0] if rows else ()) if name]
    return {name: np.array([_number(row.get(name)) for row in rows]) for name in names}


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
