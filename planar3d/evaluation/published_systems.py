"""The figures printed in the papers of the other systems, by the name of the recipe that reproduces them."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from planar3d.evaluation.scores import Summary

_TABLES = Path(__file__).with_suffix(".json")


class PublishedRow(NamedTuple):
    """A row of a published table: the method, the statistic over cases, and its figures by column."""

    name: str
    statistic: str
    cells: Mapping[str, Summary]


class Task(NamedTuple):
    """The part of a run's scores that a row is compared with."""

    name: str = ""  # appended to the counterpart's name
    groups: tuple[str, ...] = ()  # of the cases; all if empty
    besides: tuple[str, ...] = ()  # further targets, besides the column's


@dataclass(frozen=True)
class PublishedTable:
    """A table of a paper."""

    name: str  # of its files
    title: str  # above it
    source: str  # the paper and the number of the table
    data: str  # the cases of its figures
    # By heading, the target and measure of a run's scores for comparison, and the ending of scan names if only some
    # count; None if a run's scores have no counterpart.
    columns: Mapping[str, tuple[str, ...] | None]
    counterparts: Mapping[str, Task]  # the names of the rows reproduced by the recipe
    rows: tuple[PublishedRow, ...]  # in their order
    notes: tuple[str, ...]  # sentences below the table
    # The run's table, if not its scores, whose rows and columns are the columns and statistics of this one.
    beside: str = ""


def published_tables(recipe: str) -> list[PublishedTable]:
    """The tables of a recipe's paper, by its name: wacker2019-3d, also with -released, -demo, …."""
    tables = json.loads(_TABLES.read_text(encoding="utf-8"))
    return [
        _table(name, content, counterpart)
        for name, content in tables.items()
        for of, counterpart in content["recipes"].items()
        if f"{recipe}-".startswith(f"{of}-")
    ]


def _table(name: str, content: Mapping[str, Any], counterpart: str) -> PublishedTable:
    """A table from its entry in the file; `counterpart` is the name of its row that the recipe reproduces."""
    columns = {heading: tuple(scored) if scored else None for heading, scored in content["columns"].items()}
    rows = []
    for method, statistic, *figures in content["rows"]:
        printed = [_printed(figure, content["digits"]) for figure in figures]
        rows.append(PublishedRow(method, statistic, cells=dict(zip(columns, printed, strict=True))))
    counterparts = {}
    for task, (groups, *besides) in content.get("tasks", {}).items():
        counterparts[f"{counterpart}, {task}"] = Task(task, tuple(groups), tuple(besides))
    return PublishedTable(
        name=name,
        title=content["title"],
        source=content["source"],
        data=content["data"],
        columns=columns,
        counterparts=counterparts or {counterpart: Task()},
        rows=tuple(rows),
        notes=tuple(content.get("notes", ())),
        beside=content.get("beside", ""),
    )


def _printed(figure: Any, digits: int) -> Summary:
    """A figure; a pair includes its standard deviation, and None is undefined."""
    mean, sd = figure if isinstance(figure, list) else (figure, math.nan)
    return Summary(math.nan if mean is None else mean, sd, digits=digits)
