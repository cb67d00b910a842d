"""The demonstration runs the whole method on the phantom."""

import csv
import sys
from dataclasses import replace

import numpy as np
import pytest
from msseg import TINY
from typer.testing import CliRunner

from planar3d.cli import app
from planar3d.errors import DatasetError, Planar3DError, RecipeError, WeightsError
from planar3d.networks.registry import describe_network
from planar3d.recipes import DEMO, RECIPES
from planar3d.recipes.demonstrations import DEMONSTRATIONS, Demonstration
from planar3d.study.reproduce import demonstrate


def test_the_demonstration_goes_from_phantom_to_report(tmp_path, untraced, one_box):
    recipe = DEMO.with_settings([*TINY, "batch_size=8"])
    small = Demonstration(recipe, reduction=14, scans_per_center=2)
    results = demonstrate(tmp_path / "demo", small, only="1", notify=lambda text: None)
    run = results.run
    assert len(run.cases) == 6 and len(run.folds) == 2
    with (run.fold(1) / "scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["group"] for row in rows} == {"01", "07", "08"}
    text = results.page.read_text(encoding="utf-8")
    assert "phantom" in text and "nothing about patients" in text
    with pytest.raises(
        DatasetError, match=r"demo-phantom has a phantom with other settings \(.*seed 0, .*needed: .*seed 1, "
    ):
        demonstrate(tmp_path / "demo", replace(small, recipe=recipe.changed(seed=1)), notify=lambda text: None)


def test_encoder_weights_that_are_missing_or_do_not_fit_are_told_before_the_phantom_is_made(tmp_path):
    recipe = DEMO.with_settings(TINY).changed(encoder_weights=str(tmp_path / "absent.npz"))
    with pytest.raises(WeightsError, match=r"absent\.npz does not exist"):
        demonstrate(tmp_path / "demo", Demonstration(recipe))
    np.savez(tmp_path / "absent.npz", **{"conv1/kernel": np.zeros((3, 3, 3, 8), np.float32)})
    with pytest.raises(WeightsError, match=r"absent\.npz does not fit the encoder"):
        demonstrate(tmp_path / "demo", Demonstration(recipe))
    assert [path.name for path in tmp_path.iterdir()] == ["absent.npz"]


def test_a_package_that_the_phantom_needs_is_missed_before_its_folder_is_made(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)  # as if it were not installed
    with pytest.raises(Planar3DError, match="need SimpleITK, which is not installed"):
        demonstrate(tmp_path / "demo", Demonstration(DEMO, layout="camus"))
    assert not any(tmp_path.iterdir())


def test_every_system_has_a_demonstration_of_a_size_that_its_network_can_see():
    assert DEMONSTRATIONS.keys() == RECIPES.keys() - {"demo"}
    for name, shown in DEMONSTRATIONS.items():
        assert describe_network(shown.recipe)["network"] == RECIPES[name].network.name


def test_a_system_that_does_not_exist_is_told_which_do():
    with pytest.raises(RecipeError, match="--system='unet' is unknown; choose one of: 'paper', 'released'"):
        CliRunner().invoke(app, ["reproduce", "--system", "unet", "--demo"], catch_exceptions=False)
