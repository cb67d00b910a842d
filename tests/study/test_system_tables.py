"""Published figures stand beside a run's own by the name of its recipe, marked as what they are."""

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest

from planar3d.evaluation.challenges import ALL_MEASURES
from planar3d.evaluation.scores import MEASURES, Summary
from planar3d.recipes import RECIPES
from planar3d.recipes.wacker2019 import WACKER2019_3D
from planar3d.study.results import Results, ScanScores
from planar3d.study.run_folder import Run
from planar3d.study.system_tables import published_tables, system_tables
from planar3d.study.table_format import OVER_SCANS, Row, Table

TABLES = {
    "wacker2019-2d": ["brats2018", "clinical2019"],
    "wacker2019-3d-demo": ["brats2018", "clinical2019"],
    "messaoudi2020-released": ["brats2020"],
    "messaoudi2023-ds": ["brats2022"],
    "messaoudi2023-dx": ["brats2022"],
    "messaoudi2023-omnia-camus": ["camus", "camus-ejection"],
    "messaoudi2023-omnia-chaos": ["chaos"],
    **{name: [] for name in ("paper", "modern", "wacker2019", "messaoudi2023-d", "mine")},
}


@pytest.mark.parametrize("recipe", TABLES)
def test_a_recipe_has_the_tables_of_its_paper(recipe):
    tables = published_tables(recipe)
    assert [table["name"] for table in tables] == TABLES[recipe]
    for table in tables:
        tasks = [f"{table['method']}, {task}" for task in table.get("tasks", ())] or [table["method"]]
        assert set(tasks) <= {method for method, *_ in table["rows"]}
        assert {measure for _, measure, *_ in filter(None, table["columns"].values())} <= ALL_MEASURES.keys()
        assert table["source"] and table["data"]


def test_every_system_has_published_figures_and_organs_are_not_judged_as_heads():
    for name, recipe in RECIPES.items():
        tables = published_tables(name)
        assert bool(tables) == name.startswith(("wacker", "messaoudi")), name
        scored = {target for table in tables for target, *_ in filter(None, table["columns"].values())}
        assert scored <= set(recipe.targets.names), name
        assert recipe.targets.in_head == ("omnia" not in name)


@pytest.mark.parametrize(
    ("recipe", "table", "row", "statistic", "column", "printed"),
    [
        ("wacker2019-3d", 0, "AlbuNet3D, pretrained", "mean", "TC", "0.8152"),
        ("wacker2019-2d", 1, "AlbuNet2D, pretrained", "mean", "mean TC", "0.7407"),
        ("messaoudi2020", 0, "Efficient embedding network, test set", "mean", "ET", "0.6959 ± 0.2610"),
        ("messaoudi2023-ds", 0, "DS-Net", "25 %", "TC", "0.8389"),
        ("messaoudi2023-dx", 0, "DX-Net", "mean", "ET", "0.8388"),
        ("messaoudi2023-omnia-camus", 0, "Omnia-Net", "mean", "ES LV epi HD [mm]", "5.900"),
        ("messaoudi2023-omnia-camus", 1, "expert O1 twice", "correlation", "EF", "0.896"),
        ("messaoudi2023-omnia-chaos", 0, "PKDIA, liver, CT", "mean", "RAVD [%]", "1.32 ± 1.30"),
        ("messaoudi2023-omnia-chaos", 0, "Omnia-Net, organs, MR", "mean", "RAVD points", "22.38 ± 19.49"),
        ("messaoudi2023-omnia-chaos", 0, "OvGUMEMoRIAL, liver, CT", "mean", "RAVD [%]", "–"),
    ],
)
def test_figures_are_those_of_the_papers(tmp_path, recipe, table, row, statistic, column, printed):
    rows = system_tables(_results(tmp_path, recipe, ()))[table].rows
    (found,) = (each for each in rows if each.label == f"{row}, {statistic}")
    assert str(found.cells[column]) == printed


def _results(tmp_path, recipe, targets, phantom=False):
    values = dict.fromkeys(MEASURES, math.nan)
    scans = [
        ScanScores(f"s{n}", "all", 1, grid, target, values | {"dice": 0.1 * n})
        for target in targets
        for grid in ("prepared", "native")
        for n in range(1, 6)
    ]
    data = {"folder": "/data/tumours", "layout": "BraTS", "phantom": phantom}
    return Results(Run(tmp_path, WACKER2019_3D.changed(name=recipe), {}, [], data), {}, scans)


