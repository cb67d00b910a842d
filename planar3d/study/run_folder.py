"""The run folder: recipe, scans, folds and versions; written once, later runs must agree with it."""

import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planar3d.environment import machine, versions
from planar3d.errors import Planar3DWarning, RecipeError, RunError
from planar3d.files import read_json, why_too_long, write_json
from planar3d.locks import CLAIM, locked
from planar3d.progress import Notify, tell
from planar3d.recipes import Recipe
from planar3d.scans.case import Case, Dataset, read_images, require_one_grid
from planar3d.scans.folds import Fold, shared_patients
from planar3d.study.sources import require_same_weights, weights_sha256

# What another one of these files is called, and its content in today's form: without a field it means what it did then.
_KEPT: dict[str, tuple[str, Callable[[Path], dict[str, Any]]]] = {
    "recipe.json": ("another recipe", lambda path: _read_recipe(path).to_json()),
    "folds.json": ("other folds", lambda path: _folds_json(*read_json(path, _read_folds))),
}
_PARTS = {"data": "another data set", "scans": "other scans"}  # of folds.json, in its order


@dataclass(frozen=True)
class Run:
    """A run folder with its recipe, cases and folds, and the place and layout of their data set."""

    folder: Path
    recipe: Recipe
    cases: dict[str, Case]
    folds: list[Fold]
    data: dict[str, Any]

    @property
    def patients(self) -> dict[str, str]:
        """The patient of each scan."""
        return {scan: case.patient for scan, case in self.cases.items()}

    def prepared(self, scan: str) -> Path:
        """Folder of a prepared scan."""
        return self.folder / "prepared" / scan

    def features(self, scan: str, number: int) -> Path:
        """Folder of a scan's cached encoder features in a fold."""
        # A layer scaled by a fold's own scans may be one of the encoder, whose features are then specific to that fold.
        is_shared = {"bridge", "decoder"}.issuperset(self.recipe.training.unit_variance)
        return (self.folder if is_shared else self.fold(number)) / "features" / scan

    def fold(self, number: int) -> Path:
        """Folder of a fold, counted from 1."""
        return self.folder / f"fold-{number}"

    def predicted(self, scan: str, number: int) -> Path:
        """The mask of a test scan of a fold, on its native grid."""
        return self.fold(number) / "predictions" / f"{scan}_mask.nii.gz"

    def picture(self, scan: str, number: int) -> Path:
        """The picture of a test scan of a fold in the report, with its mask."""
        return self.folder / "report" / "figures" / f"overlay_{scan}_fold-{number}.png"


def start_run(
    folder: str | Path, dataset: Dataset, recipe: Recipe, folds: Sequence[Fold], notify: Notify = tell
) -> Run:
    """Create a run folder, or continue in one with the same recipe, scans and folds.

    Args:
        dataset: the cases; their paths are written to folds.json.
        notify: gets a message when waiting for another process that is starting a run there.

    Raises:
        RunError: the folder has another recipe, other scans, other folds, or other files; the encoder's weights have
            changed; a case's id is too long for the names of its files.
        DatasetError: cases lack an image required by the recipe, or its targets' labels differ from the data set's.
        RecipeError: the recipe does not fit its network, see `check_with_network`, or needs more scans in a fold.
        ScanError: in a new folder, the first case's label map does not fit the recipe's targets or its image.
    """
    folder = Path(folder)
    dataset.require(recipe.preparation.images)
    dataset.require_meaning(recipe.targets.scored)
    cases = dataset.by_id()
    used = sorted({scan for fold in folds for scan in (*fold.train, *fold.validation, *fold.test)})
    data = {"folder": os.path.abspath(dataset.folder), "layout": dataset.layout, "phantom": dataset.is_phantom}
    run = Run(folder, recipe, {scan: cases[scan] for scan in used}, list(folds), data)
    requested = {"recipe.json": recipe.to_json(), "folds.json": _folds_json(run.cases, folds, data)}
    if why := why_too_long(run.picture(scan, len(folds)) for scan in used):
        raise RunError(f"{dataset.folder}: {why} Give the case a shorter id.")
    # First, so that nothing is written for a recipe that cannot be trained, or without the encoder's weights, and the
    # same folder can be used with another recipe.
    if not (folder / "environment.json").is_file():
        check_with_network(recipe)
        for fold in folds:
            recipe.training.samples.split(len(fold.train), len(fold.validation), recipe.slices, recipe.tiles)
        require_one_grid(run.cases.values(), recipe.preparation.images)  # names all such cases, not only the first
        _check_labels(recipe, run.cases[used[0]])
        requested["environment.json"] = environment(recipe)
    else:
        require_same_weights(folder / "environment.json", recipe)
    for sentence in shared_patients(folds, run.patients):
        warnings.warn(sentence, Planar3DWarning, stacklevel=2)
    with locked(folder, "starting a run", wait=notify):
        there = {path.name for path in folder.iterdir()} - {CLAIM}
        if there and there.isdisjoint(("recipe.json", "environment.json")):
            raise RunError(f"{folder} is neither empty nor a run folder; name an empty or new one with --out.")
        _agree(folder, requested)
    return run


