import json
import math
import shutil

import h5py
import numpy as np
import pytest

from planar3d.errors import RecipeError, RunError
from planar3d.evaluation.scores import MEASURES
from planar3d.files import write_json
from planar3d.recipes.wacker2019 import WACKER2019_3D
from planar3d.study.results import read_results
from planar3d.study.run_folder import open_run
from planar3d.transfer.metadata import CARD, RECIPE, write_metadata


def test_every_test_scan_is_read_on_both_grids_with_its_center_as_written(make_run):
    run = make_run()
    shutil.copytree(run / "fold-1", run / "fold-1 (copy)")  # which is no fold
    results = read_results(run)
    assert len(results.on("prepared")) == len(results.on("native")) == 9
    assert {scan.center for scan in results.scans} == {"01", "07", "08"}
    assert all(set(scan.values) == set(MEASURES) for scan in results.scans)
    assert results.notes == []


def test_a_group_may_have_any_name(make_run):
    names = ("NA", "3.0", "Center_07")
    assert {scan.group for scan in read_results(make_run(groups=names)).scans} == set(names)


def test_undefined_scores_may_be_empty_or_nan(make_run):
    run = make_run()
    path = run / "fold-1" / "scores.csv"
    lines = path.read_text().splitlines()
    cells = lines[1].split(",")
    cells[4], cells[5] = "", "nan"
    path.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]))
    first = read_results(run).scans[0]
    assert math.isnan(first.values["dice"]) and math.isnan(first.values["sensitivity"])


def test_missing_folds_are_named(make_run):
    run = make_run()
    shutil.rmtree(run / "fold-1")
    (run / "fold-3" / "scores.csv").unlink()
    (note,) = read_results(run).notes
    assert "Missing: fold 1, fold 3 of 3" in note


def test_a_fold_that_cannot_be_opened_does_not_count_as_missing(make_run, close_folder):
    run = make_run()
    close_folder(run / "fold-2")
    with pytest.raises(PermissionError, match="fold-2"):
        read_results(run)


def test_a_test_scan_without_scores_is_named(make_run):
    run = make_run()
    path = run / "fold-2" / "scores.csv"
    for start, named in (
        ("scan11,07,2,native", "scan11 (lesion, native grid)"),
        ("scan11", "scan11 (lesion, prepared grid), scan11 (lesion, native grid)"),
    ):
        path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith(start)))
        note = f"Fold 2 lacks the scores of {named}. Run the cross-validation again to score it."
        assert read_results(run).notes == [note]


def test_a_target_without_scores_is_named_and_an_unknown_one_refused(make_run):
    run = make_run()
    write_json(run / "recipe.json", WACKER2019_3D.to_json())
    for path in run.glob("fold-*/scores.csv"):
        header, *lines = path.read_text().splitlines()
        rows = [f"{line},{target}" for target in ("WT", "TC", "ET") for line in lines]
        path.write_text("\n".join([f"{header},target", *rows]))
    assert read_results(run).notes == []
    path, whole = run / "fold-3/scores.csv", (run / "fold-3/scores.csv").read_text()
    path.write_text(whole.rpartition("\n")[0])
    (note,) = read_results(run).notes
    assert note.startswith("Fold 3 lacks the scores of scan22 (ET, native grid). Run the")
    for edited, says in (
        (whole.replace(",ET", ",EP"), r"line 14: the target 'EP' is not one of this run's: WT, TC, ET"),
        (whole.replace(",ET", ","), r"line 14: the target 'lesion' is not one of this run's"),
        (whole.replace(",native", ",original"), r"line 3: the grid 'original' is not one of this run's"),
    ):
        path.write_text(edited)
        with pytest.raises(RunError, match=says):
            read_results(run)


def test_scores_that_a_spreadsheet_changed_are_refused(make_run):
    run = make_run()
    path = run / "fold-2" / "scores.csv"
    written = path.read_text()
    path.write_text(written, encoding="utf-8-sig")
    assert len(read_results(run).scans) == 18
    path.write_text(written.replace(",01,", ",1,"))
    with pytest.raises(RunError, match=r"scores\.csv, line 2: scan\d\d is in group '1', but in '01' in folds"):
        read_results(run)
    path.write_text(written + written.splitlines()[2])
    with pytest.raises(RunError, match="it has the scores of scan01 on the native grid more than once"):
        read_results(run)


@pytest.mark.parametrize(("size", "words"), [(64, "phantom at reduced size; "), (256, "phantom; ")])
def test_a_run_of_the_phantom_says_so(make_run, size, words):
    (note,) = read_results(make_run(phantom=True, size=size)).notes
    assert words in note and "nothing about patients" in note


