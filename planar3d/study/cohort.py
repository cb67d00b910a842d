"""Many scans, one network: while one is segmented, the next is prepared and the one before is written."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from planar3d.environment import describe, machine, versions
from planar3d.errors import Planar3DError, RecipeError, ScanError
from planar3d.extras import check_extra, check_study_extra, dicom_extra
from planar3d.files import remove_temporaries
from planar3d.inference.segmenter import Probabilities, Segmenter
from planar3d.locks import locked
from planar3d.networks.weights_file import Model
from planar3d.pipeline import one_ahead, one_behind
from planar3d.progress import Ticker, duration
from planar3d.recipes import Recipe
from planar3d.scans.bids import write_dataset_description, write_sidecars
from planar3d.scans.inputs import Given, ScanInput, find_inputs, outputs_of, read_input_images
from planar3d.scans.outputs import Outputs
from planar3d.scans.preparation.prepared import Prepared
from planar3d.scans.volume import Scan
from planar3d.study.cohort_report import report_records
from planar3d.study.segmented import (
    Asked,
    describe_models,
    describe_scan,
    files_sha256,
    finished_record,
    origin,
    summarize,
    write_segmented,
)
from planar3d.wording import counted

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Cohort:
    """What became of scans: the records of those that are segmented, in their order, and why others are not."""

    records: list[dict[str, Any]]
    failed: dict[Path, str]


def segment_all(
    inputs: Sequence[Given],
    model: str | Path | Model | Sequence[str | Path | Model],
    out: str | Path,
    recipe: Recipe | None = None,
    asked: Asked = Asked(),  # noqa: B008 - frozen
    notify: Notify = print,
) -> Cohort:
    """Segment scans, and write of each a mask, a table of its lesions, and a record of how they were made.

    What is there already, made of the same scan by the same model and recipe, is not done again. No more than three
    scans are in memory, however many there are: one in preparation, one in the network, and one being written.

    Args:
        inputs: scans, series, folders, data sets and tables; see `find_inputs`.
        model: a weights file, the name of a published model, or an open one; or several, see `Segmenter`.
        out: where the outputs go.
        recipe: overrides the models' own.
        asked: how to segment, and what else to write.
        notify: gets a line a scan, in the order of the inputs.

    Raises:
        Planar3DError: the model cannot be used, or the only input cannot, or a package is missing that what is asked
            needs.
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
    task = _Task(items, describe_models(opened), segmenter, asked, notify)
    with _not_left_empty(Path(out)), locked(out, "segmenting"):
        remove_temporaries(*{path.parent for outputs in items.values() for path in vars(outputs).values()})
        for dataset in {item.dataset for item in items if item.dataset}:
            write_dataset_description(Path(out), dataset)
        waiting = [item for item in items if not task.is_done(item)]
        if waiting:
            segmenter.load()
            task.segment(waiting)
        if asked.report:
            notify(f"report: {report_records(out, task.failed)}")
    if task.failed:
        notify(f"{len(task.failed)} of {len(items)} scans failed: {', '.join(map(str, task.failed))}")
    return Cohort([task.records[item] for item in items if item in task.records], task.failed)


@contextmanager
def _not_left_empty(folder: Path) -> Iterator[None]:
    """Remove a folder that was made inside the block if nothing came to lie in it."""
    before = folder.exists()
    try:
        yield
    finally:
        if not before and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


@dataclass(frozen=True)
class _Result:
    """A scan on its way: its first image, what the networks see, what they found, and the seconds it took."""

    scan: Scan
    prepared: list[Prepared]
    seconds: float
    probabilities: Probabilities | None = None


