"""A run goes from files to masks and scores, resumes, and agrees with its folder."""

import csv
import json
import os
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from msseg import IDS, RECIPE, TINY, write_msseg
from narrow_networks import narrow_networks

from planar3d.errors import FoldsError, Planar3DWarning, RecipeError, RunError, ScanError, WeightsError
from planar3d.inference.segmenter import segment
from planar3d.locks import CLAIM, Holder
from planar3d.recipes import MODERN, RELEASED
from planar3d.scans.folds import Fold, choose_folds
from planar3d.scans.layouts import find_cases
from planar3d.scans.targets import Regions
from planar3d.study import preparing, sources
from planar3d.study.cross_validation import run_folds
from planar3d.study.preparing import prepare_scans
from planar3d.study.reproduce import folds_for, reproduce
from planar3d.study.results import read_maps, read_results
from planar3d.study.run_folder import open_run, start_run

pytestmark = pytest.mark.usefixtures("module_untraced", "built_once")
PATCHES = {
    **{"network": "albunet", "preparation": "non-zero-box", "samples": "patches", "tiles": "patches"},
    **{"images": ("flair",), "monitor": "last", "batch_size": 2},
}


def _quiet(text):
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_msseg(tmp_path_factory.mktemp("msseg"))


def _run(data, folder, recipe, only=None, notify=_quiet):
    """What `reproduce` does but for its report, whose figures take longer than training."""
    dataset = find_cases(data)
    run = start_run(folder, dataset, recipe, folds_for(dataset, None))
    run_folds(run, choose_folds(only, len(run.folds)), notify)
    return run


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return _run(data, tmp_path_factory.mktemp("run"), RECIPE)


def _rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_scan_is_segmented_on_its_native_grid_and_scored_on_both(run, data):
    rows = [row for number in (1, 2) for row in _rows(run.fold(number) / "scores.csv")]
    assert sorted((row["scan"], row["grid"]) for row in rows) == sorted(
        (i, g) for i in IDS for g in ("native", "prepared")
    )
    for scan, number in ((row["scan"], row["fold"]) for row in rows):
        mask = nib.load(run.fold(number) / "predictions" / f"{scan}_mask.nii.gz")
        native = nib.load(data / "TrainingDataset_MSSEG" / scan / "3DFLAIR.nii.gz")
        assert mask.shape == native.shape and set(np.unique(mask.dataobj)) <= {0, 1}
        np.testing.assert_array_equal(mask.affine, native.affine)


def test_the_run_folder_says_what_was_asked(run):
    assert json.loads((run.folder / "recipe.json").read_text()) == RECIPE.to_json()
    content = json.loads((run.folder / "folds.json").read_text())
    assert content["folds"][0]["test"] == ["01B", "07B", "08B"]
    assert content["scans"]["07A"]["group"] == "07"
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["encoder_weights"] == "none (random)" and environment["keras"]
    assert open_run(run.folder).folds == run.folds


