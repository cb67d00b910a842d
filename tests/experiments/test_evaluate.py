"""Networks of a cross-validation are scored as named, or a sentence says what is missing."""

import pytest
from experiment_modules import modules_of
from msseg import write_msseg

from planar3d.errors import RunError
from planar3d.recipes import MODERN
from planar3d.scans.layouts import find_cases
from planar3d.study.reproduce import folds_for
from planar3d.study.run_folder import start_run


@pytest.fixture
def evaluate():
    """The module."""
    with modules_of("open_model", "evaluate") as [module]:
        yield module


def test_an_unknown_engine_is_refused_before_the_work(evaluate, tmp_path):
    with pytest.raises(RunError, match="--engines='onnx' is unknown; choose one of: 'keras'"):
        evaluate.run(tmp_path, tmp_path / "scores.csv", "keras,onnx")


def test_a_scan_without_its_mask_is_refused(evaluate):
    with pytest.raises(RunError, match="name=scan,mask is needed"):
        list(evaluate.given_scans(["one=FLAIR.nii.gz"]))


def test_scores_of_another_run_are_not_shown_for_one_that_has_none(evaluate, tmp_path, capsys):
    dataset = find_cases(write_msseg(tmp_path / "data", ids=("01A", "01B", "01C")))
    run = start_run(tmp_path / "run", dataset, MODERN.changed(encoder_weights="none"), folds_for(dataset, "3"))
    (tmp_path / "scores.csv").write_text("scan,fold,engine,threshold,dice\n01A,1,keras,32,0.9\n")
    with pytest.raises(RunError, match="has no fold with scores"):
        evaluate.run(run.folder, tmp_path / "scores.csv", "keras")
    assert capsys.readouterr().out == ""
