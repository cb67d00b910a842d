"""A folder of masks filled by any number of processes: requested, done, failed, claimed and missing scans.

Until everything is done, its hidden folder `.planar3d` has a file for each list of scans, claim and failure.
"""

import fnmatch
import glob
import hashlib
import json
import os
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from planar3d.errors import RunError
from planar3d.files import remove_temporaries_of, write_json, written_at
from planar3d.locks import Claim, Holder, alive, held, holder_of, read_claim, take
from planar3d.scans.inputs import ScanInput
from planar3d.scans.nifti import volume_of
from planar3d.scans.outputs import Outputs
from planar3d.study.record_form import read_note
from planar3d.study.records import all_records_within, records_within
from planar3d.wording import counted

Records = list[tuple[Path, dict[str, Any]]]  # of masks, each with its file
NOTES = ".planar3d"
_ALONE, _REQUESTS = "claim-all.json", "request-*.json"
# Files that summarize the scans, and make the folder a data set.
_SHARED = "dataset_description.json", ".bidsignore", "report.html", "scans.csv", "lesions.csv", f"{NOTES}/{_REQUESTS}"


def takes_part(part: str) -> Callable[[str], bool]:
    """Whether a scan, by its name, belongs to a part of all scans, such as `3/20`; a `RunError` if that is not a part.

    Decided by a digest of the name, independent of other scans.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", part)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise RunError(f"--part {part}: a part from 1 to the number of parts is needed, as in --part 3/20.")
    number, of = map(int, found.groups())
    return lambda name: int(_sha256(name), 16) % of == number - 1


def _sha256(name: str) -> str:
    """The digest of a name, which need not be text; the same on every machine."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass
class Standing:
    """The state of scans, by path: done; failed, with reason; claimed, with holder; missing, with a dead holder."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    claimed: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        numbers = {what: len(scans) for what, scans in vars(self).items() if scans}
        done = numbers.pop("done", 0)
        said = "".join(f", {number} {what}" for what, number in numbers.items())
        return f"{done} of {counted(done + sum(numbers.values()), 'scan')} done{said}"


class CohortFolder:
    """An output folder of `segment_all`."""

    def __init__(self, out: str | Path) -> None:
        self.path = Path(out)
        self.notes = self.path / NOTES

    def opened(self) -> "CohortFolder":
        """This folder. Raises `RunError` if no scans were segmented or requested there."""
        damaged = dict[str, str]()
        if not self.notes.is_dir() and not self.has_records(damaged):
            why = "is not an output folder of planar3d predict" if self.path.exists() else "does not exist"
            foreign = f"{self.path} {why}; name a folder that planar3d predict has written. planar3d report shows runs."
            raise RunError(next(iter(damaged.values()), foreign))
        return self

    def request(self, items: Mapping[ScanInput, Outputs]) -> None:
        """Note the requested scans, replacing earlier lists of some of them; call it only within `alone`."""
        requested = self._requested(items)
        path, records = self._request_file(requested), {one["record"] for one in requested}
        for other in self._noted_as(_REQUESTS):
            if other != path and {one["record"] for one in read_note(other) or []} <= records:
                other.unlink(missing_ok=True)
        write_json(path, requested)  # also if it exists, for its time

    def forget(self, items: Iterable[ScanInput]) -> None:
        """Drop requests, except these, of scans that do not exist, as after renaming; only within `alone`.

        Dropped are those that failed or whose process died. Others may be missing on this host alone. A folder with one
        of these scans is dropped too: it was requested itself while its scan could not be found.
        """
        wanted = {os.path.abspath(item.path) for item in items}
        folders = {str(folder) for path in wanted for folder in Path(path).parents}
        others = [one for one in self._all_requested() if one["path"] not in wanted]
        state = self._state(others, {}, ())
        ended = {*state.failed, *(path for path, died in state.missing.items() if died)}
        gone = {path for path in ended if path in folders or not os.path.lexists(volume_of(Path(path))[0])}
        for file in self._noted_as(_REQUESTS):
            requested = read_note(file) or []
            left = [one for one in requested if one["path"] not in gone]
            if len(left) < len(requested) and all((self.path / one["mask"]).is_file() for one in left):
                file.unlink(missing_ok=True)
            elif len(left) < len(requested):
                write_json(file, left)
        for one in others:
            if one["path"] in gone and isinstance(claim := self._claim(one["record"], self.path / one["mask"]), Claim):
                self._note("failed", one["record"]).unlink(missing_ok=True)
                claim.release()

    def claim(self, outputs: Outputs) -> Claim | Holder:
        """Claim a scan, or return its holder; half-written files of a killed process are removed."""
        return self._claim(self._within(outputs.record), outputs.mask)

    def _claim(self, record: str, mask: Path) -> Claim | Holder:
        folder = mask.with_name(glob.escape(mask.name))  # of all files of a scan, see written_together
        return take(self._note("claim", record), lambda: remove_temporaries_of(folder, self._note("failed", record)))

    @contextmanager
    def alone(self, notify: Callable[[str], None]) -> Iterator[None]:
        """Hold the files shared by all scans, such as tables, waiting for other processes."""
        shared = [self.path / name for name in _SHARED]
        try:
            with held(self.notes / _ALONE, self.path, "this process", notify, lambda: remove_temporaries_of(*shared)):
                yield
        finally:
            with suppress(OSError):
                self.notes.rmdir()

    def fail(self, outputs: Outputs, item: ScanInput, sentence: str) -> None:
        """Note why a claimed scan was not segmented."""
        note = self._note("failed", self._within(outputs.record))
        write_json(note, {"path": os.path.abspath(item.path), "why": sentence})

    def succeed(self, outputs: Outputs) -> None:
        """Remove the note of an earlier failure of a scan."""
        self._note("failed", self._within(outputs.record)).unlink(missing_ok=True)

    def standing(self, items: Mapping[ScanInput, Outputs] | None = None) -> Standing:
        """The state of scans; default: of all, as `read` returns it."""
        return self.read()[0] if items is None else self._state(self._requested(items), {}, ())

    def read(self) -> tuple[Standing, Records]:
        """The state of all requested scans and of those with records, and these records."""
        requested, damaged = self._all_requested(), dict[str, str]()
        records = list(records_within(self.path, damaged))
        recorded = {self._within(file): self._of_record(file, record) for file, record in records}
        made = {one["path"]: name for name, one in recorded.items()}
        requested = [one for one in requested if not self._is_outdated(one, made.get(one["path"]))]
        known = {one[key] for one in requested for key in ("path", "record")}
        requested += [one for name, one in recorded.items() if known.isdisjoint((name, one["path"]))]
        return self._state(requested, damaged, recorded), records

    def _is_outdated(self, one: Mapping[str, Any], record: str | None) -> bool:
        """Whether a requested scan was segmented later, under another name or after it was repaired."""
        if record is None or (record == one["record"] and not one["problem"]):
            return False
        ended = one["since"] if one["problem"] else written_at(self._note("failed", one["record"]))
        return written_at(self.path / record) >= ended

    def _state(self, requested: list[dict[str, str]], damaged: Mapping[str, str], recorded: Container[str]) -> Standing:
        known = {one["record"] for one in requested}
        found = Standing(failed={name: why for name, why in damaged.items() if self._within(Path(name)) not in known})
        noted = self._noted()
        for one in requested:
            path, claim, failure = one["path"], self._note("claim", one["record"]), self._note("failed", one["record"])
            holder = read_claim(claim) if claim.name in noted else None
            if one["problem"]:
                found.failed[path] = one["problem"]
            elif holder and alive(claim, holder):
                found.claimed[path] = str(holder)
            elif failure.name in noted and (note := read_note(failure)):
                found.failed[path] = note["why"]
            elif why := damaged.get(str(self.path / one["record"])):
                found.failed[path] = why
            elif (self.path / one["mask"]).is_file():
                found.done.append(path)
            else:
                lost = f"{one['mask']} does not exist; run predict again" if one["record"] in recorded else ""
                found.missing[path] = f"{holder} died while segmenting it" if holder else lost
        return found

    def at_work(self) -> bool:
        """Whether living processes have claims in the folder."""
        return any(holder_of(path) for path in self._noted_as("claim-*.json") if path.name != _ALONE)

    def has_records(self, damaged: dict[str, str] | None = None) -> bool:
        """Whether there are records in the folder; reading ends with the first."""
        return next(all_records_within(self.path, damaged), None) is not None

    def close(self, items: Mapping[ScanInput, Outputs]) -> None:
        """Remove notes of requested scans that are done, claims of dead processes, and empty notes."""
        noted = self._noted()
        for outputs in items.values():
            note = self._note("claim", self._within(outputs.record))
            if note.name in noted and isinstance(claim := self.claim(outputs), Claim):
                claim.release()
        for path in self._noted_as("*~"):  # left by a process killed while it took over a claim
            if isinstance(claim := take(path), Claim):
                claim.release()
        if len(items) == 1 or len(self.standing(items).done) == len(items):  # the failure of a single one was raised
            self._request_file(self._requested(items)).unlink(missing_ok=True)
        with suppress(OSError):
            self.notes.rmdir()

    def _requested(self, items: Mapping[ScanInput, Outputs]) -> list[dict[str, str]]:
        return [
            {"path": os.path.abspath(item.path), "problem": item.problem}
            | {"record": self._within(outputs.record), "mask": self._within(outputs.mask)}
            for item, outputs in items.items()
        ]

    def _of_record(self, file: Path, record: Mapping[str, Any]) -> dict[str, str]:
        """A scan with a record, in the form of a requested one."""
        return {
            "path": os.path.normpath(record["scan"].get("path", record["scan"]["name"])),
            "problem": "",
            "record": self._within(file),
            "mask": os.path.relpath(file.parent / record["files"]["mask"], self.path),
        }

    def _request_file(self, requested: Iterable[Mapping[str, str]]) -> Path:
        return self._note("request", json.dumps(requested))

    def _all_requested(self) -> list[dict[str, Any]]:
        """The requested scans; of one in several lists, the latest request, and all with the time of their list."""
        lists = sorted((written_at(path), path) for path in self._noted_as(_REQUESTS))
        found = [one | {"since": since} for since, path in lists for one in read_note(path) or []]
        return list({one["path"]: one for one in found}.values())

    def _noted(self) -> set[str]:
        """The names of all notes, in one listing: on a network drive, single queries are slow."""
        with suppress(FileNotFoundError, NotADirectoryError):  # without notes, which others may just have removed
            return set(os.listdir(self.notes))
        return set()

    def _noted_as(self, pattern: str) -> list[Path]:
        return [self.notes / name for name in sorted(fnmatch.filter(self._noted(), pattern))]

    def _note(self, kind: str, of: str) -> Path:
        return self.notes / f"{kind}-{_sha256(of)[:24]}.json"

    def _within(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix()
