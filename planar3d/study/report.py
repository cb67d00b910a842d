"""The report of a run: tables 2 and 3, learning curves, box plots, and every test scan with its lesions outlined."""

import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from urllib.parse import quote

from planar3d.errors import RunError, ScanError
from planar3d.evaluation.charts import LESION_BOXES, box_plots, learning_curves
from planar3d.evaluation.figures import overlay
from planar3d.evaluation.published import ALL, TABLE_2
from planar3d.evaluation.scores import MEASURES
from planar3d.extras import check_study_extra
from planar3d.files import remove_temporaries
from planar3d.locks import locked
from planar3d.progress import Notify, tell
from planar3d.study.page import as_text, picture_url, write_page
from planar3d.study.results import GRIDS, Results, read_maps, read_results
from planar3d.study.run_folder import open_run
from planar3d.study.tables import all_tables, are_the_challenges, write_tables
from planar3d.wording import counted, score_text

Pictures = dict[str, str]  # data of figures embedded in the page, or links to their files, by caption
_EMBEDDED = 100  # pictures of test scans, each of up to half a megabyte; the page links to those of others


def write_report(run: str | Path, notify: Notify = tell) -> Results:
    """Write the report of a run folder, over all available folds, into its folder `report`; returns what it shows.

    Besides the page, which needs no other file and no network, it writes the tables as CSV and Markdown and the figures
    as PNG. It waits for another process that writes them.

    Raises:
        RunError: it is not a run folder, no fold is scored yet, or a file in it is damaged.
    """
    check_study_extra()
    opened = open_run(run)
    folder = opened.folder / "report"
    with locked(folder, "the report", wait=notify):
        remove_temporaries(folder / "figures")
        results = read_results(opened)
        tables = all_tables(results)
        write_tables(tables, folder)
        overlays, linked, skipped = _overlays(results)
        curves = Pictures()
        if histories := results.histories():
            chart = learning_curves(histories, folder / "figures" / "learning_curves.png")
            curves["Loss and Dice over the epochs, by fold."] = picture_url(chart.read_bytes())
        count = len({(scan.fold, scan.scan) for scan in results.scans})
        write_page(
            results.page,
            "report.html",
            [],
            title=f"planar3d report: recipe {results.run.recipe.name}, {counted(count, 'test scan')}",
            warnings=[*results.notes, *skipped],
            tables=[table for table in tables if table.beside],
            measures=[table for table in tables if not table.beside],
            boxes=_box_plots(results, folder / "figures"),
            curves=curves,
            overlays=overlays,
            linked=linked,
            scans=list(_scan_tables(results)),
            scan_header=["scan", "center", "fold", *(measure.heading for measure in results.measures.values())],
            conditions={
                "Data": as_text({**results.run.data, "scans": len(results.run.cases)}),
                "Recipe": as_text(results.run.recipe.leaves()),
                "Environment": as_text(results.environment),
            },
        )
    return results


def _box_plots(results: Results, folder: Path) -> Pictures:
    pictures = {}
    measures = LESION_BOXES if results.of_lesions else results.measure_set.main
    published = TABLE_2 if results.of_lesions and are_the_challenges(results) else None
    for grid in GRIDS:
        if not (scans := results.on(grid)):
            continue
        centers = sorted({scan.center for scan in scans})
        groups = {center: [s for s in scans if s.center == center] for center in centers}
        if len(centers) > 1:
            groups[ALL] = scans
        values = {name: {m: [s.values[m] for s in members] for m in measures} for name, members in groups.items()}
        path = box_plots(values, folder / f"boxes_{grid}.png", published, results.measures)
        caption = (
            f"Scores {_of(results)}by center, {results.grid_label(grid)}. A point is a scan; the line is the median, "
            "the box spans the quartiles, and whiskers end at the last scan within 1.5 box lengths."
        )
        pictures[caption] = picture_url(path.read_bytes())
    return pictures


def _of(results: Results) -> str:
    """The target of the shown scores, if there are several: the first, as in `Results.on`."""
    return f"of {results.targets[0]} " if len(results.targets) > 1 else ""


def _overlays(results: Results) -> tuple[Pictures, Pictures, list[str]]:
    """Draw every test scan on its native grid.

    Returns:
        The pictures to embed, and links to those beyond, by caption; and a sentence for each scan that cannot be drawn.
    """
    pictures, linked, skipped, targets = Pictures(), Pictures(), list[str](), results.run.recipe.targets
    dice = {(s.fold, s.scan): s.values["dice"] for s in results.on("native")}
    for number, fold in enumerate(results.run.folds, start=1):
        for name in fold.test:
            # A fold that has not come that far is named among the report's notes already.
            if not results.run.predicted(name, number).is_file():
                continue
            score = score_text(dice.get((number, name), math.nan), MEASURES["dice"].digits)
            title = f"{name}, fold {number}: Dice {_of(results)}{score} (native grid)"
            path = results.run.picture(name, number)
            try:
                scan, reference, prediction = read_maps(results.run, name, number)
                parts = [targets.masks(labels.voxels) for labels in (prediction, reference) if len(results.targets) > 1]
                overlay(scan, prediction, reference, path, title, *parts)
            except (RunError, ScanError) as error:
                skipped.append(f"{name} has no picture: {error}")
                continue
            if len(pictures) < _EMBEDDED:
                pictures[title] = picture_url(path.read_bytes())
            else:
                linked[title] = quote(f"figures/{path.name}", errors="surrogateescape")
    return pictures, linked, skipped


def _scan_tables(results: Results) -> Iterator[tuple[str, list[list[str]]]]:
    """A table of every test scan for each target and grid, with its caption."""
    for target, grid in product(results.targets, GRIDS):
        label, lines = results.grid_label(grid), []
        for scan in sorted(results.on(grid, target), key=lambda scan: (scan.center, scan.scan, scan.fold)):
            scores = [score_text(scan.values[name], measure.digits) for name, measure in results.measures.items()]
            lines.append([scan.scan, scan.center, str(scan.fold), *scores])
        if lines:
            yield f"{target}, {label}" if len(results.targets) > 1 else label, lines