@dataclass
class _Task:
    """Scans with their outputs, the three steps of each, and what has become of them so far."""

    items: dict[ScanInput, Outputs]
    model: Mapping[str, Any]
    segmenter: Segmenter
    asked: Asked
    notify: Notify
    records: dict[ScanInput, dict[str, Any]] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def is_done(self, item: ScanInput) -> bool:
        """Whether nothing is left to do for a scan: it is segmented, or something foreign is in its place."""
        outputs = self.items[item]
        if item.note:
            self.notify(f"{item.path}: {item.note}")
        if item.problem or self.asked.overwrite or not outputs.mask.exists():
            return False
        try:
            record = finished_record(outputs, self._origin(item), self.asked)
            if record is None:
                return False
            self.records[item] = record
            self._say(item, f"{outputs.mask} is there already  {summarize(record)}")
        except Planar3DError as error:
            self._fail(item, error)
        return True

    def segment(self, waiting: Sequence[ScanInput]) -> None:
        """Segment what is not done."""
        began = time.monotonic()
        with one_ahead(self._prepare, waiting) as coming, one_behind() as behind:
            for number, (item, prepared) in enumerate(coming):
                left = (time.monotonic() - began) / number * (len(waiting) - number) if number else 0.0
                behind(self._write, item, self._predict(item, prepared), left)
        if len(waiting) > 1:
            seconds, done = time.monotonic() - began, sum(item in self.records for item in waiting)
            rate = f"{counted(round(3600 * done / seconds), 'scan')} an hour"
            self.notify(f"{done} of {len(waiting)} scans in {duration(seconds)}, {rate}")

    def _prepare(self, item: ScanInput) -> _Result:
        began = time.monotonic()
        if self.asked.dicom_seg and item.series is None:
            raise ScanError(f"{item.path} is of no DICOM series, whose images --dicom-seg refers to. Leave it out.")
        scans = read_input_images(item, self.asked.assume_affine, self.segmenter.flat)
        prepared = self.segmenter.prepare(scans)
        return _Result(scans[self.segmenter.images[0]], prepared, time.monotonic() - began)

    def _predict(self, item: ScanInput, coming: Future[_Result]) -> _Result | Planar3DError:
        """Run the network on a prepared scan; an error of it, or of its preparation, is its result."""
        try:
            result = coming.result()
            self._say_how()
            began = time.monotonic()
            ticker = Ticker(self.notify, f"{item.name}, windows")
            probabilities = self.segmenter.predict(result.prepared, ticker)
            self._say_how()
            return replace(result, seconds=result.seconds + time.monotonic() - began, probabilities=probabilities)
        except Planar3DError as error:
            return error

    def _write(self, item: ScanInput, result: _Result | Planar3DError, left: float) -> None:
        """Write what is asked of a scan, or say why there is nothing to write."""
        try:
            if isinstance(result, Planar3DError):
                raise result
            record = self._write_result(item, result)
        except Planar3DError as error:
            self._fail(item, error)
            return
        self.records[item] = record
        later = f"  {duration(left)} left" if left else ""
        self._say(item, f"{self.items[item].mask}  {summarize(record)}{later}")
        for warning in record["warnings"]:
            self.notify(f"    {warning['sentence']}")

    def _write_result(self, item: ScanInput, result: _Result) -> dict[str, Any]:
        assert result.probabilities is not None
        began = time.monotonic()
        mask, recipe = result.probabilities.mask(), result.probabilities.recipe
        probability = result.probabilities.foreground() if self.asked.probability else None
        origin, outputs = self._origin(item), self.items[item]
        standard: dict[str, Any] = {}
        if item.dataset:
            scored = recipe.targets.scored
            standard = write_sidecars(item.dataset, item.path, outputs, scored, self.asked.probability)
        about = {
            **standard,
            **origin,
            "scan": {**origin["scan"], **describe_scan(item, result.scan)},
            "how": {"description": self.segmenter.description, "machine": machine(), "seed": recipe.training.seed},
            "versions": versions(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(result.seconds + time.monotonic() - began, 2),
        }
        return write_segmented(outputs, about, result.scan, mask, probability, self.asked, recipe, item.series)

    def _origin(self, item: ScanInput) -> dict[str, Any]:
        return origin(files_sha256(item.files), self.model, self.segmenter.recipes[0].to_json(), self.asked)

    def _say_how(self) -> None:
        """Say method, engine and precision: at the beginning, and where the first scan has decided them."""
        if self.segmenter.description not in self.said:
            self.said.append(self.segmenter.description)
            self.notify(self.said[-1])

    def _say(self, item: ScanInput, text: str) -> None:
        self.notify(f"{self._place(item)}  {item.path} → {text}")

    def _place(self, item: ScanInput) -> str:
        return f"{list(self.items).index(item) + 1}/{len(self.items)}"

    def _fail(self, item: ScanInput, error: Planar3DError) -> None:
        """Note why a scan is not segmented; of a single one the error itself is raised."""
        if len(self.items) == 1:
            raise error
        self.failed[item.path] = str(error)
        self.notify(f"{self._place(item)}  failed: {error}")
