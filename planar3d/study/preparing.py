"""The scans of a run, prepared once for all its folds."""

from dataclasses import replace
from functools import partial
from typing import Any

from planar3d.errors import RunError
from planar3d.files import read_json, write_json
from planar3d.inference.prepared_scan import prepare
from planar3d.locks import locked
from planar3d.progress import Notify, tell
from planar3d.recipes import Recipe
from planar3d.scans.case import read_images
from planar3d.scans.folds import Fold
from planar3d.scans.preparation.prepared import save_prepared
from planar3d.study.cluster import require_all, run_tasks
from planar3d.study.run_folder import Run
from planar3d.study.sources import ALIGNED, VOXELS, digest_sources, require_read, require_unchanged
from planar3d.transfer.digests import digest


def prepare_scans(run: Run, notify: Notify, assume_affine: bool = False, cluster: str | None = None) -> None:
    """Prepare every scan of the run that is not prepared yet, waiting for scans of other processes.

    Args:
        assume_affine, cluster: as in `read_scan` and `run_tasks`; without a cluster, this process prepares the scans.

    Raises:
        ScanError: a scan or mask cannot be used; scans before it stay prepared.
        RunError: prepared scans were made by another recipe, or their files have changed since.
    """
    _require_same_preparation(run, notify)
    for scan in run.cases:
        require_unchanged(run, scan)
    missing = {scan: case for scan, case in run.cases.items() if not _is_prepared(run, scan)}
    if cluster:
        there = partial(prepare_scans, notify=tell, assume_affine=assume_affine)
        unnamed = [Fold((), (), ())] * len(run.folds)  # their number is enough; the names of all scans are gigabytes
        tasks = [replace(run, cases={scan: case}, folds=unnamed) for scan, case in missing.items()]
        require_all(run_tasks(cluster, there, tasks, "scan", notify))
        return
    for number, scan in enumerate(run.cases, start=1):
        if scan not in missing:
            continue
        with locked(run.prepared(scan), f"preparing {scan}", wait=notify):
            if _is_prepared(run, scan):  # by another process since
                continue
            _prepare_scan(run, scan, assume_affine)
        notify(f"prepared {scan}  {number}/{len(run.cases)}")


def _is_prepared(run: Run, scan: str) -> bool:
    return (run.prepared(scan) / "geometry.json").is_file()


def _require_same_preparation(run: Run, notify: Notify) -> None:
    """Refuse scans prepared by another recipe: a run folder has one, but `prepared/` may have been copied."""
    made_by, wanted = run.folder / "prepared" / "recipe.json", _prepares(run.recipe)

    def prepared(content: dict[str, Any]) -> dict[str, Any]:
        made = _prepares(Recipe.from_json({"name": "prepared", **content}, str(made_by)))
        return made if "targets" in content else made | {"labels": wanted["labels"]}  # as in files of format 1

    with locked(made_by.parent, "preparing", wait=notify):
        if not made_by.is_file():
            write_json(made_by, run.recipe.to_json())
        for name, found in read_json(made_by, prepared).items():
            if found != wanted[name]:
                raise RunError(
                    f"{made_by.parent} was prepared with the {name} {found}, but the recipe has {wanted[name]}. Use "
                    "another --out."
                )


def _prepares(recipe: Recipe) -> dict[str, Any]:
    """What prepared scans depend on."""
    return {"preparation": recipe.preparation.to_json(), "labels": sorted({0}.union(*recipe.targets.channels))}


def _prepare_scan(run: Run, scan: str, assume_affine: bool) -> None:
    """Prepare one scan and its label map."""
    case, preparation, targets = run.cases[scan], run.recipe.preparation, run.recipe.targets
    sources = digest_sources(run, scan)
    files = {name: case.images[name] for name in preparation.images}
    scans = read_images(files, assume_affine, preparation.flat)
    labels = targets.read(case.label_map, scans[preparation.images[0]], assume_affine)
    prepared = prepare(scans, run.recipe)
    require_read(run, scan, sources)
    aligned = prepared.align(labels)
    sources |= {role: {"sha256": digest(array)} for role, array in ((VOXELS, prepared.voxels), (ALIGNED, aligned))}
    save_prepared(run.prepared(scan), prepared, aligned, sources)
