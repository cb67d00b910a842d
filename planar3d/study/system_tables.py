"""The tables printed in a system's paper, with the figures reproduced by a run of its recipe."""

import math
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path

import numpy as np

from planar3d.evaluation.challenges import ALL_MEASURES
from planar3d.evaluation.published_systems import PublishedTable, Task, published_tables
from planar3d.evaluation.scores import Summary, summarize
from planar3d.study.results import GRIDS, Results
from planar3d.study.table_format import OVER_SCANS, Row, Table
from planar3d.wording import counted

PUBLISHED, REPRODUCED = "published", "this run"


def system_tables(results: Results, besides: Iterable[Table] = ()) -> list[Table]:
    """Build the published tables of a run's recipe, with the run's rows after those they reproduce.

    Recipes of other papers have none. `besides` are the run's tables over several cases.
    """
    others = {table.name: table for table in besides}
    return [_table(published, results, others) for published in published_tables(results.run.recipe.name)]


def _table(published: PublishedTable, results: Results, others: Mapping[str, Table]) -> Table:
    rows = []
    for name, printed in groupby(published.rows, lambda row: row.name):
        rows += [Row(f"{name}, {row.statistic}", dict(row.cells), kind=PUBLISHED) for row in printed]
        if name in published.counterparts:
            rows += _own_rows(published, published.counterparts[name], results, others)
    notes = [
        f"Published: {published.source}; for {published.data}.",
        f"This run: {_data(results)}. The cases differ, so a difference in scores is not due to the methods alone.",
        *published.notes,
    ]
    if any(row.over for row in rows) and not published.beside:
        notes += [OVER_SCANS, results.measure_set.note]
    if all(row.kind == PUBLISHED for row in rows):
        notes.append("This run has none of the scores published in this table; its own scores are in other tables.")
    return Table(f"published_{published.name}", published.title, tuple(published.columns), rows, notes, True)


def _own_rows(published: PublishedTable, task: Task, results: Results, others: Mapping[str, Table]) -> list[Row]:
    name = ", ".join(filter(None, (results.run.recipe.name, task.name)))
    beside = others.get(published.beside)
    over = beside.rows[0].over if beside else "scans"
    return [
        Row(f"{name}, {results.grid_label(grid)}, {statistic}", cells, "", grid, over, REPRODUCED)
        for grid in GRIDS
        for statistic in dict.fromkeys(row.statistic for row in published.rows)
        if (
            cells := _own_cells(published, task, results, grid, statistic)
            | _other_cells(published, beside, grid, statistic)
        )
    ]


def _own_cells(
    published: PublishedTable, task: Task, results: Results, grid: str, statistic: str
) -> dict[str, Summary]:
    """A statistic of this run's scores in the columns with a counterpart, if scores have that statistic."""
    cells: dict[str, Summary] = {}
    groups = {scan.group for scan in results.scans}
    if statistic not in _STATISTICS or not groups >= set(task.groups) or not set(task.besides) <= set(results.targets):
        return cells
    for heading, scored in published.columns.items():
        if scored and scored[0] in results.targets:
            target, measure, *ends = scored
            by_scan: dict[tuple[int, str], list[float]] = {}
            for of in (target, *task.besides):
                for s in results.on(grid, of):
                    if s.group in (task.groups or (s.group,)) and s.scan.endswith(tuple(ends) or ""):
                        by_scan.setdefault((s.fold, s.scan), []).append(s.values[measure])
            if by_scan:
                values = [summarize(each).mean for each in by_scan.values()]
                cells[heading] = _STATISTICS[statistic](values, ALL_MEASURES[measure].digits)
    return cells


def _other_cells(published: PublishedTable, own: Table | None, grid: str, statistic: str) -> dict[str, Summary]:
    """A column of one of this run's tables, whose rows on a grid are named like the published columns, with a unit."""
    rows = {row.label.partition(" [")[0]: row for row in own.rows if row.grid == grid} if own else {}
    return {
        heading: rows[heading].cells[statistic]
        for heading in published.columns
        if heading in rows and statistic in rows[heading].cells
    }


def _quantile(share: float, values: list[float], digits: int) -> Summary:
    defined = [value for value in values if not math.isnan(value)]
    found = float(np.quantile(defined, share)) if defined else math.nan
    return Summary(found, math.nan, len(defined), len(values), digits)


_STATISTICS = {
    "mean": summarize,
    "median": lambda values, digits: _quantile(0.5, values, digits),
    "25 %": lambda values, digits: _quantile(0.25, values, digits),
    "75 %": lambda values, digits: _quantile(0.75, values, digits),
}


def _data(results: Results) -> str:
    data = results.run.data
    scored = counted({(scan.fold, scan.scan) for scan in results.scans}, "test scan")
    whose = "a phantom (not patients)" if results.is_phantom else Path(str(data.get("folder", ""))).name
    return f"{scored} of {whose}, layout {data.get('layout', 'unknown')}"
