import shutil
import statistics

import pytest

from planar3d.evaluation.published import ALL, CENTERS, FOLD_1_SCANS
from planar3d.evaluation.scores import MEASURES
from planar3d.files import read_rows, write_csv
from planar3d.study.results import GRIDS, read_results
from planar3d.study.tables import (
    all_tables,
    measures_table,
    print_tables,
    side_by_side,
    table_2,
    table_3,
    write_tables,
)


def row(table, label):
    (found,) = (row for row in table.rows if row.label == label)
    return found.cells


def test_means_and_deviations_over_scans_and_over_folds(make_run):
    results = read_results(make_run())
    table = table_2(results)
    dice = {(s.fold, s.center): s.values["dice"] for s in results.on("prepared")}
    over_scans, over_folds = row(table, "Dice, 256³ grid"), row(table, "Dice, 256³ grid, over folds")
    for center in CENTERS:
        values = [value for (_, place), value in dice.items() if place == center]
        assert over_scans[center].mean == pytest.approx(statistics.mean(values))
        assert over_scans[center].sd == pytest.approx(statistics.stdev(values))
    assert over_scans[ALL].sd == pytest.approx(statistics.stdev(dice.values()))
    means = [statistics.mean(dice[number, center] for center in CENTERS) for number in (1, 2, 3)]
    assert over_folds[ALL].mean == pytest.approx(statistics.mean(means))
    assert over_folds[ALL].sd == pytest.approx(statistics.stdev(means))


def test_the_published_figures_stand_in_the_same_columns(make_run):
    lines = {line[0]: line[1:] for line in table_2(read_results(make_run())).lines}
    assert lines["Dice, published"] == ("0.69 ± 0.11", "0.50 ± 0.11", "0.64 ± 0.09", "0.611 ± 0.052")
    assert lines["Sensitivity, fold 1, published"] == ("0.4655", "0.6048", "0.8287", "0.6242")


def test_fold_1_alone_is_one_scan_a_center(make_run):
    run = make_run()
    cells = row(table_2(read_results(run)), "Dice, fold 1, 256³ grid")
    assert [cells[center].count for center in CENTERS] == [1, 1, 1]
    shutil.rmtree(run / "fold-1")
    assert table_2(read_results(run)).lines[6][1:] == ("–", "–", "–", "–")


def test_fold_1_of_other_scans_than_the_published_one_is_named(make_run, capsys):
    run = make_run()
    print_tables(read_results(run))
    said = "Fold 1, published, tested 01042GULE, 07043SEME, 08037ROGU, but fold 1 of this run scan00, scan10, scan20:"
    assert said in " ".join(capsys.readouterr().out.split())
    assert any(said in note for note in table_2(read_results(run)).notes)
    assert not any(said in note for note in table_3(read_results(run)).notes)
    names = dict(zip(("scan00", "scan10", "scan20"), FOLD_1_SCANS, strict=True))
    for file in (run / "folds.json", run / "fold-1/scores.csv"):
        text = file.read_text()
        for name, real in names.items():
            text = text.replace(name, real)
        file.write_text(text)
    assert not any("but" in note for note in table_2(read_results(run)).notes)


@pytest.mark.parametrize("groups", [("01", "07", "Lyon"), ("all",)])
def test_scans_of_other_groups_are_not_compared_with_the_published_ones(make_run, groups, capsys):
    print_tables(read_results(make_run(groups=groups)))
    assert "they cannot be compared" in " ".join(capsys.readouterr().out.split())


def test_other_groups_have_columns_of_their_own(make_run):
    table = table_2(read_results(make_run(groups=("Lyon", "Rennes"))))
    assert table.columns == (*CENTERS, "Lyon", "Rennes", ALL)
    assert table.lines[0][4:6] == ("–", "–")
    assert table.lines[1][1:4] == ("–", "–", "–") and "–" not in table.lines[1][4:]
    assert any("cannot be compared" in note for note in table.notes)


def test_a_single_other_group_needs_no_column(make_run):
    assert table_2(read_results(make_run(groups=("all",)))).columns == (*CENTERS, ALL)


def test_centers_of_the_portal_are_the_challenges(make_run):
    table = table_2(read_results(make_run(groups=("Center_01", "Center_07", "Center_08"))))
    assert table.columns == (*CENTERS, ALL)
    assert not any("cannot be compared" in note for note in table.notes)


def test_the_phantom_is_not_compared_with_patients(make_run):
    results = read_results(make_run(phantom=True, size=64))
    assert any("cannot be compared" in note for table in (table_2(results), table_3(results)) for note in table.notes)


