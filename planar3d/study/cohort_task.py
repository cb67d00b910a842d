"""Scans processed by one process: claimed, prepared, segmented and written; and the outcome of each."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from planar3d.environment import machine, versions
from planar3d.errors import Planar3DError, RunError, ScanError
from planar3d.files import write_json, written_at, written_together
from planar3d.inference.segmenter import Probabilities, Segmenter
from planar3d.locks import Claim, Holder
from planar3d.pipeline import one_ahead, one_behind
from planar3d.progress import Notify, Ticker, duration
from planar3d.scans.inputs import ScanInput, read_input_images
from planar3d.scans.outputs import RENAME, Outputs, is_refused
from planar3d.scans.preparation.prepared import Prepared
from planar3d.scans.volume import Scan
from planar3d.study.cohort_folder import CohortFolder
from planar3d.study.earlier import earlier_record, is_finished, kept_files, origin, record_of_mask, remove_outdated
from planar3d.study.records import scan_sha256, scan_stamp
from planar3d.study.segmented import Request, summarize_record, write_segmented
from planar3d.wording import counted


@dataclass(frozen=True)
class _InProgress:
    """A scan that was read and prepared."""

    before: Mapping[str, Any]  # the record of an earlier run
    origin: Mapping[str, Any]  # of its mask, with the digest of what was read
    scan: Scan  # its first image
    prepared: list[Prepared]  # for each model
    seconds: float  # of work so far


_Predicted = tuple[_InProgress, Probabilities] | Planar3DError  # or why there are no probabilities


@dataclass
class CohortTask:
    """Scans with their outputs, the three steps of each, and their outcomes so far."""

    items: dict[ScanInput, Outputs]
    folder: CohortFolder
    model: Mapping[str, Any]
    segmenter: Segmenter
    request: Request
    notify: Notify
    places: Mapping[ScanInput, str]  # number of each scan among all, for the log
    single: bool = False  # whether to raise the error of a scan
    records: dict[ScanInput, dict[str, Any]] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)
    claimed: dict[Path, Holder] = field(default_factory=dict)
    announced: list[str] = field(default_factory=list)  # descriptions of the computation in the log
    held: dict[ScanInput, Claim] = field(default_factory=dict)
    made: dict[ScanInput, int] = field(default_factory=dict)  # when the records found at the start were written

    def segment(self, mine: Sequence[ScanInput]) -> None:
        """Segment scans that are neither done nor claimed by another process."""
        good = [item for item in mine if not item.problem]
        ahead = [item for item in good if not self.items[item].mask.exists()]
        after = {item: len(ahead) - number for number, item in enumerate(ahead, start=1)}
        if self.request.overwrite:
            self.made = {item: written_at(self.items[item].record) for item in good} | self.made
        coming = self._claim_next(mine)
        if (first := next(coming, None)) is None:
            return
        self.segmenter.load()
        began, handled, waiting = time.monotonic(), list[ScanInput](), len(ahead)
        with one_ahead(self._prepare, chain([first], coming)) as pairs, one_behind() as behind:
            for item, prepared in pairs:
                handled.append(item)
                predicted = self._predict(item, prepared)
                waiting = min(waiting, after.get(item, waiting))  # what others gave up comes late
                left = (time.monotonic() - began) / len(handled) * waiting
                behind(self._write, item, predicted, left)
        done = sum(item in self.records for item in handled)
        if done and len(handled) > 1:
            seconds = time.monotonic() - began
            rate = f"{counted(round(3600 * done / seconds), 'scan')} an hour"
            self.notify(f"{done} of {len(handled)} scans in {duration(seconds)}, {rate}")

    def _claim_next(self, mine: Sequence[ScanInput]) -> Iterator[ScanInput]:
        """Claim unfinished scans one by one; scans claimed by others are checked again at the end."""
        for item in mine:
            if item.note and item.path not in self.claimed:
                self.notify(f"{item.path}: {item.note}")
            if self._claim(item):
                yield item
        yield from filter(self._claim, [item for item in mine if item.path in self.claimed])

    def _claim(self, item: ScanInput) -> bool:
        """Whether this process has to segment a scan: it is neither done nor another's."""
        self.claimed.pop(item.path, None)
        if item.problem:  # it has no outputs
            return True
        if self._is_done(item):
            return False
        claim = self.folder.claim(self.items[item])
        if isinstance(claim, Holder):
            if self.single:
                raise RunError(f"{item.path} is being segmented into {self.folder.path} by {claim}; wait for it.")
            self.claimed[item.path] = claim
            return False
        self.held[item] = claim
        if self._is_done(item):  # by another process, a moment ago
            self._give_back(item)
            return False
        return True

    def _is_done(self, item: ScanInput) -> bool:
        """Whether nothing is left to do for a scan: it is segmented, or a foreign file is in its place.

        Only outputs from before the start are overwritten, not those of another working process, which moves the record
        into place before the mask.
        """
        outputs, overwrite = self.items[item], self.request.overwrite
        if not outputs.mask.exists() or (overwrite and written_at(outputs.record) == self.made[item]):
            return False
        try:
            record = record_of_mask(outputs)
            if not is_finished(outputs, record, self._origin(item, record), self.request):
                return False
            self.records[item] = record
            self.folder.succeed(outputs)
            self._say(item, f"{outputs.mask} already exists  {summarize_record(record)}")
        except Planar3DError as error:
            if overwrite:
                return False
            self._fail(item, error)
        return True

    def release(self) -> None:
        """Give back all claims."""
        for item in [*self.held]:
            self._give_back(item)

    def _give_back(self, item: ScanInput) -> None:
        if claim := self.held.pop(item, None):
            claim.release()

    def _prepare(self, item: ScanInput) -> _InProgress:
        began = time.monotonic()
        if item.problem:
            raise ScanError(item.problem)
        if self.request.dicom_seg and item.series is None:
            raise ScanError(f"{item.path} is not a DICOM series, which --dicom-seg and --dicom-sr need; omit them.")
        before = earlier_record(self.items[item], self.request.files, self.request.overwrite, bool(item.dataset))
        decided = self._origin(item, {})
        scans = read_input_images(item, self.request.assume_affine, self.segmenter.flat)
        first, prepared = scans[self.segmenter.images[0]], self.segmenter.prepare(scans)
        return _InProgress(before, decided, first, prepared, seconds=time.monotonic() - began)

    def _predict(self, item: ScanInput, coming: Future[_InProgress]) -> _Predicted:
        """Run the network on a prepared scan; an error here or in the preparation is the result."""
        try:
            scan = coming.result()
            self._say_how()
            began = time.monotonic()
            ticker = Ticker(self.notify, f"{item.name}, windows")
            probabilities = self.segmenter.predict(scan.prepared, ticker)
            self._say_how()
            return replace(scan, seconds=scan.seconds + time.monotonic() - began), probabilities
        except Planar3DError as error:
            return error

    def _write(self, item: ScanInput, predicted: _Predicted, left: float) -> None:
        """Write the requested outputs of a scan, or report why there are none; then release its claim."""
        try:
            if isinstance(predicted, Planar3DError):
                raise predicted
            self._require_claim(item)
            record = self._write_outputs(item, *predicted)
        except (Planar3DError, OSError) as error:
            self._fail(item, error)
            return
        finally:
            self._give_back(item)
        self.records[item] = record
        time_left = f"  {duration(left)} left" if left else ""
        self._say(item, f"{self.items[item].mask}  {summarize_record(record)}{time_left}")
        for warning in record["warnings"]:
            self.notify(f"    {warning['sentence']}")

    def _write_outputs(self, item: ScanInput, scan: _InProgress, probabilities: Probabilities) -> dict[str, Any]:
        began, mask, recipe = time.monotonic(), probabilities.mask(), probabilities.recipe
        mapped = self.request.probability or "probability" in scan.before.get("files", {})  # whose map may be kept
        probability = probabilities.foreground() if mapped else None
        decided, within, final = scan.origin, self.folder.path, self.items[item]
        if scan_stamp(item) != decided["scan_stamp"] and scan_sha256(item) != decided["scan"]["sha256"]:
            raise ScanError(f"{item.path} was changed while it was segmented. Run predict again.")
        with written_together(within, vars(final).values(), final.record, final.mask) as temporary:
            outputs = final.moved(within, temporary)
            about = {
                **decided,
                "how": {"description": probabilities.how, "machine": machine(), "seed": recipe.training.seed}
                | ({"assume_affine": True} if self.request.assume_affine else {}),
                "versions": versions(),
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(scan.seconds + time.monotonic() - began, 2),
            }
            record = write_segmented(outputs, item, about, scan.scan, mask, probability, self.request, recipe)
            kept = kept_files(final, scan.before, record)
            record["files"] = kept | record["files"]
            write_json(outputs.record, record)
            remove_outdated(final, scan.before, kept)
        self.folder.succeed(final)
        return record

    def _origin(self, item: ScanInput, before: Mapping[str, Any]) -> dict[str, Any]:
        return origin(item, self.model, self.segmenter.recipes[0].to_json(), self.request, before)

    def _say_how(self) -> None:
        """Report method, engine and precision: at the start, and when the first scan has decided them."""
        if self.segmenter.description not in self.announced:
            self.announced.append(self.segmenter.description)
            self.notify(self.segmenter.description)

    def _say(self, item: ScanInput, text: str) -> None:
        self.notify(f"{self.places[item]}  {item.path} → {text}")

    def _require_claim(self, item: ScanInput) -> None:
        if claim := self.held.get(item):
            claim.require(item.path)

    def _fail(self, item: ScanInput, error: Planar3DError | OSError) -> None:
        """Note why a scan is not segmented, or who took it over; the error of a single one is raised."""
        try:
            self._require_claim(item)
        except RunError as taken:  # and what was half-written is removed
            error = taken
            self._give_back(item)
            if not self._claim(item):
                return
        if isinstance(error, OSError) and is_refused(error, self.items[item].mask):
            error = ScanError(f"{item.path}: {self.folder.path} refuses its name ({error.strerror}). {RENAME}")
        if self.single or isinstance(error, OSError):
            raise error
        if item in self.held:
            self.folder.fail(self.items[item], item, str(error))
        self.failed[item.path] = str(error)
        known = (item.path.parent if item.series else item.path, *item.images.values())
        named = str(error).startswith(f"{item.name} ") or any(str(path) in str(error) for path in known)
        self.notify(f"{self.places[item]}  failed: {'' if named else f'{item.path}: '}{error}")
