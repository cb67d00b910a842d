"""A table that names the files of each case."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from planar3d.errors import DatasetError
from planar3d.scans.case import Case
from planar3d.scans.image_files import stem
from planar3d.scans.layouts.interface import Layout
from planar3d.scans.participants import EVERYONE
from planar3d.scans.tables import check_name, path_in_table, read_table

_COLUMNS = ("scan", "mask", "group")


class Table(Layout):
    """A row a case: scan, mask, and perhaps group and id."""

    name = "table"
    expected = "a CSV table with the columns scan,mask,group"

    def find(self, folder: Path, files: Sequence[Path], labelled: bool) -> list[Case]:  # noqa: D102
        path = folder
        if not os.path.isfile(path):
            return []
        table = read_table(path, (*_COLUMNS, "id"), DatasetError)
        if table.lacks(_COLUMNS[:2]):
            raise DatasetError(
                f"{path} has the columns {table.found}; it needs {', '.join(_COLUMNS)} (group and id are optional)."
            )
        cases = []
        for row in table.rows:
            if not row["scan"] or not row["mask"]:
                raise DatasetError(f"{row.place}: scan or mask is empty.")
            scan, mask = (path_in_table(path, row[name]) for name in ("scan", "mask"))
            if not os.path.lexists(scan):
                raise DatasetError(f"{row.place}: {scan} does not exist.{table.hint}")
            check_name(row["id"], row, DatasetError)
            cases.append(Case(row["id"] or _id_of(row["scan"]), {"flair": scan}, mask, row["group"] or EVERYONE))
        return cases


def _id_of(scan: str) -> str:
    """A readable id: the path without its suffix, its folders joined."""
    path = Path(scan)
    return re.sub(r"[^A-Za-z0-9.-]+", "_", str(path.with_name(stem(path)))).strip("_.")
