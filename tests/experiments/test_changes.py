"""What a choice of `modern` brings is told from runs that differ in it alone."""

import narrow_encoder
import pytest
from experiment_modules import modules_of
from msseg import write_msseg

from planar3d.errors import RunError
from planar3d.recipes import MODERN

TINY = [
    *("size=32", "crop=32", "decoder_filters=4,4", "bridge_filters=4", "crops_per_epoch=2", "epochs=1"),
    *("precision=float32", f"encoder={narrow_encoder.NAME}"),
]


@pytest.fixture
def changes():
    """The experiment's module."""
    with modules_of("open_model", "changes") as (module,):
        yield module


def test_every_change_takes_back_what_it_names_and_no_more(changes):
    half = MODERN.changed(epochs=9, seed=3)
    assert changes.recipe_of("modern", 3) == half
    for change, (_, taken_back) in changes.CHANGES.items():
        recipe = changes.recipe_of(change, 3)
        assert all(getattr(recipe, name) != getattr(half, name) for name in taken_back), change
        before = half.leaves()
        differing = {k.rpartition(".")[2] for k, v in recipe.leaves().items() if v != before.get(k, v)}
        assert differing == set(taken_back)


def _rows(change, dice, tested="yes", **about):
    row = {"change": change, "seed": "0", "fold": "1", "tested": tested, "lesion_f1": "0.5", **about}
    return [
        {**row, "scan": scan, "threshold": str(of_256), "dice": str(value)}
        for of_256, values in dice.items()
        for scan, value in values.items()
    ]


def test_changes_are_compared_over_the_runs_of_both_each_at_its_best_threshold(changes, monkeypatch):
    monkeypatch.setattr(changes, "THRESHOLDS", (16, 32))
    rows = _rows("modern", {16: {"a": 0.5, "b": 0.7}, 32: {"a": 0.6, "b": 0.8}})
    rows += _rows("modern", {16: {"c": 0.0}, 32: {"c": 0.0}}, fold="2")
    rows += _rows("biases", {16: {"a": 0.5, "b": 0.6}, 32: {"a": 0.3, "b": 0.8}}, lesion_f1="nan")
    # Of another scanner: it has no part in the choice of the threshold.
    rows += _rows("biases", {16: {"far": 0.2}, 32: {"far": 0.9}}, tested="no")
    rows += _rows("start", {16: {"a": 0.9}, 32: {"a": 0.9}}, seed="1")
    lines = [line.strip("| ").split(" | ") for line in changes.markdown(rows)[2:]]
    assert lines[0][:3] == ["nothing", "2", "0.467 at 32"]
    biases = ["1", "0.550 at 16", "0.700", "-0.150 ± 0.071", "2 of 2", "0.000", "0.200"]
    assert lines[1:] == [["encoder biases divided by 128", *biases]]


def test_a_run_is_scored_once_at_home_and_elsewhere(changes, tmp_path, capsys, untraced):
    data = write_msseg(tmp_path / "data", ids=("01A", "01B", "01C"))
    center = data / "TrainingDataset_MSSEG" / "01C"
    asked = {
        "data": data,
        "out": tmp_path / "runs",
        "changes": "random",
        "folds": "2",
        "seeds": "1",
        "engine": "keras",
        "settings": TINY,
        "results": tmp_path / "changes.csv",
        "table": False,
    }
    other = f"far={center / '3DFLAIR.nii.gz'},{center / 'Consensus.nii.gz'}"
    changes.run(**asked, other=[other])
    rows = changes.read_rows(tmp_path / "changes.csv")
    assert {tuple(row[k] for k in ("change", "seed", "fold", "scan", "tested")) for row in rows} == {
        ("random", "1", "2", "01B", "yes"),
        ("random", "1", "2", "far", "no"),
    }
    assert [int(row["threshold"]) for row in rows] == 2 * list(changes.THRESHOLDS)
    assert all(0 <= float(row["dice"]) <= 1 for row in rows)
    before = (tmp_path / "changes.csv").stat().st_mtime_ns
    changes.run(**asked, other=None)
    assert (tmp_path / "changes.csv").stat().st_mtime_ns == before


def test_what_is_missing_or_unknown_is_said(changes, tmp_path):
    asked = {"folds": "1", "seeds": "0", "engine": "keras", "other": None, "settings": None, "table": False}
    with pytest.raises(RunError, match="--data"):
        changes.run(**asked, data=None, out=tmp_path, changes="modern", results=tmp_path / "x.csv")
    with pytest.raises(RunError, match="'bias' is unknown; choose from: modern, random, biases"):
        changes.run(**asked, data=tmp_path, out=tmp_path, changes="bias", results=tmp_path / "x.csv")
    with pytest.raises(RunError, match="--engine='onnx' is unknown"):
        changes.run(**asked | {"engine": "onnx"}, data=tmp_path, out=tmp_path, changes="modern", results=tmp_path / "x")
