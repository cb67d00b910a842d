"""A complete reproduction in one call: data or phantom, folds, masks, scores, tables and report."""

from pathlib import Path
from typing import Any

from planar3d.errors import FoldsError
from planar3d.extras import check_study_extra
from planar3d.locks import alone_with
from planar3d.progress import Notify, tell
from planar3d.recipes import Recipe
from planar3d.recipes.demonstrations import DEMONSTRATIONS, Demonstration
from planar3d.scans.case import Case, Dataset
from planar3d.scans.folds import Fold, choose_folds, everything, group_folds, read_folds
from planar3d.scans.layouts import find_cases
from planar3d.scans.phantom import check_packages, phantom_groups, refuse_other_phantom, write_phantom
from planar3d.study.cluster import check_cluster
from planar3d.study.report import write_report
from planar3d.study.results import Results
from planar3d.study.run_folder import check_with_network, start_run

# TensorFlow, whose import takes seconds, is imported once the folds are known to exist.


def folds_for(dataset: Dataset, folds: str | None) -> list[Fold]:
    """The folds of a data set: a number of folds, a user's folds.json, or None for the rule of `group_folds`.

    `"none"` is one fold without test scans, for a network trained on every scan; if the recipe validates on scans, the
    last patient's are used. `"official"` is the data set's own split.
    """
    groups = {case.id: case.group for case in dataset.cases}
    patients = {case.id: case.patient for case in dataset.cases}
    if folds == "none":
        return [everything(patients)]
    if folds == "official":
        if dataset.split is None:
            raise FoldsError(f"--folds official: {dataset.folder} has no official split; give a number of folds.")
        return [dataset.split]
    if folds is None or folds.isdecimal():
        return group_folds(groups, int(folds) if folds else None, patients)
    if not Path(folds).is_file():
        raise FoldsError(f"--folds {folds} is neither a number of folds, nor 'none', nor 'official', nor a file.")
    return read_folds(folds, groups)


def reproduce(
    dataset: Dataset,
    out: Path,
    recipe: Recipe,
    folds: str | None = None,
    only: str | None = None,
    notify: Notify = tell,
    assume_affine: bool = False,
    cluster: str | None = None,
    devices: str | None = None,
) -> Results:
    """Run the folds of a data set and write the report; finished parts in `out` are skipped.

    Args:
        folds: as in `folds_for`.
        only: folds to run, e.g. `"2,4"`; default: all.
        assume_affine, cluster, devices: as in `read_scan`, `run_tasks` and `choose_devices`.

    Source: Kolarik 2020, sections 3 and 4.
    """
    check_study_extra()
    if cluster:
        check_cluster(cluster)
    chosen_folds, chosen = _chosen(dataset, folds, only)
    from planar3d.study.cross_validation import run_folds
    from planar3d.training.devices import choose_devices

    if not cluster:  # workers choose their own devices
        choose_devices(devices, recipe)
    run = start_run(Path(out).absolute() if cluster else out, dataset, recipe, chosen_folds, notify)
    run_folds(run, chosen, notify, assume_affine, cluster, devices)
    return write_report(run.folder, notify)


def _chosen(dataset: Dataset, folds: str | None, only: str | None) -> tuple[list[Fold], list[int]]:
    """All folds, which must have test scans, and the numbers of those to run."""
    found = folds_for(dataset, folds)
    if not any(fold.test for fold in found):
        raise FoldsError("--folds none leaves no test scans to report on; train with: planar3d train.")
    return found, choose_folds(only, len(found))


def demonstrate(
    out: Path,
    demonstration: Demonstration = DEMONSTRATIONS["paper"],
    only: str | None = None,
    notify: Notify = tell,
    devices: str | None = None,
) -> Results:
    """Run a whole method on the embedded phantom at reduced size.

    Args:
        out: the run folder; the phantom is written beside it.
        only, devices: as in `reproduce`; default: the demonstration's folds.

    Raises:
        FoldsError: the folds do not exist; nothing is written.
        DatasetError: another phantom is there.
    """
    check_study_extra()
    folder, recipe = out.with_name(out.name + "-phantom"), demonstration.recipe
    folds, chosen = demonstration.folds, only or demonstration.only
    if not Path(folds or "").is_file():  # whose ids are checked when the cases are found
        groups = phantom_groups(demonstration.layout, demonstration.scans_per_center)
        cases = tuple(Case(name, {}, None, group) for name, group in groups.items())
        _chosen(Dataset(cases, demonstration.layout, folder), folds, chosen)
    from planar3d.networks.registry import weight_source
    from planar3d.training.devices import choose_devices

    choose_devices(devices, recipe)
    if not (folder / "complete").is_file():  # before scans are made; the run checks the recipe again when it starts
        check_packages(demonstration.layout)
        check_with_network(recipe)
        weight_source(recipe).origin(recipe.network.encoder_weights)
    settings: dict[str, Any] = {
        "layout": demonstration.layout,
        "seed": recipe.training.seed,
        "reduction": demonstration.reduction,
        "scans_per_center": demonstration.scans_per_center,
    }
    with alone_with(folder / "complete", doing="the demonstration", wait=notify):
        refuse_other_phantom(folder, settings)
        if not (folder / "complete").is_file():
            write_phantom(folder, **settings, progress=notify)
            (folder / "complete").touch()
    return reproduce(find_cases(folder), out, recipe, folds, chosen, notify, devices=devices)
