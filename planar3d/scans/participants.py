"""The sites of a BIDS data set's participants, which are the groups of its scans."""

import os
from collections.abc import Collection
from pathlib import Path

from planar3d.errors import DatasetError
from planar3d.scans.tables import read_table

EVERYONE = "all"  # the group of scans without a known site
_ID = "participant_id"
_SITES = ("site", "site_id", "siteid", "center", "centre", "center_id", "centre_id")
_UNKNOWN = {"", "n/a", "na", "nan"}  # the standard's value, and variants by spreadsheets


def read_sites(path: Path, subjects: Collection[str]) -> dict[str, str]:
    """The site of each subject in `participants.tsv`; subjects with `n/a` have none.

    Args:
        path: of `participants.tsv`, which may be missing.
        subjects: names of folders, as sub-01; the table may omit sub-.

    Raises:
        DatasetError: the file cannot be read, gives a subject two sites, or has sites, but none of the subjects.
    """
    if not os.path.lexists(path):
        return {}
    table = read_table(path, (_ID, *_SITES), DatasetError)
    column = next((name for name in _SITES if name in table.names), None)
    if column is None:
        return {}
    if _ID not in table.names:
        raise DatasetError(f"{path} has no column {_ID}; found: {table.found}. Rename the column with the subjects.")
    sites: dict[str, str] = {}
    known = set()
    for row in table.rows:
        label = "".join(row[_ID].split())
        subject = label if label.startswith("sub-") else f"sub-{label}"
        known.add(subject)
        if row[column].lower() in _UNKNOWN:
            continue
        site = sites.setdefault(subject, row[column])
        if site != row[column]:
            raise DatasetError(f"{row.place}: {subject} has the site {row[column]}, but {site} above; one is needed.")
    if known and not known.intersection(subjects):
        raise DatasetError(
            f"{path} gives the sites of {_some(known)}, but not of {_some(subjects)}; "
            f"use the same names, or remove the column {column}."
        )
    return sites


def _some(subjects: Collection[str]) -> str:
    return ", ".join(sorted(subjects)[:5]) + " …" * (len(subjects) > 5)