def test_folds_of_another_machine_than_the_starting_one_are_named_with_its_precision(run, data, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    environment = json.loads((folder / "environment.json").read_text())
    assert not read_results(folder).notes
    started = {"backend": "another", "precision": "float16", "machine": "another"}
    (folder / "environment.json").write_text(json.dumps(environment | started))
    others = "; ".join(f"{name} {environment[name]} instead of {there}" for name, there in started.items())
    said = f"not trained as environment.json says: {others}."
    assert read_results(folder).notes == [f"Fold 1 was {said}", f"Fold 2 was {said}"]


def _assert_scored_as_users_predict(run, data):
    """The run's masks are those that its weights give a user on the same machine, in float32."""
    for scan in run.folds[0].test:
        path = data / f"TrainingDataset_MSSEG/{scan}/3DFLAIR.nii.gz"
        mask = segment(path, run.fold(1) / "best.weights.h5", precision="float32")
        expected = nib.load(run.fold(1) / f"predictions/{scan}_mask.nii.gz")
        np.testing.assert_array_equal(mask.voxels, expected.dataobj)
        assert 0 < mask.voxels.mean() < 1


def test_the_kept_weights_segment_a_scan_as_the_run_did(run, data):
    _assert_scored_as_users_predict(run, data)


def test_what_is_done_is_not_done_again(run, data):
    before = {p: p.stat().st_mtime_ns for p in run.folder.rglob("*") if p.is_file()}
    _run(data, run.folder, RECIPE)
    after = {p: p.stat().st_mtime_ns for p in run.folder.rglob("*") if p.is_file()}
    assert before == after


def test_other_folds_are_shown_where_they_differ(run, data, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    first, second = run.folds
    other = Fold(second.train, second.validation, second.test[::-1])
    for folds, words in (
        ([first, other], r"folds\.1\.test\.0: 01A there, 08A now"),
        ([first], "2 there, 1 now"),
    ):
        with pytest.raises(RunError, match=rf"other folds \({words}\)"):
            start_run(folder, find_cases(data), RECIPE, folds)


def _without_the_last_row(table):
    return "".join(table.splitlines(keepends=True)[:-1])


def test_masks_that_were_edited_after_they_were_scored_are_refused_until_they_are_scored_again(run, data, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "edited")
    edited, name, scores = open_run(folder), run.folds[0].test[0], folder / "fold-1/scores.csv"
    _, _, predicted = read_maps(edited, name, 1)
    replace(predicted, voxels=1 - predicted.voxels).save(edited.predicted(name, 1))
    with pytest.raises(RunError, match=rf"{name}_mask\.nii\.gz was changed after it was scored.* delete {scores} and"):
        read_maps(edited, name, 1)
    scores.unlink()
    _run(data, folder, RECIPE, only="1")
    assert edited.predicted(name, 1).read_bytes() == run.predicted(name, 1).read_bytes()
    read_maps(edited, name, 1)


@pytest.mark.parametrize(
    "edited",
    [lambda table: "", _without_the_last_row],
    ids=["empty", "a row less"],
)
def test_a_fold_whose_table_lacks_scores_is_scored_again(run, data, tmp_path, edited):
    folder = shutil.copytree(run.folder, tmp_path / "edited")
    scores = folder / "fold-1/scores.csv"
    whole = scores.read_text()
    scores.write_text(edited(whole))
    _run(data, folder, RECIPE, only="1")
    assert scores.read_text() == whole


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("folds.json", {}),
        ("folds.json", {"data": None}),
        ("folds.json", {"data": {}}),
        ("folds.json", {"scans": {}}),
        ("folds.json", {"scans": None}),
        ("prepared/recipe.json", []),
        ("prepared/01A/geometry.json", {"sources": [1]}),
        ("prepared/01A/geometry.json", {"sources": {"flair": {}}}),
        ("prepared/01B/geometry.json", {"header": ""}),
        ("prepared/01B/geometry.json", {"offset": [0]}),
        ("fold-1/training.json", []),
        ("fold-1/training.json", {"other": 1}),
    ],
)
def test_a_file_that_was_edited_to_another_form_is_named(run, data, tmp_path, file, content):
    folder = shutil.copytree(run.folder, tmp_path / "edited")
    before = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**before, **content} if content else content))
    (folder / "fold-1/scores.csv").unlink()
    with pytest.raises(RunError, match=f"{file} is not in the form that planar3d writes"):
        _run(data, folder, RECIPE, only="1")


def test_a_run_from_before_a_field_was_there_goes_on_by_what_was_done_then(run, data, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "older")
    # As planar3d wrote them before recipes had sections, and before there were matrices.
    known = json.loads((Path(__file__).parents[1] / "format_1_recipes.json").read_text())["paper"]
    flat = {place.rpartition(".")[2]: value for place, value in RECIPE.leaves().items()}
    content = {name: flat.get(name, value) for name, value in known.items() if name != "resampling"}
    (folder / "recipe.json").write_text(json.dumps(content))
    prepared = ("grid", "size", "pixel_mm", "slice_mm", "spline_order", "grey_levels", "raw_values")
    (folder / "prepared/recipe.json").write_text(json.dumps({name: content[name] for name in prepared}))
    then = RECIPE.changed(resampling="scipy")
    assert open_run(folder).recipe == then
    prepare_scans(start_run(folder, find_cases(data), then, run.folds), _quiet)
    with pytest.raises(RunError, match=r"another recipe \(preparation.resampling: scipy there, matrix now\)"):
        start_run(folder, find_cases(data), RECIPE, run.folds)


def test_folds_run_alone_equal_those_of_the_whole_run(run, data, tmp_path):
    _run(data, tmp_path, RECIPE, only="2")
    assert not (tmp_path / "fold-1").exists()
    assert (tmp_path / "fold-2/scores.csv").read_text() == (run.fold(2) / "scores.csv").read_text()


