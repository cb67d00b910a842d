"""The smallest innermost region is found on scans that no network was trained on, and written into a weights file."""

import dataclasses

import nibabel as nib
import numpy as np
import pytest
from challenge_road import recipe_of, with_tiny
from typer.testing import CliRunner

from planar3d.cli import app
from planar3d.errors import RecipeError, RunError, ScanError
from planar3d.evaluation.challenges import score_region
from planar3d.evaluation.scores import score_scan
from planar3d.files import write_csv, write_json
from planar3d.networks.registry import recipe_network
from planar3d.networks.weights_file import load_network, read_recipe, save_weights
from planar3d.scans.folds import Fold
from planar3d.scans.layouts import find_cases
from planar3d.scans.targets import Classes, Regions
from planar3d.study.run_folder import open_run, start_run
from planar3d.study.sources import digest_sources
from planar3d.study.tuning import MOST_MM3, find_smallest, innermost_of, mean_dice, tune
from planar3d.transfer.digests import file_sha256

GRID = (2.0, 1.0, 1.5)


def test_dice_at_a_value_is_that_of_maps_decoded_by_the_rule():
    rng = np.random.default_rng(0)
    for _ in range(20):
        probabilities = np.sort(rng.random((4, 5, 6, 3)), axis=-1)[..., ::-1] ** rng.uniform(1, 6)
        reference = rng.integers(0, 2, (4, 5, 6)) * rng.choice([0, 4])
        before = Regions().decode(probabilities, GRID)
        case = innermost_of(Regions(), reference, before, GRID)
        for smallest in (0.0, 20.0, 60.0, 120.0):
            decoded = Regions(smallest_innermost_mm3=smallest).decode(probabilities, GRID)
            expected = score_region(score_scan(reference == 4, decoded == 4, GRID))["dice"]
            assert mean_dice(np.array([case]), smallest) == expected


def test_the_value_is_the_best_of_all_and_takes_away_least():
    # Two false findings, one of them smaller than a true one.
    cases = np.array([(30, 0, 1), (50, 0.8, 0), (40, 0, 1), (4000, 0.9, 0)])
    smallest, tried = find_smallest(cases)
    assert smallest == 45
    assert tried == pytest.approx({0: 1.7 / 4, 35: 2.7 / 4, 45: 3.7 / 4, (50 + MOST_MM3) / 2: 2.9 / 4})
    brute = max(np.arange(0, MOST_MM3), key=lambda value: mean_dice(cases, value))
    assert mean_dice(cases, brute) == tried[smallest]
    # What is gained in one is lost in another; the means differ in their last bits.
    equal = np.array([(10, 0.3, 1), *2 * [(4000, 0.1, 0)], (10, 0.7, 0)])
    assert find_smallest(equal)[0] == 0
    assert find_smallest(np.array([(50, 0.8, 0)]))[0] == 0
    assert find_smallest(np.array([(50, 0, 1)]))[0] == 51
    assert find_smallest(np.array([(2 * MOST_MM3, 0, 1)]))[0] == 0  # so much is never taken away


