"""The notebook of the tutorial runs from top to bottom, and is kept without outputs."""

import json
from pathlib import Path

import nibabel as nib
import pytest

ROOT = Path(__file__).parents[2]
CELLS = json.loads((ROOT / "docs/tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def test_it_is_kept_without_outputs():
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in CELLS if "outputs" in cell)


def test_its_cells_segment_draw_and_score_the_phantom(tmp_path, monkeypatch, capsys):
    pytest.importorskip("nilearn")
    matplotlib = pytest.importorskip("matplotlib")
    if not (ROOT / "weights/ms-flair-open.weights.h5").is_file():
        pytest.skip("this checkout does not hold the open model")
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for source in CODE:
        exec(compile(source, "tutorial.ipynb", "exec"), names)
    mask, scan = nib.load("mask.nii.gz"), nib.load("flair.nii.gz")
    assert mask.shape == scan.shape and (mask.affine == scan.affine).all()
    assert (tmp_path / "mask.png").stat().st_size > 5_000
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines()[-5:])
    assert float(printed["dice"]) > 0.2 and 0 < float(printed["prediction_ml"]) < 30