def test_cached_features_give_the_same_scores(run, data, tmp_path):
    cached = RECIPE.changed(cached_features="float32")
    _run(data, tmp_path, cached, only="1")
    for ours, theirs in zip(_rows(tmp_path / "fold-1/scores.csv"), _rows(run.fold(1) / "scores.csv"), strict=True):
        assert float(ours["dice"]) == pytest.approx(float(theirs["dice"]), abs=1e-3, nan_ok=True)


@pytest.mark.parametrize(
    ("scaled", "is_shared"), [(("bridge", "decoder"), True), (("encoder",), False), (("block1_conv1",), False)]
)
def test_folds_share_features_only_of_an_encoder_that_none_of_them_scales(run, scaled, is_shared):
    scaling = replace(run, recipe=RECIPE.changed(cached_features="float32", unit_variance=scaled))
    assert (scaling.features("01A", 1) == scaling.features("01A", 2)) == is_shared


def test_a_folder_made_by_another_recipe_or_data_is_refused(run, data, tmp_path):
    dataset = find_cases(data)
    with pytest.raises(RunError, match=r"another recipe \(training.epochs: 1 there, 2 now\)"):
        start_run(run.folder, dataset, RECIPE.changed(epochs=2), run.folds)
    with pytest.raises(RunError, match="other folds"):
        start_run(run.folder, dataset, RECIPE, run.folds[::-1])
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(RunError, match="neither empty nor a run folder"):
        start_run(tmp_path, dataset, RECIPE, run.folds)


def test_scans_added_or_removed_are_named(run, data, tmp_path):
    folder, added = shutil.copytree(run.folder, tmp_path / "run"), run.folds[0].test[0]
    content = json.loads((folder / "folds.json").read_text())
    for name, words in ((added, f"{added}: only now"), ("09X", "09X: only there")):
        scans = {scan: row for scan, row in content["scans"].items() if scan != name}
        extra = {name: content["scans"][added]} if name not in content["scans"] else {}
        folds = [{k: [s for s in v if s != name] for k, v in fold.items()} for fold in content["folds"]]
        (folder / "folds.json").write_text(json.dumps({**content, "scans": {**scans, **extra}, "folds": folds}))
        with pytest.raises(RunError, match=rf"other scans \(scans\.{words}\)"):
            start_run(folder, find_cases(data), RECIPE, run.folds)


def test_a_run_goes_on_where_its_scans_were_moved(data, tmp_path):
    before, after, folder = tmp_path / "before", tmp_path / "moved" / "after", tmp_path / "run"
    for copy in (before, after):
        shutil.copytree(data, copy)
    folds = folds_for(find_cases(before), None)
    start_run(folder, find_cases(before), RECIPE, folds)
    with pytest.raises(RunError, match=r"another data set \(data\.folder"):  # which of both is meant is not known
        start_run(folder, find_cases(after), RECIPE, folds)
    shutil.rmtree(before)
    with pytest.raises(RunError, match="another data set"):
        start_run(folder, find_cases(after), RECIPE, folds[::-1])
    start_run(folder, find_cases(after), RECIPE, folds)
    assert open_run(folder).cases == find_cases(after).by_id()
    (folder / "recipe.json").write_text("{")
    with pytest.raises(RunError, match="delete it to create it again"):
        start_run(folder, find_cases(after), RECIPE, folds)
    (folder / "recipe.json").unlink()
    assert start_run(folder, find_cases(after), RECIPE, folds) == open_run(folder)


def test_a_folder_of_phantom_is_known_as_such(data, tmp_path):
    copy = shutil.copytree(data, tmp_path / "data")
    (copy / "phantom.json").write_text("{}")
    for folder, is_phantom in ((data, False), (copy, True)):
        dataset = find_cases(folder)
        run = start_run(tmp_path / f"{is_phantom}", dataset, RECIPE, folds_for(dataset, None))
        assert run.data["phantom"] is is_phantom