def test_table_3_puts_this_run_below_the_paper(make_run):
    table = table_3(read_results(make_run()))
    labels = [row.label for row in table.rows]
    assert labels[1] == "Kolarik et al. 2020"
    assert labels[2:6] == [
        f"This run, {grid}{over}" for grid in ("256³ grid", "native grid") for over in ("", ", over folds")
    ]
    assert len(labels) == 10


def test_all_measures_are_summarized_on_both_grids(make_run):
    results = read_results(make_run())
    for grid in GRIDS:
        table = measures_table(results, grid)
        assert [line.measure for line in table.rows] == list(MEASURES)
        assert all(line.cells[ALL].total == 9 for line in table.rows)
    volumes = [row(measures_table(results, grid), "Reference volume [ml]")[ALL].mean for grid in GRIDS]
    assert volumes[1] == pytest.approx(2 * volumes[0])


def test_csv_holds_every_cell_at_full_precision(make_run, tmp_path):
    for table in all_tables(read_results(make_run())):
        write_tables([table], tmp_path)
        rows = read_rows(tmp_path / f"{table.name}.csv")
        cells = {(r["row"], r["column"]): float(r["mean"]) for r in rows}
        assert cells == {(r.label, column): r.cells[column].mean for r in table.rows for column in r.cells}


def test_markdown_has_as_many_cells_in_every_line(make_run):
    for table in all_tables(read_results(make_run(groups=("a|b", "c")))):
        lines = [line for line in table.to_markdown().splitlines() if line.startswith("|")]
        cells = {line.replace("\\|", "").count("|") for line in lines}
        assert len(cells) == 1 and len(lines) == len(table.rows) + 2


def test_on_the_terminal_published_and_reproduced_stand_side_by_side(make_run):
    results = read_results(make_run())
    header, *lines = side_by_side(table_2(results), results)
    assert header == ("", "published", "256³ grid", "native grid")
    by_label = {line[0]: line[1:] for line in lines}
    ours = row(table_2(results), "Dice, 256³ grid")
    assert by_label["Dice, center 01"][:2] == ("0.69 ± 0.11", str(ours["01"]))
    over_folds = row(table_2(results), "Dice, native grid, over folds")[ALL]
    assert by_label["Dice, all scans, over folds"][::2] == ("0.611 ± 0.052", str(over_folds))
    assert "Dice, center 01, over folds" not in by_label  # a fold has one scan of each
    assert by_label["Sensitivity, center 08, fold 1"][0] == "0.8287"


@pytest.mark.parametrize("columns", ["30", "60"])
def test_a_narrow_terminal_loses_no_figure(make_run, monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", columns)
    results = read_results(make_run())
    print_tables(results)
    printed = capsys.readouterr().out
    header, *lines = table_3(results).header, *table_3(results).lines
    assert "…" not in printed
    for part in {part for line in (header, *lines) for cell in line[2:] for part in cell.split()}:
        assert f" {part} " in printed, part


def test_the_terminal_shows_both_tables_without_breaking_figures(make_run, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "90")
    print_tables(read_results(make_run(groups=("[red]", "07"))))
    printed = capsys.readouterr().out
    assert "Table 2" in printed and "Table 3" in printed
    assert "0.611 ± 0.052" in printed and "[red]" in printed


def _rewrite(run, **changes):
    """Change columns of every score of fold 1."""
    path = run / "fold-1/scores.csv"
    rows = read_rows(path)
    write_csv(path, list(rows[0]), [row | changes for row in rows])


def test_a_scan_without_a_score_is_counted_named_and_kept_in_the_csv(make_run, tmp_path, capsys):
    run = make_run()
    _rewrite(run, sensitivity="nan", assd_mm="")
    results = read_results(run)
    label = "Average symmetric surface distance [mm]"
    assert row(measures_table(results, "native"), label)[ALL].count == 6
    assert row(measures_table(results, "native"), label)["01"].total == 3
    for table in (table_2(results), table_3(results)):
        assert "Sensitivity is undefined (0/0) and excluded from every mean for scan00, scan10, scan20." in table.notes
        assert not any("Dice is undefined" in note for note in table.notes)
    print_tables(results)
    assert "Sensitivity is undefined (0/0)" in capsys.readouterr().out
    write_tables([table_2(results)], tmp_path)
    folds_1 = [
        r
        for r in read_rows(tmp_path / "table2.csv")
        if r["row"] == "Sensitivity, fold 1, 256³ grid" and r["column"] == ALL
    ]
    assert [(r["mean"], r["values"], r["of"]) for r in folds_1] == [("", "0", "3")]
