"""Runs on phantoms of CHAOS and CAMUS are trained, predicted and scored by the measures of their challenge."""

import csv

import nibabel as nib
import pytest
from challenge_road import recipe_of, with_tiny

from planar3d.files import write_csv
from planar3d.scans.folds import Fold
from planar3d.scans.layouts import find_cases
from planar3d.scans.phantom import write_phantom
from planar3d.scans.volume import read_labels, read_scan
from planar3d.study.cohort import segment_all
from planar3d.study.cohort_scores import score_masks
from planar3d.study.cross_validation import run_folds
from planar3d.study.ejection import ejection_table
from planar3d.study.report import write_report
from planar3d.study.reproduce import folds_for
from planar3d.study.results import read_results
from planar3d.study.run_folder import start_run
from planar3d.study.segmented import Request
from planar3d.study.tables import all_tables

ORGANS = ("liver=63", "right-kidney=126", "left-kidney=189", "spleen=252")


def _rows(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_chaos_is_scored_organ_by_organ_with_points(tmp_path, monkeypatch, one_box):
    pytest.importorskip("pydicom")
    image = pytest.importorskip("PIL.Image")
    write_phantom(tmp_path, scans_per_center=2, reduction=10, layout="chaos")
    for path in (tmp_path / "Train_Sets/CT/011/Ground").iterdir():
        image.new("L", image.open(path).size).save(path)
    tested = "MR_082_T2SPIR"
    fold = Fold(("MR_071_T2SPIR",), ("MR_081_T2SPIR",), (tested, "CT_011"))
    recipe, log = with_tiny(monkeypatch, recipe_of(("image",), ORGANS, measures="chaos")), []
    out, tables = _scored(tmp_path / "run", find_cases(tmp_path / "Train_Sets"), recipe, fold, log.append)
    rows = _rows(out / "fold-1/scores.csv")
    assert [row["target"] for row in rows] == 4 * ["liver", "right-kidney", "left-kidney", "spleen"]
    points = ("dice_points", "ravd_points", "assd_points", "mssd_points")
    for row in rows[:8]:
        assert float(row["score"]) == pytest.approx(sum(float(row[name]) for name in points) / 4)
    # References of CT scans have no organ but the liver, and this one not even that.
    logged = [line.split("  ")[:2] for line in log if "  Dice " in line]
    assert logged == [*([tested, row["target"]] for row in rows[:4]), ["CT_011", "liver"]]
    assert "sensitivity –  " in next(line for line in log if "CT_011  liver" in line)
    assert not any("nan" in line for line in log)
    table = tables["targets"].to_markdown()
    assert "| Score [of 100] | Dice | Relative absolute volume difference [%] |" in table
    assert "An organ in only one of" in table
    mask = nib.load(out / f"fold-1/predictions/{tested}_mask.nii.gz")
    assert mask.shape == (32, 32, 11)
    # A series is a folder of DICOM files, its masks are PNG: pictured all the same.
    page = write_report(out).page.read_text(encoding="utf-8")
    assert page.count(f"<figcaption>{tested}, fold 1") == 1 and "pictured:" not in page


def test_camus_is_scored_by_contours_and_ejection_fractions(tmp_path, monkeypatch):
    pytest.importorskip("SimpleITK")
    write_phantom(tmp_path / "data", scans_per_center=1, reduction=16, layout="camus")
    regions = ("endocardium=1", "epicardium=1+2", "atrium=3")
    classes = ("cavity=1", "myocardium=2", "atrium=3")
    recipe = recipe_of(("image",), classes, shape=(1, 16, 16), regions=regions, measures="camus")
    recipe = with_tiny(monkeypatch, recipe.changed(name="messaoudi2023-omnia-camus"))
    dataset = find_cases(tmp_path / "data")
    out, tables = _scored(tmp_path / "run", dataset, recipe, folds_for(dataset, None)[0])
    rows = _rows(out / "fold-1/scores.csv")
    assert len(rows) == 4 * 3 * 2 and {row["scan"] for row in rows} == {
        f"patient0801_{view}_{instant}" for view in ("2CH", "4CH") for instant in ("ED", "ES")
    }
    assert all({"mad_mm", "hd_mm"} <= row.keys() for row in rows)
    # Masks that predict writes, of a single slice each, have the same scores.
    masks = tmp_path / "masks"
    scans = [case.images["image"] for case in dataset.cases if case.patient == "patient0801"]
    segment_all(
        scans, out / "fold-1/best.weights.h5", masks, request=Request(engine="keras", precision="float32"), notify=str
    )
    alone = {(row["scan"], row["target"]): row["hd_mm"] for row in score_masks(masks, tmp_path / "data", str)}
    in_run = {(r["scan"], r["target"]): float(r["hd_mm"]) for r in rows if r["grid"] == "native"}
    assert alone == pytest.approx(in_run, rel=1e-5, nan_ok=True)
    # Beside the published figures: of end diastole alone, the mean of both views.
    own = [float(r["dice"]) for r in rows if "_ED" in r["scan"] and r["target"] + r["grid"] == "epicardiumnative"]
    (cell,) = (
        row.cells["ED LV epi Dice"]
        for row in tables["published_camus"].rows
        if (row.kind, row.grid) == ("this run", "native")
    )
    assert cell.mean == pytest.approx(sum(own) / 2) and cell.count == 2
    assert tables["ejection"].notes[0].startswith("Over 1 patient with both views")
    # Where the label maps are the reference itself, so are the volumes; a table without digests allows others.
    write_csv(out / "fold-1/scores.csv", list(rows[0]), [row | {"mask_sha256": ""} for row in rows])
    for case in dataset.cases[8:]:
        image = nib.load(out / f"fold-1/predictions/{case.id}_mask.nii.gz")
        scan = nib.Nifti1Image(_reference(case), image.affine, image.header)
        nib.save(scan, out / f"fold-1/predictions/{case.id}_mask.nii.gz")
    ef, *_ = ejection_table(read_results(out)).rows
    assert (ef.cells["bias"].count, ef.over) == (1, "patients")
    assert ef.cells["bias"].mean == 0 and ef.cells["mean absolute difference"].mean == 0
    # A heart without a cavity in the prediction is not counted.
    empty = out / f"fold-1/predictions/{dataset.cases[8].id}_mask.nii.gz"
    image = nib.load(empty)
    nib.save(nib.Nifti1Image(0 * _reference(dataset.cases[8]), image.affine, image.header), empty)
    assert str(ejection_table(read_results(out)).rows[0].cells["bias"]) == "– (0 of 1)"
    # Beside the paper's correlations stands the run's, which one patient leaves undefined.
    assert {row.kind for row in tables["published_camus-ejection"].rows} == {"published", "this run"}


def _scored(out, dataset, recipe, fold, notify=print):
    """A run of one fold, and its tables by name."""
    run_folds(start_run(out, dataset, recipe, [fold]), [1], notify)
    return out, {table.name: table for table in all_tables(read_results(out))}


def _reference(case):
    return read_labels(case.labels, read_scan(case.images["image"], flat=True)).voxels