def test_a_mask_that_was_changed_after_it_was_prepared_is_told(data, tmp_path):
    copy, folder = shutil.copytree(data, tmp_path / "data"), tmp_path / "run"
    dataset = find_cases(copy)
    run = start_run(folder, dataset, RECIPE, folds_for(dataset, None))
    prepare_scans(run, _quiet)
    mask, other = (dataset.by_id()[scan].labels for scan in ("01A", "07A"))
    os.utime(mask)  # copied, say
    prepare_scans(run, _quiet)
    content = mask.read_bytes()
    mask.write_bytes(bytes(len(content)))
    os.utime(mask, (0, 0))  # moved into place with its own date
    with pytest.raises(RunError, match="was changed after it was prepared"):
        prepare_scans(run, _quiet)
    mask.write_bytes(content)
    os.utime(mask, (2**32, 2**32))  # of a clock that is ahead
    prepare_scans(run, _quiet)
    mask.write_bytes(bytes(len(content)))
    os.utime(mask, (2**32, 2**32))
    with pytest.raises(RunError, match="was changed after it was prepared"):
        prepare_scans(run, _quiet)
    mask.write_bytes(content)
    shutil.copy(other, mask)
    with pytest.raises(RunError, match=r"01A/Consensus.nii.gz was changed after it was prepared"):
        prepare_scans(run, _quiet)


@pytest.mark.parametrize("same", [False, True])
def test_a_mask_that_is_changed_while_it_is_prepared_is_told(data, tmp_path, monkeypatch, same):
    """Its former digest was noted with what the other mask gave."""
    dataset = find_cases(shutil.copytree(data, tmp_path / "data"))
    run = start_run(tmp_path / "run", dataset, RECIPE, folds_for(dataset, None))
    mask, read = dataset.by_id()["01A"].labels, preparing.read_images
    labels = nib.load(mask)
    moved = nib.Nifti1Image(np.roll(labels.get_fdata(), 1).astype(np.uint8), labels.affine)

    def change(files, *how):
        if files["flair"].parent == mask.parent:
            os.utime(mask) if same else nib.save(moved, mask)
        return read(files, *how)

    monkeypatch.setattr(preparing, "read_images", change)
    with nullcontext() if same else pytest.raises(ScanError, match=r"01A/Consensus\.nii\.gz was changed while"):
        prepare_scans(run, _quiet)
    assert (run.prepared("01A") / "geometry.json").is_file() == same


def test_a_mask_that_is_changed_while_it_is_compared_is_told_by_the_next_run(data, tmp_path, monkeypatch):
    dataset = find_cases(shutil.copytree(data, tmp_path / "data"))
    run = start_run(tmp_path / "run", dataset, RECIPE, folds_for(dataset, None))
    prepare_scans(run, _quiet)
    mask, digested = dataset.by_id()["01A"].labels, sources.files_sha256
    os.utime(mask)

    def change_then(files):
        found = digested(files)
        mask.write_bytes(bytes(mask.stat().st_size))
        return found

    monkeypatch.setattr(sources, "files_sha256", change_then)
    prepare_scans(run, _quiet)
    monkeypatch.undo()
    with pytest.raises(RunError, match="was changed after it was prepared"):
        prepare_scans(run, _quiet)


