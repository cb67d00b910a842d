"""Tables of means and standard deviations, as CSV and Markdown."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from planar3d.evaluation.challenges import ALL_MEASURES
from planar3d.evaluation.published import CENTERS
from planar3d.evaluation.scores import Summary

MISSING = Summary(math.nan)
# Of a cell: its meaning, mean, standard deviation and what it is over, number of values and total.
CSV_COLUMNS = ("row", "kind", "measure", "grid", "column", "mean", "sd", "sd_over", "values", "of")
OVER_SCANS = "± is the sample standard deviation (n − 1) over scans."


@dataclass(frozen=True)
class Row:
    """A row of a table: its label, and a mean with standard deviation in each column.

    `measure`, `grid` and `over` (the unit of the standard deviation) are written to the CSV; `label` and `kind` are for
    readers.
    """

    label: str
    cells: dict[str, Summary]
    measure: str = ""
    grid: str = ""
    over: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of summaries under named columns, with notes below.

    `beside`: whether published figures are included.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    beside: bool = False

    @property
    def header(self) -> tuple[str, ...]:
        """The headings of the columns, the labels' first."""
        kinds = ("kind",) if any(row.kind for row in self.rows) else ()
        return ("", *kinds, *(heading(column) for column in self.columns))

    @property
    def lines(self) -> list[tuple[str, ...]]:
        """The rows as text, cell by cell."""
        kinds = "kind" in self.header
        return [
            (row.label, *((row.kind,) if kinds else ()), *(str(row.cells.get(c, MISSING)) for c in self.columns))
            for row in self.rows
        ]

    def to_markdown(self) -> str:
        """Return the table with its title and notes as Markdown."""
        lines = [f"## {self.title}", "", _markdown_line(self.header), "|---" * len(self.header) + "|"]
        lines += [_markdown_line(line) for line in self.lines]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes), ""])

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield a row of the CSV file, with `CSV_COLUMNS`, for each cell with values; an undefined mean is absent."""
        for row in self.rows:
            for column in self.columns:
                cell = row.cells.get(column, MISSING)
                if cell.total or not math.isnan(cell.mean):
                    what = (row.label, row.kind, row.measure, row.grid, column)
                    figures = (cell.mean, cell.sd, row.over, *((cell.count, cell.total) if cell.total else ()))
                    found = zip(CSV_COLUMNS, (*what, *figures), strict=False)
                    yield {name: value for name, value in found if value == value}  # without nan


def heading(column: str) -> str:
    """Return the heading of a column: a measure with its unit, the code of a center, the name of another group."""
    if column in ALL_MEASURES:
        return ALL_MEASURES[column].heading
    return f"center {column}" if column in CENTERS else column


def _markdown_line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
