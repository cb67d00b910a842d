"""Folds: the scans for training, validation and testing (Kolarik 2020, section 3.2)."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from reprlib import repr as repr_of
from typing import Any

from planar3d.errors import FoldsError
from planar3d.files import parse_json
from planar3d.wording import composed, counted, is_or_are, listed

MSSEG_FOLDS = 5
# A card is stored in an attribute of less than 64 KiB; for large data sets it names only the first scans.
_NAMED_SCANS = 200
# A visit in a scan's name: P1_T2, 013_time02, patient04_study1_FLAIR.
_VISIT = re.compile(
    r"(?:^|[_.-])(?:(?:ses|session|visit|v|tp?|time|timepoint|study|fu|month|year)[_-]?\d+|baseline|bl|follow-?up)"
    r"(?=[_.-]|$)",
    re.IGNORECASE,
)
_LEAVE_ONE_OUT = 10  # with a single group of at most this many scans, each fold tests one scan


@dataclass(frozen=True)
class Fold:
    """One fold: ids of the scans for training, validation and testing."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def trained(self, held_out: bool) -> dict[str, Any]:
        """The scans of training and validation, as a model card names them; all train unless some are `held_out`."""
        apart = len(self.validation) if held_out else 0
        return {
            "scans that train": len(self.train) + len(self.validation) - apart,
            "scans that validate": apart,
            "scans": listed([*self.train, *self.validation], _NAMED_SCANS),
        }


def msseg_folds(ids: Iterable[str]) -> list[Fold]:
    """The five folds of MSSEG 2016: each tests one scan of each center and validates on the last of the other twelve.

    Fold 1 tests the last scan of each center (01042GULE, 07043SEME, 08037ROGU), as for the released weights; the
    other folds go backwards in alphabetical order.

    Args:
        ids: scan names; their first two digits are the center.

    Raises:
        FoldsError: a center does not have five scans.

    Source: Kolarik 2020, section 3.2; the order from the released code.
    """
    ids = sorted(map(str, ids)) if isinstance(ids, Iterable) else []
    counts = dict(Counter(i[:2] for i in ids))
    if not ids or set(counts.values()) != {MSSEG_FOLDS}:
        raise FoldsError(
            f"The MSSEG folds need five scans of each center, named by the first two digits; found {counts or 'none'}."
        )
    return group_folds({i: i[:2] for i in ids}, MSSEG_FOLDS)


def group_folds(
    groups: Mapping[str, str], number: int | None = None, patients: Mapping[str, str] | None = None
) -> list[Fold]:
    """Folds of any data set, as `msseg_folds`: each tests one patient of each group, from the last backwards.

    With fewer folds than patients in a group, a fold tests every `number`-th patient, so that each scan is tested
    exactly once. The last of the other patients is for validation, if there are several. All scans of a patient have
    the same role.

    Args:
        groups: the group of each scan, by id; a patient with scans in several groups belongs to the first scan's group.
        number: number of folds; default: one for each patient of a single group of at most ten, otherwise five, or the
            number of patients in the largest group if that is less.
        patients: the patient of each scan, by id; default: every scan is a different patient.

    Raises:
        FoldsError: there are too few patients, or a fold would have no patient to test.
    """
    for what, names in {"groups": groups, "patients": groups if patients is None else patients}.items():
        if not isinstance(names, Mapping) or not all(isinstance(n, str) for pair in names.items() for n in pair):
            raise FoldsError(
                f"{what}: a dictionary of names by scan is needed, {{'01016SACH': '01'}}; got {repr_of(names)}."
            )
    patients = patients or {scan: scan for scan in groups}
    if absent := sorted(groups.keys() - patients.keys()):
        raise FoldsError(f"patients lacks {', '.join(absent)}; name the patient of every scan.")
    scans: dict[str, list[str]] = defaultdict(list)
    for scan in sorted(groups):
        scans[patients[scan]].append(scan)
    members: dict[str, list[str]] = defaultdict(list)
    for patient, (first, *_) in scans.items():
        members[groups[first]].append(patient)
    if len(scans) < 2:
        raise FoldsError(f"{counted(scans, 'patient')} cannot be cross-validated; 2 are needed to train and test.")
    largest = max(map(len, members.values()))
    what = "Folds cannot be made" if number is None else f"The number of folds cannot be {number!r}"
    if number is None:
        number = largest if len(members) == 1 and largest <= _LEAVE_ONE_OUT else min(MSSEG_FOLDS, largest)
    if not isinstance(number, Integral) or not 2 <= number <= largest:
        possible = "2" if largest == 2 else f"2 to {largest}"
        joined = "Join groups to have 2 patients in one, or name your own folds.json."
        advice = f"Choose {possible} folds." if largest > 1 else joined
        raise FoldsError(f"{what}: the largest group has {counted(largest, 'patient')}. {advice}")
    folds = []
    for tested in range(number):
        test = {one for its in members.values() for one in its[::-1][tested::number]}
        others = [one for one in scans if one not in test]
        train, validation = (others[:-1], others[-1:]) if len(others) > 1 else (others, [])
        parts = (train, validation, [one for one in scans if one in test])
        folds.append(Fold(*(tuple(sorted(scan for one in part for scan in scans[one])) for part in parts)))
    return folds


