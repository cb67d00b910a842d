"""Many scans, one network: while one is segmented, the next is prepared and the one before is written."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from planar3d.environment import describe
from planar3d.errors import RecipeError
from planar3d.extras import check_extra, check_study_extra, dicom_extra
from planar3d.inference.segmenter import Segmenter
from planar3d.locks import Holder
from planar3d.networks.weights_file import Model
from planar3d.recipes import Recipe
from planar3d.scans.bids import write_dataset_description
from planar3d.scans.inputs import Given, find_inputs, outputs_of
from planar3d.study.cohort_folder import CohortFolder, Part
from planar3d.study.cohort_task import CohortTask
from planar3d.study.segmented import Asked, describe_models

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Cohort:
    """What became of scans: records of those done, in their order; why others failed, and who is at the rest."""

    records: list[dict[str, Any]]
    failed: dict[Path, str]
    claimed: dict[Path, Holder] = field(default_factory=dict)


def segment_all(
    inputs: Sequence[Given],
    model: str | Path | Model | Sequence[str | Path | Model],
    out: str | Path,
    recipe: Recipe | None = None,
    asked: Asked = Asked(),  # noqa: B008 - frozen
    notify: Notify = print,
    part: Part | None = None,
) -> Cohort:
    """Segment scans, and write of each a mask, a table of its lesions, and a record of how they were made.

    What is there already, made of the same scan by the same model and recipe, is not done again, and what another
    process is at is left to it; so any number of processes may work in one folder. No more than three scans are in
    memory, however many there are: one in preparation, one in the network, and one being written.

    Args:
        inputs: scans, series, folders, data sets and tables; see `find_inputs`.
        model: a weights file, the name of a published model, or an open one; or several, see `Segmenter`.
        out: where the outputs go.
        recipe: overrides the models' own.
        asked: how to segment, and what else to write.
        notify: gets a line a scan, in the order of the inputs.
        part: the share of the scans that this process takes; all if None.

    Raises:
        Planar3DError: the model cannot be used, or the only input cannot, or a package is missing that what is asked
            needs.
        RunError: another process is at the only input.
    """
    if asked.overlay or asked.report:
        check_study_extra()
    if asked.dicom_seg:
        check_extra(dicom_extra(), "highdicom")
    segmenter = Segmenter(model, recipe, asked.method, asked.engine, asked.precision, asked.batch_size)
    several = len(segmenter.recipes[0].targets.names) > 1
    if asked.dicom_seg and several:
        raise RecipeError("--dicom-seg writes lesions alone; the model has several targets. Leave it out.")
    items = {item: outputs_of(item, out, several) for item in find_inputs(inputs, segmenter.images)}
    notify(describe())
    opened = [each for each in segmenter.models if isinstance(each, Model)]  # all, as they were named
    folder = CohortFolder(out)
    task = CohortTask(items, folder, describe_models(opened), segmenter, asked, notify)
    with _not_left_empty(folder.path):
        try:
            with folder.alone(notify):
                for dataset in {item.dataset for item in items if item.dataset}:
                    write_dataset_description(folder.path, dataset)
                if len(items) > 1:
                    folder.ask(items)
            task.segment([item for item in items if part is None or part.takes(item.name)])
            task.finish()
        finally:
            task.release()
            folder.close(items)
    if task.failed:
        notify(f"{len(task.failed)} of {len(items)} scans failed: {', '.join(map(str, task.failed))}")
    return Cohort([task.records[item] for item in items if item in task.records], task.failed, task.claimed)


@contextmanager
def _not_left_empty(folder: Path) -> Iterator[None]:
    """Remove a folder that was made inside the block if nothing came to lie in it."""
    before = folder.exists()
    try:
        yield
    finally:
        if not before and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
