"""A process that trains fold after fold keeps nothing of the folds before."""

import gc

import keras
import pytest
from msseg import RECIPE, write_msseg

from planar3d.scans.layouts import find_cases
from planar3d.study.cross_validation import train_fold
from planar3d.study.preparing import prepare_scans
from planar3d.study.reproduce import folds_for
from planar3d.study.run_folder import start_run


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow lists gradients for good")
def test_the_layers_of_a_trained_fold_are_freed(tmp_path):
    dataset = find_cases(write_msseg(tmp_path / "data", ids=("01A", "01B", "01C")))
    run = start_run(tmp_path / "run", dataset, RECIPE, folds_for(dataset, "3"))
    prepare_scans(run, lambda line: None)
    gc.collect()
    before = {id(each) for each in gc.get_objects() if isinstance(each, keras.Layer)}
    train_fold(run, 1, lambda line: None)
    gc.collect()
    assert [each for each in gc.get_objects() if isinstance(each, keras.Layer) and id(each) not in before] == []
