"""Many scans, one network: while one scan is segmented, the next is prepared and the previous one written."""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from planar3d.environment import describe
from planar3d.errors import Planar3DError, RecipeError, RunError, ScanError, WeightsError
from planar3d.extras import check_extra, check_study_extra
from planar3d.files import why_too_long
from planar3d.inference.segmenter import Segmenter
from planar3d.networks.weights_file import Model
from planar3d.progress import Notify, tell
from planar3d.scans.bids import write_dataset_description
from planar3d.scans.inputs import Given, ScanInput, find_inputs, outputs_of
from planar3d.scans.outputs import RENAME, Outputs
from planar3d.study.cluster import check_cluster, run_tasks
from planar3d.study.cohort_folder import CohortFolder
from planar3d.study.cohort_report import LESIONS, PAGE, SCANS, write_cohort_report, write_cohort_tables
from planar3d.study.cohort_task import CohortTask
from planar3d.study.records import is_own, refuse_other, scan_sha256
from planar3d.study.run_folder import is_run
from planar3d.study.segmented import Request, describe_models
from planar3d.wording import counted, is_or_are

_POLL = 5.0  # seconds between a worker's checks of a scan claimed by another process


@dataclass(frozen=True)
class Cohort:
    """The outcome for many scans: records of finished scans, in order, and why others failed."""

    records: list[dict[str, Any]]
    failed: dict[Path, str]


def segment_all(
    inputs: Sequence[Given],
    model: str | Path | Model | Sequence[str | Path | Model],
    out: str | Path,
    request: Request = Request(),  # noqa: B008 - frozen
    notify: Notify = tell,
    takes: Callable[[str], bool] | None = None,
    cluster: str | None = None,
) -> Cohort:
    """Segment scans, and write for each a mask, a table of its lesions, and a record of how they were made.

    Masks that exist, made from the same scan with the same model and recipe, are kept, and scans that another process
    has claimed are skipped; so any number of processes may work in one folder. At most three scans are in memory: one
    in preparation, one in the network, and one being written.

    Args:
        inputs, model: as in `find_inputs` and `Segmenter`.
        notify: called with one line per scan, in the order of the inputs.
        takes: whether this process takes a scan, by its name, as `takes_part`; default: all.
        cluster: workers that segment the scans, see `run_tasks`; default: this process.

    Raises:
        Planar3DError: the model or the only input cannot be used, or a required package is missing.
        RunError: another process has claimed the only input; a file of another origin has the name of one of its files,
            or of a table or page.
    """
    if request.overlay or request.report:
        check_study_extra()
    if request.dicom_sr:
        request = replace(request, dicom_seg=True)
    if request.dicom_seg:
        check_extra("dicom", "highdicom")
    segmenter = Segmenter(model, **request.how)
    several = len(segmenter.recipes[0].targets.names) > 1
    if request.dicom_seg and several:
        raise RecipeError(
            "--dicom-seg and --dicom-sr write lesions only, but the model has several targets. Omit them."
        )
    if cluster:  # whose workers may be in another folder
        check_cluster(cluster)
        inputs, out = [_absolute(given) for given in inputs], Path(out).absolute()
    items = dict(_nameable(item, out, several, request) for item in find_inputs(inputs, segmenter.images))
    is_single = len(items) == 1
    if is_single and (problem := next(iter(items)).problem):
        raise ScanError(problem)
    places = {item: f"{number}/{len(items)}" for number, item in enumerate(items, start=1)}
    notify(describe())
    opened = [each for each in segmenter.models if isinstance(each, Model)]  # all, in the given order
    folder = CohortFolder(out)
    if is_run(folder.path):  # of which report would show the run alone
        raise RunError(f"{folder.path} is a run folder of planar3d crossval; name another folder with --out.")
    refuse_other(*(folder.path / name for name in (SCANS, LESIONS, *([PAGE] if request.report else []))))
    task = CohortTask(items, folder, describe_models(opened), segmenter, request, notify, places, is_single)
    is_old = folder.path.exists()
    try:
        with folder.alone(notify):
            for dataset in {item.dataset for item in items if item.dataset}:
                write_dataset_description(folder.path, dataset)
            folder.forget(items)
            folder.request(items)
        mine = [item for item in items if takes is None or takes(item.name)]
        if not mine:
            notify(f"this part is empty: there {is_or_are(items)} only {counted(items, 'scan')}")
        try:
            if cluster:
                _segment_on(cluster, task, opened, mine)
            else:
                task.segment(mine)
        except Planar3DError:
            if folder.has_records():  # other processes rely on the last one to write the tables
                _finish(task)
            raise
        _finish(task)
    finally:
        task.release()
        folder.close(items)
        if not is_old:
            with suppress(OSError):  # unless it has masks
                folder.path.rmdir()
    if task.failed:
        notify(f"{len(task.failed)} of {counted(items, 'scan')} failed: {', '.join(map(str, task.failed))}")
    return Cohort([task.records[item] for item in items if item in task.records], task.failed)


