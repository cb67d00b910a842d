"""Tables 2 and 3 of the paper beside a run's figures, as CSV, Markdown and on the terminal."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from planar3d.evaluation import published
from planar3d.evaluation.challenges import ALL_MEASURES
from planar3d.evaluation.published import ALL, CENTERS
from planar3d.evaluation.scores import MEASURES, Summary, summarize
from planar3d.files import write_csv, write_text
from planar3d.study.ejection import ejection_table
from planar3d.study.results import GRIDS, Results, ScanScores
from planar3d.study.system_tables import system_tables
from planar3d.study.table_format import CSV_COLUMNS, MISSING, OVER_SCANS, Row, Table, heading

# Tables over several cases, by the set of measures.
_BESIDES: dict[str, Callable[[Results], Table]] = {"camus": ejection_table}

# Of table 2, what is side by side: the labels of the published row and of this run's, from a measure and a grid.
_SIDES = (
    ("", "{}, published", "{}, {}"),
    (", over folds", "{}, published", "{}, {}, over folds"),
    (", fold 1", "{}, fold 1, published", "{}, fold 1, {}"),
)
_TEXTS = ("", "kind")  # headers of columns without figures
_LEAST_NAME = 12  # characters of a row's name in a terminal


def table_2(results: Results) -> Table:
    """Build the paper's table 2, Dice and sensitivity by center, with the reproduced figures under the printed ones."""
    rows = []
    for measure, printed in published.TABLE_2.items():
        label = MEASURES[measure].label
        rows.append(Row(f"{label}, published", printed, measure))
        for grid in GRIDS:
            scans, name = results.on(grid), f"{label}, {results.grid_label(grid)}"
            rows.append(Row(name, _by_center(scans, measure), measure, grid, "scans"))
            rows.append(Row(f"{name}, over folds", {ALL: _over_folds(scans, measure)}, measure, grid, "folds"))
        rows.append(Row(f"{label}, fold 1, published", published.FOLD_1[measure], measure))
        first = [scan for scan in results.on("prepared") if scan.fold == 1]
        name = f"{label}, fold 1, {results.grid_label('prepared')}"
        rows.append(Row(name, _by_center(first, measure), measure, "prepared", "scans of fold 1"))
    notes = [
        *spread_notes(),
        f"Published: {published.CITATION}, table 2; fold 1: {published.RELEASE}. All other rows: this run.",
        "Fold 1, published, all scans: over all voxels of the three scans, as in the released code; for this run, the "
        "mean over scans.",
        *_left_out(results, published.TABLE_2),
        *_other_scans(results),
    ]
    return Table("table2", "Table 2: Dice and sensitivity by center", _columns(results), rows, notes, True)


def table_3(results: Results) -> Table:
    """Build the paper's table 3, unimodal methods and human experts, with the reproduced figures as further rows."""
    rows = [
        Row(system, {"dice": dice, "sensitivity": sensitivity}, kind=kind)
        for system, (kind, dice, sensitivity) in published.TABLE_3.items()
    ]
    ours = []
    for grid in GRIDS:
        for over, ending, spread in (("scans", "", _over_scans), ("folds", ", over folds", _over_folds)):
            cells = {measure: spread(results.on(grid), measure) for measure in ("dice", "sensitivity")}
            name = f"This run, {results.grid_label(grid)}{ending}"
            ours.append(Row(name, cells, grid=grid, over=over, kind=published.RAW))
    place = 1 + list(published.TABLE_3).index(published.REPRODUCED)
    others = [*_left_out(results, ("dice", "sensitivity")), *_other_scans(results, of_fold_1=False)]
    notes = [*spread_notes(), f"The other rows: {published.CITATION}, table 3.", *others]
    title = "Table 3: other unimodal methods and human experts"
    return Table("table3", title, ("dice", "sensitivity"), rows[:place] + ours + rows[place:], notes, True)


def targets_table(results: Results) -> Table:
    """Build a table of the main measures of every target, mean ± standard deviation over scans."""
    columns = results.measure_set.main
    rows = []
    for target in results.targets:
        for grid in GRIDS:
            cells = {measure: _over_scans(results.on(grid, target), measure) for measure in columns}
            rows.append(Row(f"{target}, {results.grid_label(grid)}", cells, grid=grid, over="scans"))
    return Table("targets", "Scores by target", columns, rows, [OVER_SCANS, results.measure_set.note])


def measures_table(results: Results, grid: str, target: str | None = None) -> Table:
    """Build a table of every measure of a target by center on one grid, mean ± standard deviation over scans."""
    scans = results.on(grid, target)
    columns = tuple(c for c in _columns(results) if c == ALL or any(s.center == c for s in scans))
    rows = [Row(m.heading, _by_center(scans, key), key, grid, "scans") for key, m in results.measures.items()]
    of_lesions = "Lesion-wise scores follow the definition of MSSEG 2016 (Commowick et al. 2018)."
    notes = [OVER_SCANS, results.measure_set.note, of_lesions]
    name, of = (f"measures_{target}_{grid}", f" of {target}") if target else (f"measures_{grid}", "")
    return Table(name, f"All measures{of}, {results.grid_label(grid)}", columns, rows, notes)


def all_tables(results: Results) -> list[Table]:
    """Build every table of a run: those with published figures, and all measures on each scored grid."""
    if not results.of_lesions:
        measured = [measures_table(results, grid, target) for target in results.targets for grid in GRIDS]
        besides = [_BESIDES[name](results) for name in _BESIDES.keys() & {results.run.recipe.targets.measures}]
        return [*system_tables(results, besides), targets_table(results), *besides, *measured]
    measured = [measures_table(results, grid) for grid in GRIDS if results.on(grid)]
    return [table_2(results), table_3(results), *measured]


