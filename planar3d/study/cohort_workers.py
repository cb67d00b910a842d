"""The scans of a cohort on the workers of a cluster."""

import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from planar3d.errors import WeightsError
from planar3d.inference.segmenter import Segmenter
from planar3d.networks.weights_file import Model
from planar3d.scans.inputs import ScanInput
from planar3d.scans.outputs import Outputs
from planar3d.study.cluster import run_tasks
from planar3d.study.cohort_folder import CohortFolder
from planar3d.study.cohort_task import CohortTask
from planar3d.study.segmented import Asked, describe_models

_POLL = 5.0  # seconds between a worker's checks of a scan claimed by another process


def segment_on(cluster: str, task: CohortTask, models: Sequence[Model], items: Sequence[ScanInput]) -> None:
    """Segment scans on the workers of a cluster, and note the outcome of each."""
    found_by = tuple(replace(model, path=model.path.absolute()) for model in models)
    there = partial(_segment_there, found_by, task.folder.path, task.asked)
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
    models: tuple[Model, ...], out: Path, asked: Asked, given: tuple[ScanInput, Outputs, str]
) -> tuple[dict[str, Any] | None, str | None, list[str]]:
    """Segment a scan on a worker; if another process has it, wait, as that process may have died on another host.

    Returns:
        Its record, or the reason of the failure, and the lines of the log.
    """
    item, outputs, place = given
    segmenter, lines, folder = _segmenter_there(models, asked), list[str](), CohortFolder(out)
    task = CohortTask(
        items={item: outputs},
        folder=folder,
        model=describe_models(models),
        segmenter=segmenter,
        asked=asked,
        notify=lines.append,
        places={item: place},
    )
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
def _segmenter_there(models: tuple[Model, ...], asked: Asked) -> Segmenter:
    """A worker's segmenter for all its scans; it opens the weights files."""
    opened = [Model.open(model.path, model.recipe) for model in models]
    for model, meant in zip(opened, models, strict=True):
        if model.sha256 != meant.sha256:
            raise WeightsError(f"{model.path} on {platform.node()} differs from the file with which this run started.")
    segmenter = Segmenter(opened, **asked.how)
    segmenter.load()
    return segmenter