def check_with_network(recipe: Recipe) -> None:
    """Refuse a recipe that cannot train as it says: loss, schedule, sizes, frozen or scaled layers, cached features.

    Raises:
        RecipeError: names the field.
    """
    # Here, as reading a run needs neither Keras nor TensorFlow.
    from planar3d.networks.registry import describe_network, find_architecture
    from planar3d.training.features import check_cacheable
    from planar3d.training.initialization import initial_network, layers_named

    recipe.training.loss.check_with(recipe.targets)
    recipe.training.schedule.check_with(recipe.training.learning_rate)
    divisors = find_architecture(recipe.network.name).divisors(describe_network(recipe)["arguments"])
    for axis, length, divisor in zip(("slices", "rows", "columns"), recipe.sample, divisors, strict=False):
        if length is None and (divisor > 1 or recipe.training.batch_size > 1):
            needed = f"multiples of {divisor}" if divisor > 1 else "samples of one size in a batch"
            raise RecipeError(
                f"training samples have all {axis} of a scan, whose number differs between scans, but "
                f"{recipe.network.name} needs {needed}; set the length of a tile along that axis."
            )
    is_file = Path(recipe.network.encoder_weights).is_file()  # which may not fit
    network = initial_network(recipe if is_file else recipe.changed(encoder_weights="none"))
    scaled = layers_named(network, recipe, "unit_variance")
    if unlike := [name for name in scaled if not hasattr(network.get_layer(name), "kernel")]:
        raise RecipeError(f"unit_variance: {unlike[0]} has no kernel to scale; name layers that have one.")
    check_cacheable(recipe)


def _check_labels(recipe: Recipe, case: Case) -> None:
    """Refuse the labels of a case that the recipe's targets lack; files without geometry are refused later."""
    name = recipe.preparation.images[0]
    scan = read_images({name: case.images[name]}, assume_affine=True, flat=recipe.preparation.flat)[name]
    recipe.targets.read(case.label_map, scan, assume_affine=True)


def _agree(folder: Path, requested: dict[str, Any]) -> None:
    """Write a requested file, or compare the request with the existing file."""
    for name, content in requested.items():
        if not (folder / name).is_file():
            write_json(folder / name, content)
        elif name in _KEPT:  # another process may have just written its own environment
            other, read = _KEPT[name]
            found = read(folder / name)
            if name == "folds.json" and _were_moved(found, content):
                write_json(folder / name, content)
            elif found != content:
                other = next((name for part, name in _PARTS.items() if found.get(part) != content.get(part)), other)
                difference = _difference(found, content)
                raise RunError(
                    f"{folder} was made with {other} ({difference}). Use the same, or another folder with --out."
                )


def _were_moved(found: dict[str, Any], requested: dict[str, Any]) -> bool:
    """Whether two contents of folds.json have the same files and folds, in an old folder that is gone and a new one."""

    def within(content: dict[str, Any]) -> Any:
        def relative(value: Any) -> Any:
            is_path = isinstance(value, str) and os.path.isabs(value)
            return os.path.relpath(value, content["data"]["folder"]) if is_path else value

        return json.loads(json.dumps(content), object_hook=lambda row: {k: relative(v) for k, v in row.items()})

    return not os.path.exists(found["data"]["folder"]) and within(found) == within(requested)


def is_run(folder: str | Path) -> bool:
    """Whether a folder is a run folder."""
    return all((Path(folder) / name).is_file() for name in _KEPT)


def open_run(folder: str | Path) -> Run:
    """Open an existing run folder."""
    folder = Path(folder)
    if lacking := [name for name in _KEPT if not (folder / name).is_file()]:
        why = f"has no {lacking[0]}" if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
        raise RunError(
            f"{folder} is not a run folder: it {why}. Name a folder that planar3d crossval has written; report also "
            "takes folders of planar3d predict."
        )
    cases, folds, data = read_json(folder / "folds.json", _read_folds)
    return Run(folder, _read_recipe(folder / "recipe.json"), cases, folds, data)


def _read_recipe(path: Path) -> Recipe:
    return Recipe.from_json(read_json(path), str(path))


def _read_folds(content: Any) -> tuple[dict[str, Case], list[Fold], dict[str, Any]]:
    cases = {scan: Case.from_json(scan, row) for scan, row in content["scans"].items()}
    folds = [Fold(**{k: tuple(v) for k, v in row.items()}) for row in content["folds"]]
    if unknown := {scan for fold in folds for part in vars(fold).values() for scan in part} - cases.keys():
        raise ValueError(f"its folds have {', '.join(map(str, unknown))}, not among its scans")
    return cases, folds, {**content["data"], "folder": os.fspath(content["data"]["folder"])}


def _folds_json(cases: Mapping[str, Case], folds: Iterable[Fold], data: Mapping[str, Any]) -> dict[str, Any]:
    scans = {scan: case.to_json() for scan, case in cases.items()}
    return {"data": data, "scans": scans, "folds": list(map(vars, folds))}


def environment(recipe: Recipe) -> dict[str, Any]:
    """Versions and machine, for the report's conditions."""
    import keras

    from planar3d.networks.registry import weight_source
    from planar3d.training.precision import computed_precision

    return {
        **versions(),
        "backend": keras.backend.backend(),
        "machine": machine(),
        "precision": computed_precision(recipe.training.precision),
        "seed": recipe.training.seed,
        # Found before any work, so that missing ones end a run at once.
        "encoder_weights": weight_source(recipe).origin(recipe.network.encoder_weights),
        **weights_sha256(recipe),
    }


def _difference(found: Any, requested: Any, where: str = "") -> str:
    if where == "folds" and len(found) != len(requested):
        return f"{len(found)} there, {len(requested)} now"
    there, now = (dict(enumerate(v)) if isinstance(v, list | tuple) else v for v in (found, requested))
    if isinstance(there, dict) and isinstance(now, dict):
        key = next(key for key in (*now, *there) if key not in there or key not in now or there[key] != now[key])
        where = f"{where}.{key}" if where else str(key)
        if key not in there or key not in now:
            return f"{where}: only {'there' if key in there else 'now'}"
        return _difference(there[key], now[key], where)
    return f"{where}: {str(found)[:200]} there, {str(requested)[:200]} now"