def write_tables(tables: Iterable[Table], folder: str | Path) -> None:
    """Write each table as `<name>.csv` and `<name>.md` into a folder."""
    for table in tables:
        write_csv(Path(folder) / f"{table.name}.csv", CSV_COLUMNS, table.records())
        write_text(Path(folder) / f"{table.name}.md", table.to_markdown())


def print_tables(results: Results) -> None:
    """Print a run's tables with published figures on the terminal, and the scores of several targets."""
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console()
    tables = [table for table in all_tables(results) if table.beside or table.name == "targets"]
    for table in tables:
        header, *lines = side_by_side(table, results) if table.name == "table2" else [table.header, *table.lines]
        printed = RichTable(title=table.title)
        columns = list(zip(header, *lines, strict=True))
        widths = _least_widths(columns, broken=False)
        if sum(widths) + 3 * len(widths) >= console.width:
            widths = _least_widths(columns, broken=True)
            console.width = max(console.width, sum(widths) + 3 * len(widths) + 1)
        for (name, *_), width in zip(columns, widths, strict=True):
            printed.add_column(Text(name), min_width=width, width=None if name in _TEXTS else width, overflow="fold")
        for line in lines:
            printed.add_row(*map(Text, line))
        console.print(printed)
    for note in dict.fromkeys(note for table in tables for note in table.notes):
        console.print(Text(f"- {note}"))


def _least_widths(columns: Sequence[tuple[str, ...]], *, broken: bool) -> list[int]:
    """How narrow each column can be: names are broken for figures, and figures only at their spaces, if at all."""
    return [
        min(max(map(len, column)), _LEAST_NAME)
        if column[0] in _TEXTS
        else max(len(part) for cell in column for part in (cell.split() if broken else [cell]))
        for column in columns
    ]


def side_by_side(table: Table, results: Results) -> list[tuple[str, ...]]:
    """Transpose table 2 for the terminal: one line per center, with published and reproduced figures side by side.

    The first line is the header.
    """
    cells = {row.label: row.cells for row in table.rows}
    grids = [results.grid_label(grid) for grid in GRIDS]
    lines = [("", "published", *grids)]
    for measure in published.TABLE_2:
        label = MEASURES[measure].label
        for what, theirs, own in _SIDES:
            printed = cells[theirs.format(label)]
            ours = [cells.get(own.format(label, grid), {}) for grid in grids]
            for column in (ALL,) if what == ", over folds" else table.columns:
                line = [str(row.get(column, MISSING)) for row in (printed, *ours)]
                if any(cell != str(MISSING) for cell in line):
                    lines.append((f"{label}, {heading(column)}{what}", *line))
    return lines


def spread_notes() -> list[str]:
    """Explain the two standard deviations, and which one the paper's ± is comparable with."""
    over_scans, over_folds = published.implied_spreads("dice")
    whole = published.TABLE_2["dice"][ALL]
    return [
        f"{OVER_SCANS[:-1]}; in the rows “over folds”, over the means of the folds.",
        f"The paper’s {whole} for all scans cannot be over scans: the ± of its centers imply about {over_scans:.2f} "
        f"over scans and about {over_folds:.2f} over the means of the folds. Compare ±{whole.sd:.3f} with the rows "
        "“over folds”.",
    ]


def _columns(results: Results) -> tuple[str, ...]:
    centers = {scan.center for scan in results.scans}
    # A single group of other data is the same as all; its own column would repeat it.
    others = sorted(centers.difference(CENTERS)) if len(centers) > 1 else []
    return (*CENTERS, *others, ALL)


def _left_out(results: Results, measures: Iterable[str]) -> list[str]:
    """Name the scans with undefined scores; a mean over folds does not show that its folds exclude them."""
    scans = {m: sorted({scan.scan for scan in results.scans if math.isnan(scan.values[m])}) for m in measures}
    return [
        f"{MEASURES[measure].label} is undefined (0/0) and excluded from every mean for {', '.join(names)}."
        for measure, names in scans.items()
        if names
    ]


def _other_scans(results: Results, of_fold_1: bool = True) -> list[str]:
    """Warn if the published figures, or those of fold 1 where they are shown, are for other scans than this run's."""
    if not are_the_challenges(results):
        return [
            "The published figures are for the challenge’s scans, but this run used others: they cannot be compared."
        ]
    tested = results.run.folds[0].test
    has_fold_1 = of_fold_1 and any(scan.fold == 1 for scan in results.scans)
    if not has_fold_1 or sorted(tested) == [*published.FOLD_1_SCANS]:
        return []
    return [
        f"Fold 1, published, tested {', '.join(published.FOLD_1_SCANS)}, but fold 1 of this run {', '.join(tested)}: "
        "compare the two only if these are the same scans under other names."
    ]


def are_the_challenges(results: Results) -> bool:
    """Whether all scans are of the challenge's centers, so that published figures can stand beside a run's."""
    return not results.is_phantom and all(scan.center in CENTERS for scan in results.scans)


def _by_center(scans: Sequence[ScanScores], measure: str) -> dict[str, Summary]:
    centers = {scan.center for scan in scans}
    cells = {center: _over_scans([scan for scan in scans if scan.center == center], measure) for center in centers}
    return cells | {ALL: _over_scans(scans, measure)}


def _over_scans(scans: Sequence[ScanScores], measure: str) -> Summary:
    return summarize((scan.values[measure] for scan in scans), ALL_MEASURES[measure].digits)


def _over_folds(scans: Sequence[ScanScores], measure: str) -> Summary:
    folds = sorted({scan.fold for scan in scans})
    means = [_over_scans([s for s in scans if s.fold == number], measure).mean for number in folds]
    return summarize(means, ALL_MEASURES[measure].digits)
