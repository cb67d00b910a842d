"""Folds: which scans train, validate and test in each round (Kolarik 2020, section 3.2)."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from planar3d.errors import FoldsError, RunError
from planar3d.files import read_json

MSSEG_ROUNDS = 5
_LEAVE_ONE_OUT = 10  # a single group of at most this many scans is tested one scan a round


@dataclass(frozen=True)
class Fold:
    """One round: ids of the scans that train, validate and test."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def msseg_folds(ids: Iterable[str]) -> list[Fold]:
    """The five rounds of MSSEG 2016: one scan of each center tests, the last of the other twelve validates.

    Round 1 tests the last scan of each center (01042GULE, 07043SEME, 08037ROGU), as the released weights did; the
    other rounds follow downwards in alphabetical order.

    Args:
        ids: scan names whose first two digits are the center.

    Raises:
        FoldsError: not five scans in every center.

    Source: Kolarik 2020, section 3.2; the order from the released code.
    """
    ids = sorted(ids)
    centers = [i[:2] for i in ids]
    counts = {c: centers.count(c) for c in centers}
    if not ids or set(counts.values()) != {MSSEG_ROUNDS}:
        raise FoldsError(
            f"The MSSEG folds need five scans of each center; found {counts or 'none'} by the first two digits."
        )
    return group_folds(dict(zip(ids, centers, strict=True)), MSSEG_ROUNDS)


def group_folds(groups: dict[str, str], rounds: int | None = None) -> list[Fold]:
    """The same rule for any data set: each round tests one scan of each group, from the last downwards.

    With fewer rounds than scans in a group, a round tests every `rounds`-th scan of it, so that each scan is tested
    exactly once. The last of the other scans validates.

    Args:
        groups: the group of each scan, by id.
        rounds: how many; if None, five, or one a scan for a single group of at most ten scans.

    Raises:
        FoldsError: too few scans, or a number of rounds that leaves one without a test scan.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for scan in sorted(groups):
        members[groups[scan]].append(scan)
    largest = max((len(scans) for scans in members.values()), default=0)
    if len(groups) < 3:
        raise FoldsError(f"{len(groups)} scans cannot be cross-validated; 3 are needed to train, validate and test.")
    if rounds is None:
        rounds = largest if len(members) == 1 and largest <= _LEAVE_ONE_OUT else min(MSSEG_ROUNDS, largest)
    if not 2 <= rounds <= largest:
        raise FoldsError(
            f"{rounds} folds were asked for, but the largest group has {largest} scans; from 2 to {largest} are "
            "possible."
        )
    folds = []
    for number in range(rounds):
        test = [s for scans in members.values() for p, s in enumerate(reversed(scans)) if p % rounds == number]
        rest = sorted(set(groups) - set(test))
        if len(rest) < 2:
            raise FoldsError(f"Round {number + 1} leaves {len(rest)} scans to train and validate; 2 are needed.")
        folds.append(Fold(tuple(rest[:-1]), (rest[-1],), tuple(sorted(test))))
    return folds


def everything(ids: Iterable[str]) -> Fold:
    """One round in which no scan tests: all of them train, or all but the last of several, which validates."""
    ids = sorted(ids)
    return Fold(tuple(ids[:-1] or ids), tuple(ids[1:][-1:]), ())


def read_folds(path: str | Path, ids: Iterable[str]) -> list[Fold]:
    """Read a user's own folds: `{"folds": [{"train": […], "validation": […], "test": […]}, …]}`.

    Raises:
        FoldsError: the file is missing or of another form, names scans that are not there, or uses a scan for two
            purposes in one round.
    """
    path = Path(path)
    if not path.is_file():
        raise FoldsError(f"{path} does not exist; name a folds.json, or leave it out to have the folds made.")
    try:
        content = read_json(path)
        rows = content["folds"] if isinstance(content, dict) else content
        folds = [Fold(*(_names(row[part]) for part in ("train", "validation", "test"))) for row in rows]
    except (RunError, KeyError, TypeError) as error:
        raise FoldsError(
            f"{path} holds no folds ({error}); "
            'needed is {"folds": [{"train": […], "validation": […], "test": […]}]}.'
        ) from None
    if not folds:
        raise FoldsError(f"{path} holds no rounds.")
    known = set(ids)
    for number, fold in enumerate(folds, start=1):
        used = [*fold.train, *fold.validation, *fold.test]
        unknown = sorted(set(used) - known)
        if unknown:
            raise FoldsError(f"{path}, round {number}: {', '.join(unknown)} are not in the data set.")
        if len(used) != len(set(used)):
            twice = next(s for s in used if used.count(s) > 1)
            raise FoldsError(f"{path}, round {number}: {twice} is used twice; train, validation and test must differ.")
        if not (fold.train and fold.validation and fold.test):
            raise FoldsError(f"{path}, round {number}: train, validation and test each need at least one scan.")
    return folds


def choose_rounds(only: str | Sequence[int] | None, rounds: int) -> list[int]:
    """The rounds to run, counted from 1: all, or those named as in `2,4`.

    Raises:
        FoldsError: a round that does not exist.
    """
    if only is None or only == "":
        return list(range(1, rounds + 1))
    texts = only.split(",") if isinstance(only, str) else only
    try:
        chosen = sorted({int(text) for text in texts})
    except ValueError:
        raise FoldsError(f"--only {only}: numbers of rounds are needed, e.g. --only 2,4.") from None
    absent = [n for n in chosen if not 1 <= n <= rounds]
    if absent:
        raise FoldsError(f"Round {absent[0]} does not exist; there are rounds 1 to {rounds}.")
    return chosen


def _names(values: list[str]) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
        raise TypeError(f"a list of scan names is needed, found {values!r}")
    return tuple(values)
