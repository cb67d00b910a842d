"""The tables printed in a system's paper, with the figures reproduced by a run of its recipe."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from planar3d.evaluation.challenges import ALL_MEASURES
from planar3d.evaluation.scores import Summary, summarize
from planar3d.study.results import GRIDS, Results
from planar3d.study.table_format import OVER_SCANS, Row, Table
from planar3d.wording import counted

PUBLISHED, REPRODUCED = "published", "this run"
# The tables by name:
# - columns: by heading, the target and measure of a run's scores for comparison, and the ending of scan names if only
#   some count; null if a run's scores have no counterpart;
# - recipes: by recipe, the method that it reproduces;
# - tasks: endings of that method's name, if it has several: the groups of the cases, and targets besides the column's;
# - rows: the method, the statistic over cases, and its figures, or pairs with their standard deviation;
# - beside: the run's table, if not its scores, whose rows and columns are the columns and statistics of this one.
_TABLES = Path(__file__).with_suffix(".json")


def published_tables(recipe: str) -> list[dict[str, Any]]:
    """The tables of a recipe's paper, each with its `name` and the `method` that the recipe reproduces.

    Recipes are known by their names: wacker2019-3d, also with -released, -demo, ….
    """
    return [
        {"name": name, "method": method, **printed}
        for name, printed in json.loads(_TABLES.read_text(encoding="utf-8")).items()
        for of, method in printed["recipes"].items()
        if f"{recipe}-".startswith(f"{of}-")
    ]


def system_tables(results: Results, besides: Iterable[Table] = ()) -> list[Table]:
    """Build the published tables of a run's recipe, with the run's rows after those they reproduce.

    Recipes of other papers have none. `besides` are the run's tables over several cases.
    """
    others = {table.name: table for table in besides}
    return [_table(printed, results, others) for printed in published_tables(results.run.recipe.name)]


def _table(printed: Mapping[str, Any], results: Results, others: Mapping[str, Table]) -> Table:
    tasks = {f"{printed['method']}, {task}": task for task in printed.get("tasks", ())} or {printed["method"]: ""}
    own = others.get(printed.get("beside", ""))
    rows = []
    for method, its in groupby(printed["rows"], lambda row: row[0]):
        for _, statistic, *figures in its:
            summaries = [_summary(figure, printed["digits"]) for figure in figures]
            cells = dict(zip(printed["columns"], summaries, strict=True))
            rows.append(Row(f"{method}, {statistic}", cells, kind=PUBLISHED))
        if method in tasks:
            rows += _own_rows(printed, tasks[method], results, own)
    data, scored = results.run.data, counted({(scan.fold, scan.scan) for scan in results.scans}, "test scan")
    whose = "a phantom (not patients)" if results.is_phantom else Path(data["folder"]).name
    notes = [
        f"Published: {printed['source']}; for {printed['data']}.",
        f"This run: {scored} of {whose}, layout {data.get('layout', 'unknown')}. The cases differ, so a difference in "
        "scores is not due to the methods alone.",
        *printed.get("notes", ()),
    ]
    if any(row.over for row in rows) and "beside" not in printed:
        notes += [OVER_SCANS, results.measure_set.note]
    if all(row.kind == PUBLISHED for row in rows):
        notes.append("This run has none of the scores published in this table; its own scores are in other tables.")
    return Table(f"published_{printed['name']}", printed["title"], tuple(printed["columns"]), rows, notes, True)


def _summary(figure: Any, digits: int) -> Summary:
    """A printed figure, or a pair with its standard deviation; None is undefined."""
    mean, sd = figure if isinstance(figure, list) else (figure, math.nan)
    return Summary(math.nan if mean is None else mean, sd, digits=digits)


def _own_rows(printed: Mapping[str, Any], task: str, results: Results, own: Table | None) -> list[Row]:
    name = ", ".join(filter(None, (results.run.recipe.name, task)))
    over = own.rows[0].over if own else "scans"
    return [
        Row(f"{name}, {results.grid_label(grid)}, {statistic}", cells, "", grid, over, REPRODUCED)
        for grid in GRIDS
        for statistic in dict.fromkeys(statistic for _, statistic, *_ in printed["rows"])
        if (cells := _own_cells(printed, task, results, grid, statistic) | _other_cells(printed, own, grid, statistic))
    ]


def _own_cells(
    printed: Mapping[str, Any], task: str, results: Results, grid: str, statistic: str
) -> dict[str, Summary]:
    """A statistic of this run's scores in the columns with a counterpart, if scores have that statistic."""
    cells: dict[str, Summary] = {}
    groups, *besides = printed["tasks"][task] if task else [[]]
    known = {scan.group for scan in results.scans}
    if statistic not in _STATISTICS or not known.issuperset(groups) or not set(besides) <= set(results.targets):
        return cells
    compared = [(heading, *scored) for heading, scored in printed["columns"].items() if scored]
    for heading, target, measure, *ends in compared:
        by_scan = defaultdict[tuple[int, str], list[float]](list)
        for of in (target, *besides) if target in results.targets else ():
            for scan in results.on(grid, of):
                if scan.group in (groups or (scan.group,)) and scan.scan.endswith(tuple(ends) or ""):
                    by_scan[scan.fold, scan.scan].append(scan.values[measure])
        if by_scan:
            values = [summarize(each).mean for each in by_scan.values()]
            cells[heading] = _STATISTICS[statistic](values, ALL_MEASURES[measure].digits)
    return cells


def _other_cells(printed: Mapping[str, Any], own: Table | None, grid: str, statistic: str) -> dict[str, Summary]:
    """A column of one of this run's tables, whose rows on a grid are named like the published columns, with a unit."""
    rows = {row.label.partition(" [")[0]: row for row in own.rows if row.grid == grid} if own else {}
    return {
        heading: rows[heading].cells[statistic]
        for heading in printed["columns"]
        if heading in rows and statistic in rows[heading].cells
    }


def _quantile(values: list[float], digits: int, share: float) -> Summary:
    defined = [value for value in values if not math.isnan(value)]
    found = float(np.quantile(defined, share)) if defined else math.nan
    return Summary(found, math.nan, len(defined), len(values), digits)


_SHARES = {"median": 0.5, "25 %": 0.25, "75 %": 0.75}
_STATISTICS: dict[str, Callable[[list[float], int], Summary]] = {
    "mean": summarize,
    **{name: partial(_quantile, share=share) for name, share in _SHARES.items()},
}