def test_means_are_those_of_each_case():
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.exponential(300, 200), rng.random(200), rng.integers(0, 2, 200)])
    _, tried = find_smallest(rows)
    assert len(tried) > 100
    assert tried == {v: float(np.mean([dice if mm3 >= v else w for mm3, dice, w in rows])) for v in tried}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Four cases; the first two have no enhancing tumour, of which 3 and 5 voxels were predicted."""
    affine = np.diag([-1.0, -1, 1, 1])
    rng = np.random.default_rng(0)
    truth = {1: 0, 2: 0, 3: 40, 4: 60}
    found = {1: 3, 2: 5, 3: 30, 4: 60}

    def save(path, voxels):
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, affine), path)

    def labels(enhancing):
        flat = np.zeros(6 * 7 * 8, np.uint8)
        flat[:200] = 2
        flat[:enhancing] = 4
        return flat.reshape(6, 7, 8)

    for n, enhancing in truth.items():
        folder = tmp_path / f"data/BraTS2021_0000{n}"
        for name in ("flair", "t1", "t1ce", "t2"):
            save(folder / f"{folder.name}_{name}.nii.gz", rng.random((6, 7, 8), np.float32))
        save(folder / f"{folder.name}_seg.nii.gz", labels(enhancing))
    recipe = with_tiny(monkeypatch, recipe_of(("flair",), ("a=1",)))
    recipe = dataclasses.replace(recipe, targets=Regions()).changed(cross_entropy="binary")
    names = {n: f"BraTS2021_0000{n}" for n in truth}
    folds = [Fold((names[3],), (names[4],), (names[1], names[2])), Fold((names[1],), (names[2],), (names[3], names[4]))]
    made = start_run(tmp_path / "run", find_cases(tmp_path / "data"), recipe, folds)
    for number, fold in enumerate(folds, start=1):
        for name in fold.test:
            save(made.fold(number) / f"predictions/{name}_mask.nii.gz", labels(found[int(name[-1])]))
    return made


def test_a_run_gives_the_value_to_a_weights_file(run, tmp_path):
    tuned = tune(open_run(run.folder))
    assert tuned.smallest_mm3 == 17.5 and (tuned.region, tuned.cases) == ("ET", 4)
    dice = 2 * 30 / 70, 1.0
    assert tuned.without == pytest.approx(sum(dice) / 4) and tuned.best == pytest.approx((2 + sum(dice)) / 4)
    # Fold 2 has no false finding, so fold 1 keeps its own; what fold 1 teaches leaves the true ones of fold 2.
    assert tuned.crossed == pytest.approx((0 + 0 + sum(dice)) / 4)
    shorter = dataclasses.replace(run.folds[0], test=run.folds[0].test[:1])
    uneven = tune(dataclasses.replace(run, folds=[shorter, run.folds[1]]))
    assert uneven.crossed == pytest.approx((0 + sum(dice)) / 3)  # every case counts once, whatever its fold
    weights = tmp_path / "best.weights.h5"
    network = recipe_network(run.recipe)
    save_weights(network, weights, run.recipe)
    (tmp_path / ".writing-killed00-best.weights.h5").touch()  # by a process that was killed
    result = CliRunner().invoke(app, ["tune", str(run.folder), "--model", str(weights)])
    assert result.exit_code == 0 and "smallest_innermost_mm3=17.5" in result.output, result.output
    assert not list(tmp_path.glob(".*"))
    other = tmp_path / "other.weights.h5"
    save_weights(network, other, run.recipe.changed(regions="WT=1+2+4,ET=1+4,TC=1", order="2,4,1"))
    refused = CliRunner().invoke(app, ["tune", str(run.folder), "--model", str(other)]).exception
    assert f"{other} has the regions WT=1+2+4, ET=1+4, TC=1, but the run WT=1+2+4, TC=1+4, ET=4" in str(refused)
    again, recipe = load_network(weights)
    assert recipe == run.recipe.changed(smallest_innermost_mm3=17.5) == read_recipe(weights)
    for one, other in zip(network.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_predictions_of_another_run_are_refused(run):
    weights = run.fold(2) / "best.weights.h5"
    save_weights(recipe_network(run.recipe), weights, run.recipe.changed(seed=7))
    with pytest.raises(RunError, match=r"best\.weights\.h5 .* differs from recipe\.json in training"):
        tune(run)


def test_predictions_that_were_edited_after_they_were_scored_are_refused(run):
    path = next(run.fold(2).rglob("*_mask.nii.gz"))
    scores = run.fold(2) / "scores.csv"
    rows = [{"scan": path.name.removesuffix("_mask.nii.gz"), "mask_sha256": file_sha256(path)}]
    write_csv(scores, list(rows[0]), rows)
    assert tune(run).cases == 4
    nib.save(nib.Nifti1Image(np.zeros((6, 7, 8), np.uint8), np.diag([-1.0, -1, 1, 1])), path)
    with pytest.raises(RunError, match=rf"{path} was changed after it was scored"):
        tune(run)


def test_what_cannot_be_tuned_is_refused(run):
    with pytest.raises(RunError, match="smallest_innermost_mm3=5"):
        tune(dataclasses.replace(run, recipe=run.recipe.changed(smallest_innermost_mm3=5)))
    with pytest.raises(RunError, match="targets='classes', without nested regions"):
        tune(dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, targets=Classes())))
    apart = run.recipe.changed(regions="WT=1+2+4,TC=1+4,ET=4,RC=5", order="2,1,4,5")
    with pytest.raises(RecipeError, match="does not contain it"):
        tune(dataclasses.replace(run, recipe=apart))
    path = next(run.fold(2).rglob("*.nii.gz"))
    nib.save(nib.Nifti1Image(np.full((6, 7, 8), 3, np.uint8), np.diag([-1.0, -1, 1, 1])), path)
    with pytest.raises(ScanError, match=rf"{path} has the labels 3; the targets have 0, 1, 2, 4"):
        tune(run)
    for path in run.fold(2).rglob("*.nii.gz"):
        path.unlink()
    with pytest.raises(RunError, match="1 fold with predictions; two are needed"):
        tune(run)
    name = run.folds[0].test[0]
    write_json(run.prepared(name) / "geometry.json", {"sources": digest_sources(run, name)})
    labels = run.cases[name].label_map
    nib.save(nib.Nifti1Image(np.ones((6, 7, 8), np.uint8), np.diag([-1.0, -1, 1, 1])), labels)
    with pytest.raises(RunError, match=rf"{labels.name} was changed after it was prepared"):
        tune(run)