def test_a_run_whose_folds_share_a_patient_says_so(make_run):
    run = make_run()
    content = json.loads((run / "folds.json").read_text())
    for scan in ("scan00", "scan01"):  # which folds 1 and 2 test
        row = open_run(run).cases[scan].to_json()
        content["scans"][scan] = row | {"patient": "x"}
    (run / "folds.json").write_text(json.dumps(content))
    first, second = read_results(run).notes
    assert first.startswith("Fold 1 tests scan00, but trains or validates")
    assert second.startswith("Fold 2 tests scan01, but trains or validates")


def test_histories_are_read_by_fold_and_what_is_unreadable_is_nan(make_run):
    run = make_run()
    (run / "fold-2" / "history.csv").write_text("epoch,loss\n1,0.5\n2,oops\n3\n")
    (run / "fold-3" / "history.csv").write_text("epoch,loss\n")  # of no epoch yet
    histories = read_results(run).histories()
    assert list(histories) == [1, 2, 3] and histories[3] == {}
    assert len(histories[1]["val_dice"]) == 5
    np.testing.assert_array_equal(histories[2]["loss"], [0.5, math.nan, math.nan])


def test_a_folder_without_scores_is_refused(make_run):
    run = make_run()
    for number in (1, 2, 3):
        shutil.rmtree(run / f"fold-{number}")
    with pytest.raises(RunError, match="no scores yet"):
        read_results(run)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "report.html").touch()
    for path, why in (
        (tmp_path, r"has no recipe\.json"),
        (tmp_path / "report.html", "is a file"),
        ("a", "does not exist"),
    ):
        with pytest.raises(RunError, match=f"{path} is not a run folder: it {why}"):
            read_results(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("scan,group\na,01\n", "line 2: it lacks fold, grid, dice"),
        (
            ",".join(["scan,group,fold,grid", *MEASURES]) + "\na,01,one,native" + ",1" * len(MEASURES),
            "line 2: .*'one'",
        ),
        ("\xff\xfe", "not a table in UTF-8"),
    ],
)
def test_a_damaged_table_is_named_with_its_line(make_run, text, sentence):
    run = make_run()
    (run / "fold-2" / "scores.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=rf"fold-2.scores\.csv.*{sentence}"):
        read_results(run)


def test_a_recipe_that_is_none_is_refused(make_run):
    run = make_run()
    (run / "recipe.json").write_text("[1]")
    with pytest.raises(RecipeError, match=r"recipe\.json is not a recipe"):
        read_results(run)


@pytest.mark.parametrize(
    ("file", "content"), [("environment.json", "3"), ("folds.json", '{"data": [], "scans": {}, "folds": []}')]
)
def test_a_file_of_another_form_is_named(make_run, file, content):
    run = make_run()
    (run / file).write_text(content)
    with pytest.raises(RunError, match=f"{file} is not in the form that planar3d writes"):
        read_results(run)


def test_a_fold_that_was_copied_from_another_run_is_not_reported(make_run):
    run = make_run()
    weights = run / "fold-2/best.weights.h5"
    recipe = open_run(run).recipe
    h5py.File(weights, "w").close()
    write_metadata(weights, {RECIPE: recipe.to_json()})
    read_results(run)
    write_metadata(weights, {RECIPE: recipe.changed(epochs=7).to_json()})
    with pytest.raises(RunError, match=r"a recipe that differs from recipe\.json in training\. Move .*fold-2 back"):
        read_results(run)
    trained = [fold.trained(recipe.training.samples.holds_out) for fold in open_run(run).folds]
    for data in trained[:2]:
        write_metadata(weights, {RECIPE: recipe.to_json(), CARD: {"data": data}})
        if data == trained[0]:
            with pytest.raises(RunError, match=r"was trained on .*, but fold 2 of this run on"):
                read_results(run)
    read_results(run)
    weights.unlink()
    scores = (run / "fold-1/scores.csv").read_text()
    for table in (scores, scores.replace(",1,", ",2,")):
        (run / "fold-2/scores.csv").write_text(table)
        with pytest.raises(RunError, match="scores of scan00, scan10, scan20, which fold 2 of this run does not test"):
            read_results(run)
    (run / "fold-2").rename(run / "fold-4")
    with pytest.raises(RunError, match="which fold 4 of this run does not test"):
        read_results(run)


def test_a_fold_that_was_trained_otherwise_is_named(make_run):
    run = make_run()
    started = {"planar3d": "0.1.0", "keras": "3.15.0", "backend": "tensorflow", "precision": "bf16"}
    (run / "environment.json").write_text(json.dumps(started))
    for number, versions in ((1, started), (2, started | {"keras": "3.15.1", "torch": "2.9"})):
        weights = run / f"fold-{number}/best.weights.h5"
        h5py.File(weights, "w").close()
        write_metadata(
            weights, {CARD: {"versions": versions, "training": {"precision": "float32"} if number == 2 else ""}}
        )
    said = "keras 3.15.1 instead of 3.15.0; precision float32 instead of bf16"
    assert read_results(run).notes == [f"Fold 2 was not trained as environment.json says: {said}."]
