"""`planar3d evaluate` scores a folder of masks against the label maps of their data set, scan by scan."""

import csv
import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from msseg import IDS, RECIPE, write_model, write_msseg
from typer.testing import CliRunner

from planar3d.cli import app
from planar3d.errors import DatasetError, RunError, ScanError
from planar3d.evaluation.scores import score_scan
from planar3d.files import read_json, write_json
from planar3d.networks.weights_file import Model
from planar3d.scans.folds import Fold
from planar3d.scans.layouts import find_cases
from planar3d.scans.targets import Classes
from planar3d.scans.volume import Scan, read_mask
from planar3d.study.cohort import segment_all
from planar3d.study.cohort_scores import mean_scores, score_masks
from planar3d.study.run_folder import start_run
from planar3d.study.segmented import Request


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_msseg(tmp_path_factory.mktemp("msseg"))


@pytest.fixture(scope="module")
def masks(data, tmp_path_factory):
    """A folder with the masks of two scans of the data set."""
    out = tmp_path_factory.mktemp("masks")
    scans = sorted(data.rglob("3DFLAIR.nii.gz"))[:2]
    segment_all(scans, write_model(tmp_path_factory.mktemp("model")), out, request=Request(engine="keras"), notify=str)
    return out


def evaluate(*words):
    done = CliRunner().invoke(app, ["evaluate", *map(str, words)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_every_mask_has_the_scores_that_it_has_alone(data, masks, tmp_path):
    (tmp_path / ".writing-killed00-scores.csv").touch()  # by a process that was killed
    rows = json.loads(evaluate(masks, data, "--json", "--out", tmp_path / "scores.csv").stdout)
    assert not list(tmp_path.glob(".*"))
    assert [(row["scan"], row["group"], row["target"]) for row in rows] == [
        ("01A_3DFLAIR", "01", "lesion"),
        ("01B_3DFLAIR", "01", "lesion"),
    ]
    for row, name in zip(rows, IDS, strict=False):
        expert = read_mask(data / "TrainingDataset_MSSEG" / name / "Consensus.nii.gz")
        mask = read_mask(masks / f"{name}_3DFLAIR_mask.nii.gz", expert)
        alone = score_scan(expert.voxels, mask.voxels, expert.affine)
        assert {key: float("nan") if row[key] is None else row[key] for key in alone} == pytest.approx(
            alone, rel=1e-5, nan_ok=True
        )
    with (tmp_path / "scores.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [float(row["reference_ml"]) for row in written] == [row["reference_ml"] for row in rows]


def test_test_cases_of_nnunet_are_scored_if_they_have_label_maps(data, masks, tmp_path):
    about = {"channel_names": {"0": "FLAIR"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    for name, part in (("01A", "Tr"), ("01B", "Ts")):
        for folder, file, ending in (("images", "3DFLAIR", "_0000"), ("labels", "Consensus", "")):
            (tmp_path / f"{folder}{part}").mkdir()
            scan = data / f"TrainingDataset_MSSEG/{name}/{file}.nii.gz"
            shutil.copy(scan, tmp_path / f"{folder}{part}/{name}_3DFLAIR{ending}.nii.gz")
    assert [case.id for case in find_cases(tmp_path).cases] == ["01A_3DFLAIR"]
    assert score_masks(masks, tmp_path, str) == [{**row, "group": "all"} for row in score_masks(masks, data, str)]
    shutil.rmtree(tmp_path / "labelsTs")
    assert [row["scan"] for row in score_masks(masks, tmp_path, str)] == ["01A_3DFLAIR"]


def test_a_case_has_one_mask_that_of_its_own_image(data, masks, tmp_path):
    """Another data set can have a scan of the same name."""
    about = {"channel_names": {"0": "FLAIR"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    for folder, file, ending in (("imagesTr", "3DFLAIR", "_0000"), ("labelsTr", "Consensus", "")):
        (tmp_path / folder).mkdir()
        shutil.copy(
            data / f"TrainingDataset_MSSEG/01A/{file}.nii.gz", tmp_path / folder / f"01A_3DFLAIR{ending}.nii.gz"
        )
    for name in ("other", "own"):
        shutil.copytree(masks, tmp_path / "masks" / name)
        record = read_json(file := tmp_path / f"masks/{name}/01A_3DFLAIR.json")
        record["scan"]["path"] = f"{name}/01A.nii.gz"
        record["scan"]["sha256"] = "0" * 64 if name == "other" else record["scan"]["sha256"]
        write_json(file, record)
    lines = []
    (row,) = score_masks(tmp_path / "masks", tmp_path, lines.append)
    assert row["scan"] == "01A_3DFLAIR" and "01A_3DFLAIR has no label map in" in lines[0]
    record["scan"]["sha256"] = "1" * 64
    write_json(file, record)
    with pytest.raises(RunError, match=r"other.01A_3DFLAIR\.json and .*own.01A_3DFLAIR\.json both belong to"):
        score_masks(tmp_path / "masks", tmp_path, str)


def test_a_file_that_is_no_table_of_scores_is_not_replaced(data, masks, tmp_path):
    image = shutil.copy(data / "TrainingDataset_MSSEG/01A/Consensus.nii.gz", tmp_path / "01A.nii.gz")
    for path in (Path(image), tmp_path, masks / "scans.csv"):
        done = CliRunner().invoke(app, ["evaluate", str(masks), str(data), "--out", str(path)])
        assert isinstance(done.exception, RunError) and not done.stdout
        assert str(done.exception).startswith(f"{path} exists, but is not a table of scores. Name another")
    read_mask(image)


def test_masks_of_models_with_different_measures_are_scored_in_one_table(data, masks, tmp_path):
    shutil.copytree(masks, tmp_path / "masks")
    record = read_json(tmp_path / "masks/01B_3DFLAIR.json")
    record["recipe"] = replace(RECIPE, targets=Classes(classes=("lesion=1",), measures="chaos")).to_json()
    record["model"] |= {"name": "other", "sha256": "1"}
    write_json(tmp_path / "masks/01B_3DFLAIR.json", record)
    for _ in range(2):  # its own table is replaced
        done = evaluate(tmp_path / "masks", data, "--out", tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open() as file:
        first, second = csv.DictReader(file)
    assert first["mssd_mm"] == "" and float(second["mssd_mm"]) > 0 and "mssd_mm" in done.stdout
    assert f"{tmp_path / 'masks'} has masks of 2 models, and means are over all: " in done.output


def test_masks_of_one_model_with_different_recipes_are_told(data, masks, tmp_path):
    shutil.copytree(masks, tmp_path / "masks")
    record = read_json(file := tmp_path / "masks/01B_3DFLAIR.json")
    for recipe, told in ((RECIPE, False), (RECIPE.changed(threshold=64), True)):
        write_json(file, record | {"recipe": recipe.to_json()})
        score_masks(tmp_path / "masks", data, (lines := []).append)
        assert (lines[0] == f"{tmp_path / 'masks'} has masks made with 2 recipes, and means are over all") == told


def test_a_mask_without_lesions_is_scored_like_any_other(data, tmp_path):
    scan, recipe = data / "TrainingDataset_MSSEG/07A/3DFLAIR.nii.gz", RECIPE.changed(threshold=256)
    segment_all([scan], Model.open(write_model(tmp_path), recipe), tmp_path / "masks", Request(engine="keras"), str)
    (row,) = score_masks(tmp_path / "masks", data, str)
    assert row["prediction_ml"] == row["dice"] == row["sensitivity"] == 0 and math.isnan(row["precision"])
    assert "precision                – (0 of 1)" in mean_scores([row])


def test_a_damaged_record_is_named(data, masks, tmp_path):
    shutil.copytree(masks, tmp_path / "masks")
    (tmp_path / "masks/01A_3DFLAIR.json").write_text("{")
    lines = []
    (row,) = score_masks(tmp_path / "masks", data, lines.append)
    assert row["scan"] == "01B_3DFLAIR" and "01A_3DFLAIR.json is not readable as JSON" in lines[0]


def test_a_mask_that_was_changed_is_scored_as_it_is_and_told(data, masks, tmp_path):
    shutil.copytree(masks, tmp_path / "masks")
    path = tmp_path / "masks/01A_3DFLAIR_mask.nii.gz"
    expert = read_mask(data / "TrainingDataset_MSSEG/01A/Consensus.nii.gz")
    expert.save(path)
    os.utime(path, (2e9, 2e9))
    lines = []
    first, _ = score_masks(tmp_path / "masks", data, lines.append)
    assert first["dice"] == 1 and lines[0] == f"01A_3DFLAIR: {path.name} is not the mask that its record describes"


def test_a_mask_with_a_label_that_its_targets_lack_is_refused(data, masks, tmp_path):
    shutil.copytree(masks, tmp_path / "masks")
    path = tmp_path / "masks/01A_3DFLAIR_mask.nii.gz"
    expert = read_mask(data / "TrainingDataset_MSSEG/01A/Consensus.nii.gz")
    Scan(2 * expert.voxels, expert.header).save(path)  # a reader's own label, which would count as background
    with pytest.raises(ScanError, match=rf"{path} has the labels 0, 2; the targets have 0, 1 \(lesion=1\)"):
        score_masks(tmp_path / "masks", data, str)


def test_means_over_scans_are_printed(data, masks):
    lines = evaluate(masks, data).stdout.splitlines()
    assert "lesion, mean ± standard deviation over 2 scans" in lines
    assert any(line.split()[0] == "reference_ml" and "±" in line for line in lines)


def test_cases_without_a_mask_are_named(data, masks, tmp_path):
    lines = []
    score_masks(masks, data, lines.append)
    rest = IDS[2:]
    assert lines[-1] == f"{len(rest)} of {len(IDS)} cases in {data} without a mask: {', '.join(rest)}"
    folders = [data / "TrainingDataset_MSSEG" / name for name in IDS[:2]]
    raw = {path.parent.name: path for path in data.rglob("3DFLAIR.nii.gz")}
    lines_of = [f"{raw[folder.name]},{folder}/Consensus.nii.gz" for folder in folders]
    (tmp_path / "both.csv").write_text("\n".join(["scan,mask", *lines_of]))
    lines.clear()
    assert len(score_masks(masks, tmp_path / "both.csv", lines.append)) == 2
    assert not any("without a mask" in line for line in lines)


def test_masks_are_scored_where_their_scans_were_moved(data, masks, tmp_path):
    moved = Path(shutil.copytree(data, tmp_path / "moved"))
    assert score_masks(masks, moved, str) == score_masks(masks, data, str)


def test_a_mask_belongs_to_its_scan_also_if_another_is_now_at_that_place(data, masks, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    shutil.copytree(masks, tmp_path / "masks")
    first, second = (tmp_path / "data/TrainingDataset_MSSEG" / name for name in ("01A", "01B"))
    expert = read_mask(second / "Consensus.nii.gz")
    Scan(expert.voxels[::-1], expert.header).save(second / "Consensus.nii.gz")
    for case in (first, second):
        record = read_json(file := tmp_path / f"masks/{case.name}_3DFLAIR.json")
        record["scan"]["path"] = str(case / "3DFLAIR.nii.gz")
        write_json(file, record)

    def score():
        lines = []
        scores = score_masks(tmp_path / "masks", tmp_path / "data", lines.append)
        return {row["scan"]: row["dice"] for row in scores}, lines[:-1]

    before, _ = score()
    for source, target in ((first, tmp_path / "01A"), (second, first), (tmp_path / "01A", second)):
        source.rename(target)
    assert score()[0] == before and len({*before.values()}) == 2
    shutil.copy(data / "TrainingDataset_MSSEG/07A/3DFLAIR.nii.gz", second)  # in which now is the first scan
    scores, lines = score()
    assert list(scores) == ["01B_3DFLAIR"] and lines[0].startswith("01A_3DFLAIR has no label map in")
    shutil.copy(data / "TrainingDataset_MSSEG/08A/3DFLAIR.nii.gz", first)
    scores, lines = score()
    said = [
        f"{case.name}_3DFLAIR: {case / '3DFLAIR.nii.gz'} was changed after it was segmented" for case in (first, second)
    ]
    assert list(scores) == ["01A_3DFLAIR", "01B_3DFLAIR"] and lines[::2] == said


def test_masks_of_other_scans_are_named_and_refused(data, masks, tmp_path):
    other, lines = write_msseg(tmp_path, ("07A", "08A")), []
    with pytest.raises(RunError, match=r"No mask in .* was made from a case"):
        score_masks(masks, other, lines.append)
    assert [line.split()[0] for line in lines] == ["01A_3DFLAIR", "01B_3DFLAIR"]
    with pytest.raises(RunError, match="No mask in"):
        score_masks(tmp_path, data, str)


def test_a_data_set_that_gives_a_target_other_labels_is_refused(data, masks, tmp_path):
    lines, case = [], data / "TrainingDataset_MSSEG/01A"
    for place, file in {"imagesTr/01A_3DFLAIR_0000": "3DFLAIR", "labelsTr/01A_3DFLAIR": "Consensus"}.items():
        (tmp_path / place).parent.mkdir()
        shutil.copy(next(case.rglob(f"{file}.nii.gz")), tmp_path / f"{place}.nii.gz")
    about = {"channel_names": {"0": "FLAIR"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
    write_json(tmp_path / "dataset.json", about)
    assert len(score_masks(masks, tmp_path, str)) == 1
    write_json(tmp_path / "dataset.json", about | {"labels": {"background": 0, "vessel": 1, "lesion": 2}})
    said = r"lesion is label 2 in .*, but 1 in the targets\. Set the targets to the labels of this data set"
    with pytest.raises(DatasetError, match=said):
        score_masks(masks, tmp_path, lines.append)
    assert not lines
    with pytest.raises(DatasetError, match=said):
        start_run(tmp_path / "run", find_cases(tmp_path), RECIPE, [Fold((), (), ("01A_3DFLAIR",))])
    assert not (tmp_path / "run").exists()
