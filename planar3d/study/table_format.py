"""How a table is headed and written: rows of a mean and its spread in each column, as CSV and Markdown."""

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from planar3d.evaluation.challenges import ALL_MEASURES
from planar3d.evaluation.published import CENTERS
from planar3d.evaluation.scores import Summary

MISSING = Summary(math.nan)


@dataclass(frozen=True)
class Row:
    """A line of a table: what it shows, and a mean with its spread in each column.

    `measure`, `grid` and `over` (what the spread is over) go into the CSV; people read `label` and `kind`.
    """

    label: str
    cells: dict[str, Summary]
    measure: str = ""
    grid: str = ""
    over: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of summaries under named columns, with the sentences that belong below.

    `beside` says whether published figures are among them.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    beside: bool = False

    @property
    def header(self) -> tuple[str, ...]:
        """What stands above the columns, the labels' first."""
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

    def to_csv(self) -> str:
        """Return one line a cell: what it is, mean, sd and what that is over, number of values and of how many.

        A mean of no defined value is empty.
        """
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("row", "kind", "measure", "grid", "column", "mean", "sd", "sd_over", "values", "of"))
        for row in self.rows:
            for column in self.columns:
                cell = row.cells.get(column, MISSING)
                if cell.total or not math.isnan(cell.mean):
                    counts = (cell.count, cell.total) if cell.total else ("", "")
                    mean, sd = ("" if math.isnan(value) else value for value in (cell.mean, cell.sd))
                    what = (row.label, row.kind, row.measure, row.grid, column)
                    writer.writerow((*what, mean, sd, row.over, *counts))
        return stream.getvalue()


def heading(column: str) -> str:
    """Return how a column is headed: measures by their label, centers by their code, other groups by their name."""
    if column in ALL_MEASURES:
        return ALL_MEASURES[column].label
    return f"center {column}" if column in CENTERS else column


def _markdown_line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