def test_a_prepared_scan_whose_mask_was_removed_is_told_with_what_creates_it_again(run, data, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    (folder / "fold-1/scores.csv").unlink()
    prepared = folder / "prepared/01A"
    (prepared / "mask.npy").unlink()
    with pytest.raises(RunError, match=rf"01A has no mask.npy\. Delete {prepared} to create it again\."):
        _run(data, folder, RECIPE, only="1")
    shutil.rmtree(prepared)
    prepare_scans(open_run(folder), _quiet)
    assert (prepared / "mask.npy").read_bytes() == (run.prepared("01A") / "mask.npy").read_bytes()


@pytest.mark.parametrize(("name", "role"), [("voxels.npy", "voxels"), ("mask.npy", "labels")])
def test_a_prepared_array_that_was_changed_is_told_before_training(run, data, tmp_path, name, role):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    (folder / "fold-1/scores.csv").unlink()
    path = folder / "prepared/01A" / name
    np.save(path, np.roll(whole := np.load(path), 1, axis=0))
    with pytest.raises(RunError, match=rf"prepared {role} in {path.parent} were .* Delete {path.parent}, "):
        _run(data, folder, RECIPE, only="1")
    shutil.rmtree(path.parent)
    _run(data, folder, RECIPE, only="1")
    np.testing.assert_array_equal(np.load(path), whole)


def test_labels_that_do_not_fit_end_a_run_before_anything_is_written(run, data, tmp_path):
    dataset = find_cases(shutil.copytree(data, tmp_path / "data"))
    mask = nib.load(path := dataset.by_id()["01A"].labels)
    nib.save(nib.Nifti1Image(np.asarray(mask.dataobj) * 2, mask.affine), path)
    with pytest.raises(ScanError, match=r"01A/Consensus\.nii\.gz has the labels \{0, 2\}"):
        reproduce(dataset, tmp_path / "run", RECIPE, notify=_quiet)
    assert not (tmp_path / "run").exists()
    shutil.copy(find_cases(data).by_id()["01A"].labels, path)
    start_run(tmp_path / "run", dataset, RECIPE.changed(epochs=2), run.folds)


def test_missing_encoder_weights_end_a_run_before_anything_is_written(data, tmp_path):
    recipe = RECIPE.changed(encoder_weights=str(tmp_path / "absent.h5"))
    with pytest.raises(WeightsError, match=r"absent\.h5"):
        reproduce(find_cases(data), tmp_path / "run", recipe, notify=_quiet)
    assert not (tmp_path / "run").exists()


def test_encoder_weights_of_another_network_end_a_run_before_anything_is_written(data, tmp_path):
    np.savez(tmp_path / "other.npz", **{"conv1/kernel": np.zeros((3, 3, 3, 8), np.float32)})
    recipe = RECIPE.changed(encoder_weights=str(tmp_path / "other.npz"))
    with pytest.raises(WeightsError, match=r"other\.npz does not fit the encoder"):
        reproduce(find_cases(data), tmp_path / "run", recipe, notify=_quiet)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"frozen": ("decodr",)}, "frozen='decodr' is neither a layer of"),
        ({"frozen": ("encoder", "bridge", "decoder")}, "leaves nothing to train"),
        ({"unit_variance": ("bridge_",)}, "unit_variance='bridge_' is neither a layer of"),
        ({"frozen": (), "cached_features": "float32"}, "needs a frozen encoder"),
        ({"loss": "ce-and-dice", "cross_entropy": "categorical"}, "targets='binary' has .* set cross_entropy=binary"),
        ({"loss": "multiple-dice", "dice_of": "foreground"}, "dice_of='foreground' needs exactly one class"),
        ({"schedule": "plateau", "watched": "val_dice"}, "while val_dice improves; set direction=max"),
        ({"schedule": "cosine", "floor": 0.1}, "floor=0.1 is greater than learning_rate=0.001"),
        ({"network": "albunet", "unit_variance": ("conv1_bn",), "encoder_weights": "none"}, "conv1_bn has no kernel"),
        (
            PATCHES | {"tiles.shape": (0, 32, 32), "tiles.step": (0, 16, 16)},
            "all slices of a scan.* one size in a batch",
        ),
        (PATCHES | {"tiles.shape": (4, 32, 0), "tiles.step": (2, 16, 0)}, "all columns of .* needs multiples of 32"),
    ],
)
def test_a_recipe_that_does_not_fit_its_network_ends_a_run_before_anything_is_written(
    data, tmp_path, monkeypatch, changes, sentence
):
    narrow_networks(monkeypatch)
    with pytest.raises(RecipeError, match=sentence):
        reproduce(find_cases(data), tmp_path / "run", RECIPE.changed(**changes), notify=_quiet)
    assert not (tmp_path / "run").exists()


def test_an_id_too_long_for_the_names_of_its_files_ends_a_run_before_anything_is_written(data, tmp_path):
    lines = ["id,scan,mask,group"]
    for scan in IDS:
        folder = data / "TrainingDataset_MSSEG" / scan
        name = "a" * 219 if scan == IDS[0] else scan
        lines.append(f"{name},{folder}/3DFLAIR.nii.gz,{folder}/Consensus.nii.gz,{scan[:2]}")
    (tmp_path / "cases.csv").write_text("\n".join(lines))
    dataset = find_cases(tmp_path / "cases.csv")
    with pytest.raises(RunError, match=r"a_fold-2\.png has 238 bytes, but .* can have at most 237.* a shorter id"):
        start_run(tmp_path / "run", dataset, RECIPE, folds_for(dataset, "2"))
    assert not (tmp_path / "run").exists()


