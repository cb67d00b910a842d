"""Without its scans a benchmark records nothing, and says what it needs."""

import sys
from importlib import import_module

import pytest
import typer
from experiment_modules import modules_of

from planar3d.errors import DatasetError, RecipeError


def modules(*names):
    return modules_of("../benchmarks", *names)


def test_a_folder_without_scans_replaces_no_result(tmp_path, monkeypatch):
    with modules("side_by_side", "planes", "cohort") as [side_by_side, planes, cohort]:
        monkeypatch.setattr(side_by_side, "RESULTS", tmp_path / "RESULTS.md")
        with pytest.raises(DatasetError, match="FLAIR scans"):
            planes.run(tmp_path)
        with pytest.raises(DatasetError, match="FLAIR scans"):
            cohort.run(tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unknown_name_is_refused_with_those_that_exist(tmp_path):
    with modules("growth", "systems") as [growth, systems]:
        with pytest.raises(typer.BadParameter, match="shared, jax; there are: windowed, keras; shared, keras"):
            growth.run(sizes="32", only="shared, jax", keep=tmp_path)
        with pytest.raises(RecipeError, match="messaoudi2023-ds"):
            systems.chosen("messaoudi2023")


def test_an_error_of_a_contestant_is_a_sentence(capfd):
    with (
        modules("side_by_side") as [side_by_side],
        pytest.raises(SystemExit, match="find_recipe ended with exit code 2"),
    ):
        from planar3d.recipes import find_recipe

        side_by_side.measure(find_recipe, "none")
    assert capfd.readouterr().err.startswith("Error: ")


def test_a_plot_is_replaced_only_by_one_of_the_same_kind_of_processor(monkeypatch):
    plots = set()
    for lacking in ("no AVX-512", "avx512f", "avx512f, avx512_bf16, amx_bf16"):
        with modules("side_by_side") as [side_by_side]:
            monkeypatch.setattr(side_by_side, "_arithmetic", lambda lacking=lacking: lacking)
            monkeypatch.setattr(side_by_side, "processor", lambda: "Xeon")
            plots.add(import_module("growth").PLOT.name)
            sys.modules.pop("growth")
    assert plots == {"growth-xeon-without-avx-512.png", "growth-xeon-without-bf16.png", "growth-xeon.png"}
