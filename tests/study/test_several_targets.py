"""The road of several images and classes: from a data set of tumours to label maps, scores by region, and a record."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from scan_pages import pictures_of
from typer.testing import CliRunner

from planar3d.cli import app
from planar3d.inference.segmenter import segment
from planar3d.networks.registry import find_architecture
from planar3d.networks.weights_file import load_network, save_weights
from planar3d.recipes.wacker2019 import WACKER2019_3D
from planar3d.scans.layouts import find_cases
from planar3d.study.cohort_scores import score_masks

SMALL = {
    **{"encoder_weights": "none", "shape": "4,32,32", "step": "4,16,16", "batch_size": 2, "patches_per_epoch": 4},
    **{"epochs": 2, "foreground_share": 0.7, "augmentation": "flip,brightness"},
}
pytestmark = pytest.mark.usefixtures("module_untraced", "module_narrow", "module_one_box", "built_once")
SETTINGS = [word for field, value in SMALL.items() for word in ("--set", f"{field}={value}")]


def _run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    pytest.importorskip("nilearn")
    folder = tmp_path_factory.mktemp("brats")
    _run("phantom", "--out", folder, "--layout", "brats", "--scans-per-center", 1, "--reduction", 6)
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "wacker"
    _run("crossval", "--data", data, "--out", out, "--recipe", "wacker2019-3d", "--folds", 3, "--only", 1, *SETTINGS)
    return out


def test_a_cross_validation_scores_every_region_on_both_grids(run):
    with (run / "fold-1/scores.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {(row["target"], row["grid"]) for row in rows} == {
        (target, grid) for target in ("WT", "TC", "ET") for grid in ("prepared", "native")
    }
    # Nothing is resampled: what lies outside of the box changes no overlap.
    by = {(row["target"], row["grid"]): row for row in rows}
    assert all(by[t, "prepared"]["dice"] == by[t, "native"]["dice"] for t in ("WT", "TC", "ET"))
    page = (run / "report/report.html").read_text()
    assert "95 % Hausdorff distance [mm]" in page and "± is the sample standard deviation (n − 1) over scans." in page
    for name in ("targets", "measures_ET_native", "published_brats2018"):
        text = (run / f"report/{name}.md").read_text()
        assert "Dice 1 and a 95 % Hausdorff distance of 0 mm" in text and "but not precisions" not in text, name
    assert "Scores by target" in page and "WT, native grid" in page and "Table 2" not in page


def test_a_fold_whose_table_lacks_a_target_is_scored_again(run, data, tmp_path):
    folder = shutil.copytree(run, tmp_path / "edited")
    whole = (scores := folder / "fold-1/scores.csv").read_text()
    scores.write_text("".join(line for line in whole.splitlines(keepends=True) if ",ET," not in line))
    _run("crossval", "--data", data, "--out", folder, "--recipe", "wacker2019-3d", "--folds", 3, "--only", 1, *SETTINGS)
    assert scores.read_text() == whole != ""


def test_the_report_prints_what_the_paper_printed_beside_what_the_run_scored_and_says_of_which_data(run):
    with (run / "report/published_brats2018.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    published = {(row["row"], row["column"]): float(row["mean"]) for row in rows if row["kind"] == "published"}
    assert published["AlbuNet3D, pretrained, mean", "WT"] == 0.8919
    assert published["AlbuNet2D, not pretrained, median", "ET"] == 0.8331
    with (run / "fold-1/scores.csv").open() as stream:
        scores = [row for row in csv.DictReader(stream) if row["grid"] == "native"]
    for row in rows:
        if row["kind"] == "this run" and row["grid"] == "native":
            own = [float(score["dice"]) for score in scores if score["target"] == row["column"]]
            statistic = np.median if row["row"].endswith("median") else np.mean
            assert float(row["mean"]) == pytest.approx(statistic(own)) and int(row["of"]) == len(own)
    assert {row["kind"] for row in rows} == {"published", "this run"}
    order = list(dict.fromkeys(row["row"] for row in rows))
    assert order.index("wacker2019-3d, native grid, mean") > order.index("AlbuNet3D, pretrained, median")
    page = " ".join((run / "report/report.html").read_text().split())
    for words in (
        "Published: Wacker et al. 2019, arXiv 1912.12452, table I; for the validation set of BraTS 2018, 66 cases",
        "This run: 1 test scan of a phantom (not patients), layout BraTS. The cases differ",
    ):
        assert words in page
    printed = _run("report", run)
    assert "wacker2019-3d, native grid" in printed
    assert printed.count("± is the sample standard deviation") == 1


def test_the_weights_predict_as_the_run_did_from_the_folder_to_the_native_label_map(run, data, tmp_path):
    weights = run / "fold-1/best.weights.h5"
    scored = sorted((run / "fold-1/predictions").glob("*.nii.gz"))
    case = scored[0].name.removesuffix("_mask.nii.gz")
    _run("predict", next(data.rglob(case)), "--model", weights, "--out", tmp_path, "--precision", "float32", "--report")
    (written,) = tmp_path.glob("*_mask.nii.gz")
    mask, expected = nib.load(written), nib.load(scored[0])
    np.testing.assert_array_equal(mask.dataobj, expected.dataobj)
    flair = nib.load(next(data.rglob(f"{case}_flair.nii.gz")))
    assert mask.shape == flair.shape and np.array_equal(mask.affine, flair.affine)
    labels = np.asarray(mask.dataobj)
    assert set(np.unique(labels)) <= {0, 1, 2, 4} and labels.any()
    assert not labels[np.asarray(flair.dataobj) == 0].all()
    record = json.loads(next(tmp_path.glob("*.json")).read_text())
    voxel_ml = abs(np.linalg.det(flair.affine)) / 1000
    assert record["result"]["targets_ml"]["WT"] == pytest.approx(np.count_nonzero(labels) * voxel_ml)
    assert record["result"]["targets_ml"]["ET"] == pytest.approx(np.count_nonzero(labels == 4) * voxel_ml)
    # Every target has its lines in the table, and its colour on the page.
    with next(tmp_path.glob("*_lesions.csv")).open() as stream:
        lines = list(csv.DictReader(stream))
    assert [(line["target"], int(line["lesion"])) for line in lines] == [
        (each["target"], each["lesion"]) for each in record["lesions"]
    ]
    volumes = {name: sum(float(r["volume_ml"]) for r in lines if r["target"] == name) for name in ("WT", "TC", "ET")}
    assert volumes == pytest.approx(record["result"]["targets_ml"], abs=1e-4)
    shown = pictures_of(next(tmp_path.glob("*_report.html")).read_text(encoding="utf-8"))
    assert [target["name"] for target in shown["targets"]] == ["WT", "TC", "ET"]
    # The same images by their names.
    paths = {name: next(data.rglob(f"{case}_{name}.nii.gz")) for name in ("t2", "flair", "t1ce")}
    images = [word for name, path in paths.items() for word in ("--image", f"{name}={path}")]
    _run("predict", *images, "--model", weights, "--out", tmp_path / "named", "--precision", "float32")
    (named,) = (tmp_path / "named").glob("*_mask.nii.gz")
    np.testing.assert_array_equal(nib.load(named).dataobj, labels)
    # It is found in a copy of the data set by what all its images contain.
    shutil.copytree(data, tmp_path / "copy")
    assert [row["target"] for row in score_masks(tmp_path / "named", tmp_path / "copy", str)] == ["WT", "TC", "ET"]
    # In Python the same, by the images' names.
    found = segment(find_cases(data).by_id()[case].images, weights, precision="float32")
    np.testing.assert_array_equal(found.voxels, labels)


def test_the_weights_file_says_what_it_is(run):
    network, recipe = load_network(run / "fold-1/best.weights.h5")
    small = {k: v for k, v in SMALL.items() if k not in ("encoder_weights",)}
    assert recipe == WACKER2019_3D.changed(encoder_weights="none", **small)
    assert network.output_shape == (None, 4, 32, 32, 4) and network.input_shape[-1] == 3


def test_a_case_without_a_contrast_is_named(run, data, tmp_path):
    folder = tmp_path / "BraTS_x"
    folder.mkdir()
    for path in next(data.glob("BraTS_*")).iterdir():
        if not path.name.endswith("_t1ce.nii.gz"):
            name = path.name.replace(path.name.rpartition("_")[0], "BraTS_x")
            (folder / name).write_bytes(path.read_bytes())
    weights = run / "fold-1/best.weights.h5"
    result = CliRunner().invoke(app, ["predict", str(folder), "--model", str(weights), "--out", str(tmp_path / "out")])
    assert result.exit_code != 0 and "t1ce" in str(result.exception or result.output)


def test_a_visit_of_a_bids_data_set_becomes_a_discrete_segmentation(run, data, tmp_path):
    (scored,) = (run / "fold-1/predictions").glob("*.nii.gz")
    case = scored.name.removesuffix("_mask.nii.gz")
    anat = tmp_path / "study/sub-01/anat"
    anat.mkdir(parents=True)
    for name, bids in (("flair", "FLAIR"), ("t1ce", "ce-gadolinium_T1w"), ("t2", "T2w")):
        (anat / f"sub-01_{bids}.nii.gz").write_bytes(next(data.rglob(f"{case}_{name}.nii.gz")).read_bytes())
    weights, out = run / "fold-1/best.weights.h5", tmp_path / "out"
    _run("predict", tmp_path / "study", "--model", weights, "--out", out, "--precision", "float32")
    written = out / "sub-01/anat/sub-01_seg-targets_dseg.nii.gz"
    np.testing.assert_array_equal(nib.load(written).dataobj, nib.load(scored).dataobj)
    assert written.with_name("sub-01_seg-targets_dseg.tsv").read_text().split() == [
        *("index", "name", "1", "WT+TC", "2", "WT", "4", "WT+TC+ET")
    ]
    record = json.loads(written.with_name("sub-01_seg-targets_dseg.json").read_text())
    assert record["SpatialReference"] == "bids:raw:sub-01/anat/sub-01_FLAIR.nii.gz" and "Type" not in record


def test_a_class_that_is_no_target_counts_as_no_lesion(run, data, tmp_path):
    network, recipe = load_network(run / "fold-1/best.weights.h5")
    kernel = network.get_layer(find_architecture(recipe.network.name).head).kernel
    kernel.assign(np.random.default_rng(0).normal(size=kernel.shape))  # so that several classes are somewhere
    weights = save_weights(network, tmp_path / "one.weights.h5", recipe.changed(regions=("core=1",)))
    case, *_ = sorted(data.glob("BraTS_*"))
    _run("predict", case, "--model", weights, "--out", tmp_path, "--precision", "float32", "--instances")
    labels, instances = (
        np.asarray(nib.load(tmp_path / f"{case.name}_{what}.nii.gz").dataobj) for what in ("mask", "instances")
    )
    assert {1, 2} <= set(labels.ravel().tolist())
    np.testing.assert_array_equal(instances > 0, labels == 1)
    record = json.loads((tmp_path / f"{case.name}.json").read_text())
    assert record["result"]["lesions"] == len(record["lesions"]) == instances.max()