def test_own_rows_have_the_statistics_that_the_paper_printed(tmp_path):
    (table,) = system_tables(_results(tmp_path, "messaoudi2023-ds", ("WT", "TC", "ET")))
    assert table.beside and all(row.kind in ("published", "this run") for row in table.rows)
    own = {row.label.rpartition(", ")[2]: row.cells["TC"] for row in table.rows if row.grid == "native"}
    scores = 0.1 * np.arange(1, 6)
    assert {name: cell.mean for name, cell in own.items()} == pytest.approx(
        {"mean": 0.3, "median": 0.3, "25 %": np.quantile(scores, 0.25), "75 %": np.quantile(scores, 0.75)}
    )
    kinds = [row.kind for row in table.rows]
    assert kinds == ["published"] * 4 + ["this run"] * 8 + ["published"] * 4  # behind DS-Net, before DX-Net


def test_what_the_run_is_of_is_said_and_nothing_is_made_up_where_it_scores_other_things(tmp_path):
    (table,) = system_tables(_results(tmp_path, "messaoudi2023-ds", ("WT",), phantom=True))
    assert "5 test scans of a phantom" in table.notes[1] and "The cases differ" in table.notes[1]
    assert all(row.cells.keys() == {"WT"} for row in table.rows if row.kind == "this run")
    segments, ejection = system_tables(_results(tmp_path, "messaoudi2023-omnia-camus", ("cavity", "myocardium")))
    for table in (segments, ejection):
        assert {row.kind for row in table.rows} == {"published"}
        assert "This run has none of the scores" in table.notes[-1] and OVER_SCANS not in table.notes
    assert system_tables(_results(tmp_path, "mine", ("WT",))) == []


def test_each_task_of_chaos_has_its_own_cases_and_organs(tmp_path):
    values = dict.fromkeys(ALL_MEASURES, math.nan)
    scores = {
        "liver": (90, 80),
        "right kidney": (math.nan, 40),
        "left kidney": (math.nan, 30),
        "spleen": (math.nan, 50),
    }
    scans = [
        ScanScores(f"{group}_1", group, 1, "native", organ, values | {"score": score})
        for organ, both in scores.items()
        for group, score in zip(("CT", "MR"), both, strict=True)
    ]
    empty = _results(tmp_path, "messaoudi2023-omnia-chaos", ())
    (table,) = system_tables(dataclasses.replace(empty, scans=scans))
    before = {row.label: above.label for above, row in pairwise(table.rows) if row.kind == "this run"}
    own = {row.label: row.cells["score"] for row in table.rows if row.kind == "this run"}
    tasks = ("liver, CT and MR", "liver, CT", "liver, MR", "organs, CT and MR", "organs, MR")
    assert list(before.values()) == [f"Omnia-Net, {task}, mean" for task in tasks]
    assert [label.split(", ", 1)[1].startswith(task) for label, task in zip(own, tasks, strict=True)] == 5 * [True]
    assert [(cell.mean, cell.count) for cell in own.values()] == [(85, 2), (90, 1), (80, 1), (70, 2), (50, 1)]
    (of_livers,) = system_tables(dataclasses.replace(empty, scans=[scan for scan in scans if scan.target == "liver"]))
    assert [row.cells["score"].mean for row in of_livers.rows if row.kind == "this run"] == [85, 90, 80]
    (of_ct,) = system_tables(dataclasses.replace(empty, scans=[scan for scan in scans if scan.group == "CT"]))
    assert [row.cells["score"].mean for row in of_ct.rows if row.kind == "this run"] == [90]


def test_correlations_of_volumes_stand_behind_those_of_the_network_that_is_reproduced(tmp_path):
    columns = ("correlation", "bias")
    rows = [
        Row(name, {"correlation": Summary(value), "bias": Summary(-1.0)}, grid="native")
        for name, value in (("EF [%]", 0.5), ("EDV [ml]", 0.6), ("ESV [ml]", 0.7))
    ]
    results = _results(tmp_path, "messaoudi2023-omnia-camus", ("endocardium",))
    _, table = system_tables(results, [Table("ejection", "Volumes", columns, rows)])
    before, own, *after = table.rows[[row.kind for row in table.rows].index("this run") - 1 :]
    assert before.label == "Omnia-Net, correlation" and not after
    assert {heading: cell.mean for heading, cell in own.cells.items()} == {"EF": 0.5, "EDV": 0.6, "ESV": 0.7}
