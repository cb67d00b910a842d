"""A table that names the files of each case."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from planar3d.errors import DatasetError
from planar3d.scans.case import EVERYONE, Case, Layout
from planar3d.scans.image_files import files_of, stem
from planar3d.scans.tables import SITES, check_name, path_in_table, read_table

_COLUMNS = ("scan", "mask", "group", "id", "labels", "patient")
# Columns that name centers and patients; the first one present counts.
_GROUPS = ("group", *SITES)
_PATIENTS = ("patient", "patient_id", "subject", "subject_id", "participant", "participant_id")
_IMAGE = re.compile("scan|image:_?(.+)")


class TableOfCases(Layout):
    """One case per row: `scan` (FLAIR), or `image:<name>` for each image; `mask` or `labels`; and optional columns."""

    name = "table"
    expected = "a CSV table with the columns scan,mask,group"

    def find(self, folder: Path, files: Sequence[Path], labelled: bool) -> list[Case]:
        path = folder
        if not os.path.isfile(path):
            return []
        table = read_table(path, _COLUMNS, DatasetError)
        # In the order of the columns: the first image names a case.
        names = {column: match[1] or "flair" for column in table.names if (match := _IMAGE.fullmatch(column))}
        marked = [column for column in ("mask", "labels") if column in table.names]
        if not names or (labelled and not marked):
            raise DatasetError(
                f"{path} has {table.found}; it needs scan and mask (group, id and patient are "
                "optional), or image:<name> for each image instead of scan, and labels instead of mask."
            )
        if len(marked) > 1 or len(set(names.values())) < len(names):
            raise DatasetError(
                f"{path} has {table.found}; scan means image:flair, mask means labels. Keep one of each."
            )
        cases = []
        for row in table.rows:
            given = {name: row[column] for column, name in names.items() if row[column]}
            labels = row[marked[0]] if marked else ""
            if not given or (labelled and not labels):
                empty = marked[0] if given else "scan" if "scan" in names else "image"
                raise DatasetError(f"{row.place}: {empty} is empty.")
            images = {name: path_in_table(path, text) for name, text in given.items()}
            if lost := [image for image in images.values() if not any(map(os.path.lexists, files_of(image)))]:
                raise DatasetError(f"{row.place}: {lost[0]} does not exist.{table.hint}")
            chosen = row["id"] if labelled else row["name"] or row["id"]
            check_name(chosen, row, DatasetError)
            first = Path(next(iter(given.values())))  # its folders and its name make a readable id
            case_id = chosen or re.sub(r"[^A-Za-z0-9.-]+", "_", str(first.parent / stem(first))).strip("_.")
            if not case_id:
                raise DatasetError(
                    f"{row.place}: the name of {first} has no letter of a–z and no digit; add the column id."
                )
            mask = path_in_table(path, labels) if labels else None
            cases.append(Case(case_id, images, mask, row.known(_GROUPS) or EVERYONE, row.known(_PATIENTS)))
        return cases