def everything(patients: Mapping[str, str]) -> Fold:
    """One fold without test scans: all patients are for training, or the last of several for validation."""
    ids = sorted(patients)
    last = patients[ids[-1]] if len(set(patients.values())) > 1 else ""
    train = tuple(scan for scan in ids if patients[scan] != last)
    return Fold(train, tuple(scan for scan in ids if patients[scan] == last), ())


def shared_patients(folds: Sequence[Fold], patients: Mapping[str, str]) -> list[str]:
    """A sentence for each of a user's folds that has scans of one patient both for testing and for training.

    If there is none, a sentence for the first fold that may do so by the names of scans: P1_T1 and P1_T2.
    """
    sentences = []
    for number, fold in enumerate(folds, start=1):
        seen = {patients[scan] for scan in (*fold.train, *fold.validation)}
        if shared := [scan for scan in fold.test if patients[scan] in seen]:
            sentences.append(
                f"Fold {number} tests {listed(shared)}, but trains or validates on other scans of the same patients; "
                "scores on new patients would be lower."
            )
    visits = {scan: _VISIT.sub("", patient) for scan, patient in patients.items()}
    alike = {scan: name for scan, name in visits.items() if re.search(r"\d", name)}
    for number, fold in enumerate(folds if not sentences else (), start=1):
        trained = {alike[scan]: scan for scan in (*fold.train, *fold.validation) if scan in alike}
        if pairs := [f"{scan} and {trained[alike[scan]]}" for scan in fold.test if alike.get(scan) in trained]:
            return [
                f"{pairs[0]} count as different patients, and fold {number} trains on one and tests the other. If they "
                "are visits of one patient, scores on new patients would be lower: name the patients in the column "
                "patient of a CSV table."
            ]
    return sentences


def read_folds(path: str | Path, ids: Iterable[str]) -> list[Fold]:
    """Read a user's own folds: `{"folds": [{"train": […], "validation": […], "test": […]}, …]}`.

    Raises:
        FoldsError: the file cannot be read or has another form, names unknown scans, or uses a scan twice in one fold.
    """
    known = set(ids)
    spelled = {composed(scan): scan for scan in known} | {scan: scan for scan in known}
    try:
        content = parse_json(path)
        rows = content["folds"] if isinstance(content, dict) else content
        folds = [_fold(row, spelled) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise FoldsError(
            f'{path} has no folds ({error}); expected: {{"folds": [{{"train": […], "validation": […], "test": […]}}]}}.'
        ) from None
    if not folds:
        raise FoldsError(f"{path} has no folds.")
    for number, fold in enumerate(folds, start=1):
        used = [*fold.train, *fold.validation, *fold.test]
        if unknown := sorted(set(used) - known):
            raise FoldsError(f"{path}, fold {number}: {', '.join(unknown)} {is_or_are(unknown)} not in the data set.")
        if len(used) != len(set(used)):
            twice = next(s for s in used if used.count(s) > 1)
            raise FoldsError(
                f"{path}, fold {number}: {twice} is listed twice; train, validation and test must not overlap."
            )
        if not (fold.train and fold.test):
            raise FoldsError(f"{path}, fold {number}: train and test each need at least one scan.")
    return folds


def choose_folds(only: str | Sequence[int] | None, number: int) -> list[int]:
    """The folds to run, counted from 1: all, or a selection such as `2,4`."""
    if only is None:
        return list(range(1, number + 1))
    texts = only.split(",") if isinstance(only, str) else only
    try:
        chosen = sorted({int(text) for text in texts})
    except ValueError:
        raise FoldsError(f"--only {only}: fold numbers are needed, e.g. --only 2,4.") from None
    if absent := [n for n in chosen if not 1 <= n <= number]:
        raise FoldsError(f"Fold {absent[0]} does not exist; there {is_or_are(number)} {counted(number, 'fold')}.")
    return chosen


def _fold(row: Any, spelled: Mapping[str, str]) -> Fold:
    parts = ("train", "validation", "test")
    if not isinstance(row, dict):
        raise TypeError(f"found {row!r} for a fold")
    if absent := [part for part in parts if part not in row]:
        raise TypeError(f"a fold lacks {listed(absent)}")
    for names in (row[part] for part in parts):
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"a list of scan names is needed, found {names!r}")
    return Fold(*(tuple(spelled.get(name, spelled.get(composed(name), name)) for name in row[part]) for part in parts))