def test_a_fold_that_its_recipe_cannot_validate_ends_a_run_before_anything_is_written(data, tmp_path):
    dataset, fold = find_cases(data), Fold(IDS[:1], (), IDS[1:2])
    with pytest.raises(RecipeError, match=r"needs a scan for validation, but a fold has only 1 scan for training"):
        start_run(tmp_path / "run", dataset, RECIPE, [fold])
    assert not (tmp_path / "run").exists()
    without = RECIPE.changed(validation="none", monitor="last")
    assert start_run(tmp_path / "run", dataset, without, [fold]).folds == [fold]


def test_a_bad_scan_ends_the_run_with_its_name_before_training(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    bad = tmp_path / "data/TrainingDataset_MSSEG/07A/3DFLAIR.nii.gz"
    bad.write_bytes(bad.read_bytes()[:-30])
    with pytest.raises(ScanError, match="07A"):
        reproduce(find_cases(tmp_path / "data"), tmp_path / "run", RECIPE, notify=_quiet)
    assert not (tmp_path / "run/fold-1").exists()


@pytest.mark.parametrize("converted", [False, True])
def test_a_copy_of_a_patient_is_refused_before_training(converted, data, tmp_path):
    folder = shutil.copytree(data, tmp_path / "data") / "TrainingDataset_MSSEG"
    copy = shutil.copytree(folder / "07A", folder / "07A copy") / "3DFLAIR.nii.gz"
    if converted:
        found = nib.load(copy)
        nib.save(nib.Nifti1Image(found.get_fdata(), found.affine, dtype=np.float64), copy)
    with pytest.raises(RunError, match=r"07A copy/3DFLAIR\.nii\.gz is a copy of an image of 07A, so a fold may train"):
        _run(tmp_path / "data", tmp_path / "run", RECIPE)
    assert not [*(tmp_path / "run").glob("fold-*")]


def test_all_masks_that_are_not_on_the_grid_of_their_scans_are_named_before_any_scan_is_prepared(data, tmp_path):
    dataset = find_cases(shutil.copytree(data, tmp_path / "data"))
    run = start_run(tmp_path / "run", dataset, RECIPE, folds_for(dataset, None))
    for scan in ("01B", "08A"):
        mask = tmp_path / f"data/TrainingDataset_MSSEG/{scan}/Consensus.nii.gz"
        found = nib.load(mask)
        nib.save(nib.Nifti1Image(np.asarray(found.dataobj)[1:], found.affine), mask)
    told = r"^2 cases cannot be prepared: 01B, 08A\. .*01B/Consensus.* shape \(21, .*resample"
    with pytest.raises(ScanError, match=told):
        start_run(tmp_path / "later", dataset, RECIPE, run.folds)
    assert not (tmp_path / "later").exists()


def test_a_mask_given_as_a_scan_is_refused_before_training(data, tmp_path):
    """It was trained on."""
    folder = shutil.copytree(data, tmp_path / "data") / "TrainingDataset_MSSEG/01B"
    shutil.copy(folder / "Consensus.nii.gz", folder / "3DFLAIR.nii.gz")
    with pytest.raises(ScanError, match=r"01B/3DFLAIR\.nii\.gz has only the values 0, 1, so it is a mask"):
        _run(tmp_path / "data", tmp_path / "run", RECIPE)
    assert not [*(tmp_path / "run").glob("fold-*")]


def test_folds_are_a_number_a_file_or_the_rule(data, tmp_path):
    dataset = find_cases(data)
    assert len(folds_for(dataset, None)) == len(folds_for(dataset, "2")) == 2
    own = {"folds": [{"train": ["01A", "07A"], "validation": ["08A"], "test": ["01B"]}]}
    (tmp_path / "folds.json").write_text(json.dumps(own))
    assert folds_for(dataset, str(tmp_path / "folds.json"))[0].test == ("01B",)
    for words in ("five", "²"):
        with pytest.raises(FoldsError, match="neither a number"):
            folds_for(dataset, words)


def test_a_fold_that_was_copied_from_another_is_not_taken_for_trained(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run")
    copied = replace(run, folder=tmp_path / "run")
    shutil.rmtree(copied.fold(2))
    shutil.copytree(copied.fold(1), copied.fold(2))
    with pytest.raises(RunError, match=r"fold-2.best\.weights\.h5 was trained on .*, but fold 2 of .*delete"):
        run_folds(copied, [2], _quiet)
    shutil.copy(run.fold(2) / "scores.csv", copied.fold(2))
    with pytest.raises(RunError, match="was trained on"):
        read_results(copied.folder)


def test_own_folds_that_test_another_visit_of_a_training_patient_are_told(data, tmp_path):
    dataset = find_cases(data)
    visits = [replace(case, patient="x") if case.id in ("01A", "01B") else case for case in dataset.cases]
    dataset, folds = replace(dataset, cases=tuple(visits)), [Fold(("08A",), ("01A",), ("01B",))]
    with pytest.warns(Planar3DWarning, match="Fold 1 tests 01B, but trains or validates on other scans"):
        start_run(tmp_path / "run", dataset, RECIPE, folds)
    assert open_run(tmp_path / "run").patients["01B"] == "x"


def test_without_folds_every_scan_trains_and_nothing_is_reported(data, tmp_path):
    dataset = find_cases(data)
    (fold,) = folds_for(dataset, "none")
    assert (*fold.train, *fold.validation) == tuple(sorted(IDS)) and not fold.test
    with pytest.raises(FoldsError, match="planar3d train"):
        reproduce(dataset, tmp_path / "run", RECIPE, folds="none", notify=_quiet)
    assert not (tmp_path / "run").exists()


def test_the_modern_recipe_goes_from_thick_and_thin_slices_to_native_masks(data, tmp_path):
    recipe = MODERN.changed(
        size=32, pixel_mm=8.0, slice_mm=2.0, crop=16, crops_per_epoch=3, epochs=2, warmup_steps=2,
        decoder_filters=(4, 4), bridge_filters=4, encoder_weights="none", precision="float32", threshold=2.0,
        encoder=RECIPE.encoder,
    )  # fmt: skip
    run = _run(data, tmp_path / "run", recipe, only="1")
    rows = _rows(run.fold(1) / "scores.csv")
    assert [row["scan"] for row in rows[::2]] == ["01B", "07B", "08B"]
    _assert_scored_as_users_predict(run, data)


def test_the_released_recipe_runs_as_well(data, tmp_path):
    tiny = [s for s in TINY if not s.startswith("threshold")]
    run = _run(data, tmp_path, RELEASED.with_settings(tiny), only="1")
    assert len(_rows(run.fold(1) / "scores.csv")) == 6


@pytest.mark.parametrize(
    ("instructions", "computed", "said"),
    [
        ("amx_bf16", "bf16", "batches of 2: bf16 gradients agree with float32"),
        ("none", "float32", "All layers are computed in float32: no bf16 instructions were found on this processor."),
    ],
)
def test_bf16_is_computed_where_it_is_fast_and_checked_before_it_trains_and_scores_are_of_float32(
    data, tmp_path, monkeypatch, instructions, computed, said
):
    monkeypatch.setattr("planar3d.training.precision.bf16_instructions", lambda: instructions)
    told = []
    recipe = RECIPE.changed(precision="bf16", cached_features="bf16")
    run = _run(data, tmp_path, recipe, only="1", notify=told.append)
    assert any(line.startswith(said) for line in told)
    assert any(line.startswith("predicting shared on ") and line.endswith("float32") for line in told)
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["precision"] == computed
    if computed == "bf16":
        _assert_scored_as_users_predict(run, data)


def test_a_run_folder_from_before_images_had_names_is_gone_on_with(run, data, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "older")
    content = json.loads((folder / "folds.json").read_text())
    for row in content["scans"].values():
        row |= {"scan": row.pop("images")["flair"], "mask": row.pop("labels")}
    (folder / "folds.json").write_text(json.dumps(content))
    assert open_run(folder) == start_run(folder, find_cases(data), RECIPE, run.folds)
    row["mask"] = "/elsewhere.nii"
    (folder / "folds.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"other scans \(scans.08B.labels: /elsewhere.nii there"):
        start_run(folder, find_cases(data), RECIPE, run.folds)


def test_a_mask_that_was_changed_is_told_in_a_copy_of_the_run_folder_which_reads_others_once(run, data, tmp_path):
    copy = shutil.copytree(data, tmp_path / "data")
    dataset = find_cases(copy)
    prepare_scans(start_run(tmp_path / "run", dataset, RECIPE, run.folds), _quiet)
    mask = dataset.by_id()["01A"].labels
    content = bytearray(mask.read_bytes())
    content[-12] ^= 1  # of the same size
    mask.write_bytes(content)
    there = shutil.copytree(tmp_path / "run", tmp_path / "copy", copy_function=shutil.copyfile)
    with pytest.raises(RunError, match=r"01A/Consensus\.nii\.gz was changed after it was prepared"):
        prepare_scans(open_run(there), _quiet)
    content[-12] ^= 1
    mask.write_bytes(content)
    prepare_scans(open_run(there), _quiet)
    written = (there / "prepared/01A/geometry.json").read_text()
    prepare_scans(open_run(there), _quiet)
    assert written == (there / "prepared/01A/geometry.json").read_text()
    assert written != (tmp_path / "run/prepared/01A/geometry.json").read_text()


def test_a_mask_that_is_changed_while_a_fold_is_trained_is_not_scored(run, data, tmp_path):
    cases = find_cases(shutil.copytree(data, tmp_path / "data")).by_id()
    again = replace(run, folder=shutil.copytree(run.folder, tmp_path / "run"), cases=cases)
    (scores := again.fold(1) / "scores.csv").unlink()

    def change(text):
        if text.startswith("predicting"):
            shutil.copy(cases["07A"].labels, cases["01B"].labels)

    with pytest.raises(RunError, match=r"01B/Consensus\.nii\.gz was changed after it was prepared"):
        run_folds(again, [1], change)
    assert not scores.exists()


@pytest.mark.parametrize(
    "said, absent", [("fold 1/", "best.weights.h5"), ("epoch 1/", "training.json"), ("predicting", "predictions")]
)
def test_a_fold_that_another_process_took_over_is_left_to_it(run, data, tmp_path, said, absent):
    """As while a job was suspended: both wrote into one folder, and best weights and history were of two trainings."""
    again = start_run(tmp_path / "run", find_cases(data), RECIPE, run.folds)
    shutil.copytree(run.folder / "prepared", tmp_path / "run" / "prepared")
    claim = again.fold(1) / CLAIM

    def take_over(text):
        if text.startswith(said):
            claim.write_text(json.dumps(Holder("node7", 4711, "12", 1.7e9)._asdict()))

    with pytest.raises(RunError, match="fold-1 was taken over by another process"):
        run_folds(again, [1], take_over)
    assert claim.is_file() and not (again.fold(1) / absent).exists()


def test_other_weights_in_the_encoder_s_file_are_told_by_later_folds(run, data, tmp_path):
    weights = shutil.copy(run.fold(1) / "best.weights.h5", tmp_path)
    recipe = RECIPE.changed(encoder_weights=weights)
    start_run(tmp_path / "run", find_cases(data), recipe, run.folds)
    start_run(tmp_path / "run", find_cases(data), recipe, run.folds)
    shutil.copy(run.fold(2) / "best.weights.h5", weights)
    with pytest.raises(RunError, match=r"best\.weights\.h5 was changed after the run in .*run was started"):
        start_run(tmp_path / "run", find_cases(data), recipe, run.folds)


def test_a_fold_is_not_trained_with_other_weights_than_those_before_it(run, data, tmp_path):
    weights = shutil.copy(run.fold(1) / "best.weights.h5", tmp_path)
    started = start_run(tmp_path / "run", find_cases(data), RECIPE.changed(encoder_weights=weights), run.folds)
    shutil.copytree(run.folder / "prepared", started.folder / "prepared")
    shutil.copy(run.fold(2) / "best.weights.h5", weights)  # while fold 1 is trained
    with pytest.raises(RunError, match=r"best\.weights\.h5 was changed after the run in .*run was started"):
        run_folds(started, [2], _quiet)
    assert not (started.fold(2) / "best.weights.h5").exists()


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (RECIPE.changed(size=64), r"with the preparation \{.*'size': 32.*, but the recipe has \{.*'size': 64"),
        (
            replace(RECIPE, targets=Regions()),
            r"with the labels \[0, 1\], but the recipe has \[0, 1, 2, 4\]\. Use another",
        ),
    ],
)
def test_prepared_scans_copied_from_a_run_that_prepared_others_are_refused(run, tmp_path, recipe, said):
    shutil.copytree(run.folder / "prepared", tmp_path / "prepared")
    with pytest.raises(RunError, match=said):
        prepare_scans(replace(run, folder=tmp_path, recipe=recipe), _quiet)