def _nameable(item: ScanInput, out: str | Path, several: bool, request: Request) -> tuple[ScanInput, Outputs]:
    """A scan with its outputs; with a problem if their names are too long for the file system, or hidden."""
    outputs = outputs_of(item, out, several)
    why = why_too_long(getattr(outputs, name) for name in request.files)
    if outputs.record.name.startswith("."):  # as the system's own files, hidden ones are no records
        why = f"its record would be the hidden file {outputs.record.name}."
    problem = why and f"{item.path}: {why} {RENAME}"
    return replace(item, problem=item.problem or problem), outputs


def _finish(task: CohortTask) -> None:
    """Report the state of all scans, and write tables and report unless other processes are still working."""
    folder, notify, page = task.folder, task.notify, task.folder.path / PAGE
    standing = folder.standing(task.items)
    for path, why in task.failed.items():
        if (place := os.path.abspath(path)) in standing.done:  # the mask is another's
            standing.done.remove(place)
            standing.failed[place] = why
    if len(standing.done) < len(task.items) and not task.single:
        notify(str(standing))
    for path, holder in task.claimed.items():
        notify(f"{path}: being segmented by {holder}")
    if folder.at_work():
        return
    with folder.alone(notify):
        standing, records = folder.read()
        scans = {file: record["scan"] for file, record in records}
        for item, outputs in task.items.items():
            if item.path in task.failed and outputs.record in scans:
                scan, place = scans[outputs.record], os.path.abspath(item.path)
                with suppress(ScanError):  # without its file
                    if scan.get("path") != place and scan.get("sha256") == scan_sha256(item):
                        scan["path"] = place  # to which it was moved
        failed = standing.failed | {os.path.abspath(path): why for path, why in task.failed.items()}
        write_cohort_tables(folder.path, records, failed)
        if task.request.report or is_own(page):  # which would be out of date
            try:
                check_extra("study", "jinja2")
            except Planar3DError as error:
                notify(f"{page} is out of date. {error}")
                return
            notify(f"report: {write_cohort_report(folder.path, records, failed)}")


def _absolute(given: Given) -> Given:
    if isinstance(given, Mapping):
        return {name: Path(path).absolute() for name, path in given.items()}
    return Path(given).absolute()


def _segment_on(cluster: str, task: CohortTask, models: Sequence[Model], items: Sequence[ScanInput]) -> None:
    """Segment scans on the workers of a cluster, and note the outcome of each."""
    there = partial(_segment_there, tuple(models), task.folder.path, task.request)
    tasks = [(item, task.items[item], task.places[item]) for item in items]
    for (item, _, _), found in run_tasks(cluster, there, tasks, "scan", task.notify):
        record, failure, lines = found if isinstance(found, tuple) else (None, str(found), [f"{item.path}: {found}"])
        for line in lines:
            task.notify(line)
        if record:
            task.records[item] = record
        elif failure:
            task.failed[item.path] = failure


def _segment_there(
    models: tuple[Model, ...], out: Path, request: Request, given: tuple[ScanInput, Outputs, str]
) -> tuple[dict[str, Any] | None, str | None, list[str]]:
    """Segment a scan on a worker; if another process has it, wait, as that process may have died on another host.

    Returns:
        Its record, or the reason of the failure, and the lines of the log.
    """
    item, outputs, place = given
    segmenter, lines, folder = _segmenter_there(models, request), list[str](), CohortFolder(out)
    task = CohortTask({item: outputs}, folder, describe_models(models), segmenter, request, lines.append, {item: place})
    task.announced.append(segmenter.description)
    try:
        task.segment([item])
        while task.claimed:
            time.sleep(_POLL)
            task.segment([item])
    finally:
        task.release()
    return task.records.get(item), task.failed.get(item.path), lines


@lru_cache(maxsize=1)
def _segmenter_there(models: tuple[Model, ...], request: Request) -> Segmenter:
    """A worker's segmenter for all its scans; it opens the weights files."""
    opened = [Model.open(model.path, model.recipe) for model in models]
    for model, meant in zip(opened, models, strict=True):
        if model.sha256 != meant.sha256:
            raise WeightsError(f"{model.path} on {platform.node()} differs from the file with which this run started.")
    segmenter = Segmenter(opened, **request.how)
    segmenter.load()
    return segmenter
